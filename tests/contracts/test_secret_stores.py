"""Every outside secret store keeps the same promises, spoken to over its real interface: HTTP, its program's, or its files."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pyrage
import pytest

from homeport.drivers.vault.stores.base import (
    ExternalSecretMissing,
    Kind,
    Reference,
    SecretStore,
    SecretStoreInvalid,
    SecretStoreUnavailable,
    StoreConfig,
)
from homeport.drivers.vault.stores.programs import Age, AwsSecretsManager, Infisical, OnePassword, Sops
from homeport.drivers.vault.stores.registry import DRIVERS
from homeport.drivers.vault.stores.web import Doppler, GcpSecretManager, HashiCorpVault, crc32c

TOKEN = "hvs.canary-credential-4711"
VALUES = {
    "plain": "canary-value",
    "multiline": "-----BEGIN KEY-----\nline two\n-----END KEY-----\n",
    "special": "a!b@c$d()e*_,/:;=?@ff[]22 \"quoted\" 'single' \\ ünï",
}


@dataclass
class World:
    """One store with what a test may do to it."""

    store: Callable[[str], SecretStore]
    """The driver, with a given credential."""
    path: str
    credential: str = TOKEN
    root: Path | None = None
    seen: list[str] = field(default_factory=list)
    """Everything the other side saw of a request or an argument list, without the credential's proper place."""
    stop: Callable[[], object] = lambda: None
    single: bool = False
    """Whether a secret is one value, so that `key` is part of its path."""

    def read(self, key: str, *, path: str = "", credential: str = "") -> str:
        return self.store(credential or self.credential).read(Reference(path=path or self.path, key=key, root=self.root))


class Server(ThreadingHTTPServer):
    """Answers as `answer(method, path, query, headers, body)` says."""

    daemon_threads = True

    def __init__(self, answer: Callable[[str, str, dict[str, list[str]], dict[str, str], bytes], tuple[int, Any]]) -> None:
        self.answer, self.seen = answer, list[str]()
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def end(self) -> None:
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        split = urlsplit(self.path)
        self.server.seen.append(self.path)
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        headers = {k.lower(): v for k, v in self.headers.items()}
        status, found = self.server.answer(self.command, unquote(split.path), parse_qs(split.query), headers, body)
        data = found if isinstance(found, bytes) else json.dumps(found).encode()
        self.send_response(status)
        if 300 <= status < 400:
            self.send_header("Location", str(found))
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_POST = do_GET

    def log_message(self, *_args: Any) -> None:
        return


def hashicorp(_tmp: Path) -> Iterator[World]:
    """KV version 2 as HashiCorp documents it: 403 for a bad token, 404 for what is not there, versions by query."""

    def answer(method: str, path: str, query: dict[str, list[str]], headers: dict[str, str], body: bytes) -> tuple[int, Any]:
        if (method, path) == ("POST", "/v1/auth/approle/login"):
            good = json.loads(body) == {"role_id": "role", "secret_id": "sid"}
            return (200, {"auth": {"client_token": TOKEN}}) if good else (400, {"errors": ["invalid secret id"]})
        if headers.get("x-vault-token") != TOKEN:
            return 403, {"errors": ["permission denied"]}
        if path != "/v1/kv/data/app/db" or query.get("version") == ["9"]:
            return 404, {"errors": []}
        return 200, {"data": {"data": VALUES, "metadata": {"version": 3}}}

    server = Server(answer)

    def store(credential: str) -> SecretStore:
        return HashiCorpVault(
            StoreConfig(name="corp", kind="vault", address=server.url, options={"mount": "kv", "private": "true"}, credential=credential)
        )

    yield World(store, "app/db", seen=server.seen, stop=server.end)
    server.end()


def hashicorp_v1(_tmp: Path) -> Iterator[World]:
    """KV version 1: the fields lie directly under `data`, and the path has no `data` in it; a namespace goes along as a header."""

    def answer(_m: str, path: str, _q: dict[str, list[str]], headers: dict[str, str], _b: bytes) -> tuple[int, Any]:
        if headers.get("x-vault-token") != TOKEN or headers.get("x-vault-namespace") != "team/a":
            return 403, {"errors": ["permission denied"]}
        return (200, {"lease_duration": 2764800, "data": VALUES}) if path == "/v1/kv/app/db" else (404, {"errors": []})

    server = Server(answer)
    options = {"mount": "kv", "kv": "1", "namespace": "team/a", "private": "true"}
    store = lambda c: HashiCorpVault(StoreConfig(name="old", kind="vault", address=server.url, options=options, credential=c))  # noqa: E731
    yield World(store, "app/db", seen=server.seen, stop=server.end)
    server.end()


def doppler(_tmp: Path) -> Iterator[World]:
    """The download of a config: one object of names and texts, with a service token as bearer."""

    def answer(_m: str, path: str, query: dict[str, list[str]], headers: dict[str, str], _b: bytes) -> tuple[int, Any]:
        if headers.get("authorization") != f"Bearer {TOKEN}":
            return 401, {"messages": ["Invalid Service token"], "success": False}
        if path != "/v3/configs/config/secrets/download" or query.get("format") != ["json"] or query.get("config") != ["app-db"]:
            return 404, {"messages": ["Could not find requested config"], "success": False}
        return 200, VALUES

    server = Server(answer)
    options = {"project": "proj", "private": "true"}
    store = lambda c: Doppler(StoreConfig(name="dop", kind="doppler", address=server.url, options=options, credential=c))  # noqa: E731
    yield World(store, "app-db", seen=server.seen, stop=server.end)
    server.end()


def google(_tmp: Path) -> Iterator[World]:
    """The REST shape of Secret Manager: access of a version, base64 payload, CRC-32C."""

    def answer(_m: str, path: str, _q: dict[str, list[str]], headers: dict[str, str], _b: bytes) -> tuple[int, Any]:
        if headers.get("authorization") != f"Bearer {TOKEN}":
            return 401, {"error": {"code": 401, "status": "UNAUTHENTICATED"}}
        if path != "/v1/projects/proj/secrets/app-db/versions/latest:access":
            return 404, {"error": {"code": 404, "status": "NOT_FOUND"}}
        data = json.dumps(VALUES).encode()
        return 200, {"name": path, "payload": {"data": base64.b64encode(data).decode(), "dataCrc32c": str(crc32c(data))}}

    server = Server(answer)

    def store(credential: str) -> SecretStore:
        options = {"project": "proj", "private": "true"}
        return GcpSecretManager(StoreConfig(name="gcp", kind="gcp", address=server.url, options=options, credential=credential))

    yield World(store, "app-db", seen=server.seen, stop=server.end)
    server.end()


def program(tmp: Path, name: str, body: str) -> tuple[str, list[str]]:
    """A stand-in for a store's program: it checks how it is called, and writes its arguments down."""
    folder = tmp / "bin"
    folder.mkdir(exist_ok=True)
    log = tmp / "argv"
    head = f"#!{sys.executable} -I\nimport json, os, sys\nargv = sys.argv[1:]\nVALUES = json.loads({json.dumps(VALUES)!r})\n"
    head += f"open({str(log)!r}, 'a').write(json.dumps(argv) + '\\n')\nassert not any(k.startswith('HOMEPORT') for k in os.environ)\n"
    (folder / name).write_text(head + body)
    (folder / name).chmod(0o755)
    return str(folder), Log(log)


class Log(list[str]):
    """The lines of a file, as they are when they are looked at."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def __str__(self) -> str:
        return self.path.read_text() if self.path.exists() else ""


def onepassword(tmp: Path) -> Iterator[World]:
    search, seen = program(
        tmp,
        "op",
        f"if os.environ.get('OP_SERVICE_ACCOUNT_TOKEN') != {TOKEN!r}: sys.exit('' + os.environ.get('OP_SERVICE_ACCOUNT_TOKEN', ''))\n"
        "assert argv[:2] == ['read', '--no-newline'] and len(argv) == 3, argv\n"
        "vault, item, field = argv[2].removeprefix('op://').split('/')\n"
        "sys.exit('no item') if (vault, item) != ('prod', 'db') or field not in VALUES else sys.stdout.write(VALUES[field])\n",
    )
    store = lambda c: OnePassword(StoreConfig(name="op", kind="onepassword", credential=c), search=search)  # noqa: E731
    yield World(store, "prod/db", seen=seen, stop=lambda: shutil.rmtree(search), single=True)


def aws(tmp: Path) -> Iterator[World]:
    search, seen = program(
        tmp,
        "aws",
        f"if os.environ.get('AWS_SECRET_ACCESS_KEY') != {TOKEN!r}: sys.exit('denied ' + os.environ.get('AWS_SECRET_ACCESS_KEY', ''))\n"
        "assert argv[:2] == ['secretsmanager', 'get-secret-value'] and '--output=json' in argv and '--region=eu-west-1' in argv, argv\n"
        "if '--secret-id=prod/db' not in argv: sys.exit(254)\n"
        "print(json.dumps({'Name': 'prod/db', 'SecretString': json.dumps(VALUES)}))\n",
    )

    def store(credential: str) -> SecretStore:
        given = json.dumps({"access_key_id": "AKIA", "secret_access_key": credential})
        return AwsSecretsManager(StoreConfig(name="aws", kind="aws", options={"region": "eu-west-1"}, credential=given), search=search)

    yield World(store, "prod/db", seen=seen, stop=lambda: shutil.rmtree(search))


def parameters(tmp: Path) -> Iterator[World]:
    """AWS's Parameter Store: `ssm get-parameter`, decrypted."""
    search, seen = program(
        tmp,
        "aws",
        f"if os.environ.get('AWS_SECRET_ACCESS_KEY') != {TOKEN!r}: sys.exit('denied ' + os.environ.get('AWS_SECRET_ACCESS_KEY', ''))\n"
        "assert argv[:3] == ['ssm', 'get-parameter', '--with-decryption'] and '--region=eu-west-1' in argv, argv\n"
        "if '--name=/prod/db' not in argv: sys.exit(254)\n"
        "print(json.dumps({'Parameter': {'Name': '/prod/db', 'Type': 'SecureString', 'Value': json.dumps(VALUES)}}))\n",
    )

    def store(credential: str) -> SecretStore:
        given = json.dumps({"access_key_id": "AKIA", "secret_access_key": credential})
        options = {"region": "eu-west-1", "service": "ssm"}
        return AwsSecretsManager(StoreConfig(name="ssm", kind="aws", options=options, credential=given), search=search)

    yield World(store, "/prod/db", seen=seen, stop=lambda: shutil.rmtree(search))


def infisical(tmp: Path) -> Iterator[World]:
    search, seen = program(
        tmp,
        "infisical",
        f"if os.environ.get('INFISICAL_TOKEN') != {TOKEN!r}: sys.exit(1)\n"
        "assert argv[:2] == ['secrets', 'get'] and '--plain' in argv and '--env=prod' in argv, argv\n"
        "if '--path=/prod/db' not in argv: sys.exit(1)\n"
        "print(VALUES.get(argv[2], ''))\n",
    )
    options = {"project": "p1", "environment": "prod"}
    store = lambda c: Infisical(StoreConfig(name="inf", kind="infisical", options=options, credential=c), search=search)  # noqa: E731
    yield World(store, "prod/db", seen=seen, stop=lambda: shutil.rmtree(search), single=True)


def sops(tmp: Path) -> Iterator[World]:
    """A stand-in for the program where it is not installed: it opens what age sealed, as sops does with an age recipient."""
    identity = pyrage.x25519.Identity.generate()
    root = tmp / "source"
    root.mkdir()
    (root / "secrets.enc.json").write_bytes(pyrage.encrypt(json.dumps(VALUES).encode(), [identity.to_public()]))
    site = str(Path(pyrage.__file__).parents[1])
    search, seen = program(
        tmp,
        "sops",
        f"sys.path.insert(0, {site!r})\nimport pyrage\n"
        "assert argv[:3] == ['--decrypt', '--output-type', 'json'] and os.path.isabs(argv[3]) and len(argv) == 4, argv\n"
        "key = pyrage.x25519.Identity.from_str(os.environ['SOPS_AGE_KEY'])\n"
        "sys.stdout.write(pyrage.decrypt(open(argv[3], 'rb').read(), [key]).decode())\n",
    )
    store = lambda c: Sops(StoreConfig(name="files", kind="sops", credential=c), search=search)  # noqa: E731
    yield World(store, "secrets.enc.json", credential=str(identity), root=root, seen=seen, stop=lambda: shutil.rmtree(search))


def age(tmp: Path) -> Iterator[World]:
    """Files that the library sealed; no program is run."""
    identity = pyrage.x25519.Identity.generate()
    root = tmp / "source"
    root.mkdir()
    file = root / "deploy" / "secrets.age"
    file.parent.mkdir()
    file.write_bytes(pyrage.encrypt(json.dumps(VALUES).encode(), [identity.to_public()]))
    store = lambda c: Age(StoreConfig(name="files", kind="age", credential=c))  # noqa: E731
    yield World(store, "deploy/secrets.age", credential=str(identity), root=root, stop=lambda: file.write_bytes(b"damaged"))


WORLDS: dict[str, Callable[[Path], Iterator[World]]] = {
    "vault": hashicorp, "vault, first version": hashicorp_v1, "doppler": doppler, "gcp": google, "onepassword": onepassword, "aws": aws,
    "aws parameters": parameters, "infisical": infisical, "sops": sops, "age": age,
}  # fmt: skip


@pytest.fixture(params=sorted(WORLDS))
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    with contextlib.contextmanager(WORLDS[request.param])(tmp_path) as world:
        yield world


@pytest.mark.parametrize("key", VALUES)
def test_values_arrive_as_they_are(world: World, key: str) -> None:
    """A value with many lines, quotes, other alphabets or signs of shells and addresses arrives unchanged."""
    wanted = VALUES[key]
    found = world.read(key)
    assert found == wanted and not world.store(world.credential).problems()


def test_a_secret_that_is_not_there_is_an_error(world: World) -> None:
    """A missing path and a missing field are errors, never an empty value."""
    for path, key in [("gone/db" if world.path != "app-db" else "gone", "plain"), (world.path, "no-such-field")]:
        with pytest.raises((ExternalSecretMissing, SecretStoreUnavailable)):
            world.read(key, path=path)


def test_a_wrong_credential_is_an_error_that_does_not_repeat_it(world: World) -> None:
    """A refused credential is told without the credential."""
    wrong = str(pyrage.x25519.Identity.generate()) if world.credential.startswith("AGE") else "canary-wrong-credential"
    with pytest.raises(SecretStoreUnavailable) as caught:
        world.read("plain", credential=wrong)
    assert wrong not in str(caught.value) and "canary" not in str(caught.value)


def test_a_store_that_is_away_is_an_error(world: World) -> None:
    """A store that does not answer, a program that is gone, or a damaged file is told as such."""
    world.stop()
    with pytest.raises(SecretStoreUnavailable):
        world.read("plain")


@pytest.mark.parametrize("path", ["../../etc/passwd", "-x", "--upload=/etc/passwd", "a/../b", "$(touch x)", "a\nb", "a;b", "a\0b"])
def test_a_hostile_path_reaches_nobody(world: World, path: str) -> None:
    """A path of a repository that leaves its place, looks like an option or holds signs of a shell is refused or simply not found."""
    with pytest.raises((SecretStoreInvalid, ExternalSecretMissing, SecretStoreUnavailable)):
        world.read("plain", path=path)
    shown = str(world.seen)
    assert not any(f'"{word}"' in shown for word in ("-x", "--upload=/etc/passwd")) and "/../" not in shown


def test_credentials_and_values_are_in_no_argument_and_no_address(world: World) -> None:
    """What the other side sees in argument lists and addresses holds neither the credential nor a value."""
    world.read("plain")
    shown = str(world.seen)
    assert world.credential not in shown and VALUES["plain"] not in shown


# --- what only some have ----------------------------------------------------------------------------------------


@pytest.fixture
def vault(tmp_path: Path) -> Iterator[World]:
    with contextlib.contextmanager(hashicorp)(tmp_path) as world:
        yield world


def test_vault_logs_in_by_approle_and_reads_versions(vault: World) -> None:
    """With a role the credential is a secret id; a version goes along; a version that is not there is missing."""
    config = vault.store("sid").config.model_copy()  # type: ignore[attr-defined]
    store = HashiCorpVault(config.model_copy(update={"options": {**config.options, "role-id": "role"}}))
    assert store.read(Reference(path="app/db", key="plain", version="3")) == VALUES["plain"]
    with pytest.raises(ExternalSecretMissing):
        store.read(Reference(path="app/db", key="plain", version="9"))
    with pytest.raises(SecretStoreInvalid):
        store.read(Reference(path="app/db", key="plain", version="1&x=2"))
    bad = HashiCorpVault(config.model_copy(update={"options": {**config.options, "role-id": "other"}}))
    with pytest.raises(SecretStoreUnavailable, match="Nothing was changed"):
        bad.read(Reference(path="app/db", key="plain"))


def test_a_private_address_needs_the_operators_word(vault: World) -> None:
    """Without `private` a store on loopback is not called at all."""
    config = vault.store(TOKEN).config  # type: ignore[attr-defined]
    store = HashiCorpVault(config.model_copy(update={"options": {"mount": "kv"}}))
    with pytest.raises(SecretStoreUnavailable):
        store.read(Reference(path="app/db", key="plain"))
    assert vault.seen == []


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (302, "http://127.0.0.1:1/"),
        (500, {}),
        (200, b"no json"),
        (200, []),
        (200, {"data": None}),
        (200, {"data": {"data": None}}),
        (200, b"x" * (2 << 20)),
    ],
)
def test_strange_answers_are_errors(status: int, body: Any) -> None:
    """A redirect, a fault, an answer of another shape or of two megabytes is an error with one sentence."""
    server = Server(lambda *_: (status, body))
    try:
        store = HashiCorpVault(StoreConfig(name="c", kind="vault", address=server.url, options={"private": "true"}, credential=TOKEN))
        with pytest.raises((SecretStoreUnavailable, ExternalSecretMissing)):
            store.read(Reference(path="a", key="k"))
        assert len(server.seen) == 1
    finally:
        server.end()


def test_google_takes_a_service_account_and_checks_what_arrives() -> None:
    """The account's key signs a statement that is exchanged for a token; a value that was damaged on its way is refused."""
    from cryptography.hazmat.primitives.asymmetric import padding, rsa
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    private = rsa.generate_private_key(65537, 2048)
    damaged = [False]

    def answer(_m: str, path: str, _q: dict[str, list[str]], headers: dict[str, str], body: bytes) -> tuple[int, Any]:
        if path == "/token":
            head, claims, signature = parse_qs(body.decode())["assertion"][0].split(".")
            raw = base64.urlsafe_b64decode(signature + "==")
            private.public_key().verify(raw, f"{head}.{claims}".encode(), padding.PKCS1v15(), SHA256())
            assert json.loads(base64.urlsafe_b64decode(claims + "=="))["iss"] == "sa@proj"
            return 200, {"access_token": "short-lived", "expires_in": 3600}
        assert headers["authorization"] == "Bearer short-lived"
        data = base64.b64encode(b"value").decode()
        return 200, {"payload": {"data": data, "dataCrc32c": str(crc32c(b"value") + damaged[0])}}

    server = Server(answer)
    try:
        pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        account = json.dumps({"client_email": "sa@proj", "private_key": pem, "private_key_id": "k", "token_uri": f"{server.url}/token"})
        options = {"project": "proj", "private": "true"}
        config = StoreConfig(name="g", kind="gcp", address=server.url, options=options, credential=account)
        assert GcpSecretManager(config).read(Reference(path="name")) == "value"
        damaged[0] = True
        with pytest.raises(SecretStoreUnavailable, match="Nothing was changed") as caught:
            GcpSecretManager(config).read(Reference(path="name"))
        assert "checksum" in caught.value.why
    finally:
        server.end()


def test_the_checksum_is_castagnolis() -> None:
    """CRC-32C of the digits 1 to 9 is the published check value."""
    assert crc32c(b"123456789") == 0xE3069283


def test_a_link_out_of_the_source_is_refused(tmp_path: Path) -> None:
    """A symbolic link in the repository that leads elsewhere is not followed out of it."""
    root = tmp_path / "source"
    root.mkdir()
    outside = tmp_path / "outside.age"
    identity = pyrage.x25519.Identity.generate()
    outside.write_bytes(pyrage.encrypt(b"secret", [identity.to_public()]))
    (root / "link.age").symlink_to(outside)
    store = Age(StoreConfig(name="f", kind="age", credential=str(identity)))
    with pytest.raises(SecretStoreInvalid):
        store.read(Reference(path="link.age", root=root))


def test_an_age_file_may_be_one_value_or_lines(tmp_path: Path) -> None:
    """Without a key the whole file is the value; with a key lines of KEY=VALUE are read; armoured files open too."""
    identity = pyrage.x25519.Identity.generate()
    (tmp_path / "a.age").write_bytes(pyrage.encrypt(b"A=1\nB='two words'\n", [identity.to_public()], armored=True))
    store = Age(StoreConfig(name="f", kind="age", credential=f"# created today\n{identity}\n"))
    assert store.read(Reference(path="a.age", root=tmp_path)) == "A=1\nB='two words'\n"
    assert store.read(Reference(path="a.age", key="B", root=tmp_path)) == "two words"


def test_a_secret_of_twenty_fields_is_asked_for_once(vault: World) -> None:
    """A deploy that takes many fields of one secret logs in once and asks once."""
    config = vault.store("sid").config.model_copy()  # type: ignore[attr-defined]
    store = HashiCorpVault(config.model_copy(update={"options": {**config.options, "role-id": "role"}}))
    for key, value in VALUES.items():
        assert store.read(Reference(path="app/db", key=key)) == value
    assert len(vault.seen) == 2, vault.seen


class Amazon(Server):
    """What the real program speaks to: JSON over POST, the operation in `X-Amz-Target`, a signed request."""

    def __init__(self) -> None:
        self.targets: list[str] = []

        def answer(_m: str, _p: str, _q: dict[str, list[str]], headers: dict[str, str], body: bytes) -> tuple[int, Any]:
            asked, target = json.loads(body), headers["x-amz-target"]
            self.targets.append(target)
            assert headers["authorization"].startswith("AWS4-HMAC-SHA256 Credential=AKIA/") and TOKEN not in str(headers)
            if target == "secretsmanager.GetSecretValue" and asked["SecretId"] == "prod/db":
                return 200, {"Name": "prod/db", "VersionId": "v", "SecretString": json.dumps(VALUES)}
            if target == "AmazonSSM.GetParameter" and asked == {"Name": "/prod/db", "WithDecryption": True}:
                return 200, {"Parameter": {"Name": "/prod/db", "Type": "SecureString", "Value": VALUES["plain"], "Version": 1}}
            return 400, {"__type": "ResourceNotFoundException", "Message": "not there"}

        super().__init__(answer)


def real_aws() -> str:
    """Where AWS's own program is, seen from a driver; skips when it is not installed."""
    found = shutil.which("aws")
    shim = subprocess.run(["pyenv", "which", "aws"], capture_output=True, text=True, check=False) if shutil.which("pyenv") else None
    for path in (shim.stdout.strip() if shim is not None else "", found or ""):
        if path and subprocess.run([path, "--version"], env={"PATH": os.defpath}, capture_output=True, check=False).returncode == 0:
            return path
    pytest.skip("the program `aws` is not installed")


def test_the_real_program_of_aws_reads_both_services() -> None:
    """AWS's own program, called as the driver calls it, asks what the services expect, and what they answer is the value."""
    folder = str(Path(real_aws()).parent)
    server = Amazon()
    try:
        given = json.dumps({"access_key_id": "AKIA", "secret_access_key": TOKEN})

        def store(**options: str) -> AwsSecretsManager:
            config = StoreConfig(name="aws", kind="aws", address=server.url, options={"region": "eu-west-1", **options}, credential=given)
            return AwsSecretsManager(config, search=f"{folder}:{os.defpath}")

        assert store().read(Reference(path="prod/db", key="plain")) == VALUES["plain"]
        assert store(service="ssm").read(Reference(path="/prod/db")) == VALUES["plain"]
        with pytest.raises(SecretStoreUnavailable):
            store().read(Reference(path="gone"))
        assert server.targets[:2] == ["secretsmanager.GetSecretValue", "AmazonSSM.GetParameter"]
    finally:
        server.end()


@pytest.mark.parametrize("kind", ["vault", "gcp", "doppler"])
@pytest.mark.parametrize(
    ("address", "private", "problem"),
    [
        ("https://store.example", "false", ""),
        ("http://10.0.0.7:8200", "true", ""),
        ("http://store.example", "false", "without TLS"),
        ("ftp://store.example", "false", "none of the web"),
        ("store.example", "false", "none of the web"),
        ("https://[::1", "false", "none of the web"),
        ("https://me:canary@store.example", "false", "more than a place"),
        ("https://store.example?token=canary", "false", "more than a place"),
    ],
)
def test_addresses_are_looked_at_when_a_store_is_added(kind: Kind, address: str, private: str, problem: str) -> None:
    """One that would carry the credential in the clear, or holds one itself, is said to be wrong before anything is sent there."""
    config = StoreConfig(name="s", kind=kind, address=address, options={"project": "p", "private": private}, credential="c")
    found = " ".join(DRIVERS[kind](config).problems())
    assert problem in found if problem else not found
    assert "canary" not in found
