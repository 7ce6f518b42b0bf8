"""Stores with a web API: HashiCorp Vault (KV versions 1 and 2), Google Cloud Secret Manager, and Doppler.

A driver lives as long as one deploy: it logs in once, and asks once for a secret whose fields are several variables.
"""

from __future__ import annotations

import abc
import base64
import binascii
import http.client
import json
import re
import time
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from homeport.drivers.outgoing import AddressRefusedError, Answer, Outgoing
from homeport.drivers.vault.stores.base import Reference, StoreConfig, field_of, invalid, missing, text_of, unavailable

_GCP = "https://secretmanager.googleapis.com"
_DOPPLER = "https://api.doppler.com"
_GCP_NAME = re.compile(r"^[A-Za-z0-9_-]{1,255}$")
_GCP_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_VERSION = re.compile(r"^[0-9a-zA-Z_-]{0,64}$")


class _Web(abc.ABC):
    """What they have in common."""

    def __init__(self, config: StoreConfig, outgoing: Outgoing | None = None) -> None:
        self.config = config
        self.outgoing = outgoing or Outgoing(private=config.options.get("private") == "true")
        self._answers: dict[str, dict[str, Any]] = {}

    @abc.abstractmethod
    def _headers(self) -> dict[str, str]:
        """What shows the store who asks."""

    def _address_problems(self) -> list[str]:
        """What is wrong with the address that was given, if one was."""
        if not self.config.address:
            return []
        try:
            url = urlsplit(self.config.address)
        except ValueError:
            url = urlsplit("")
        if url.scheme not in ("http", "https") or not url.hostname:
            return ["its address is none of the web, such as https://vault.example.com:8200"]
        if url.username or url.password or url.query:
            return ["its address holds more than a place; the credential comes on standard input, and addresses are listed"]
        open_to_all = url.scheme == "http" and self.config.options.get("private") != "true"
        return ["its address is without TLS, so the credential could be read on the way; use https"] if open_to_all else []

    def _once(self, url: str, reference: Reference) -> dict[str, Any]:
        """The answer of an address, asked for once."""
        if url not in self._answers:
            answer = self._ask("GET", url, self._headers())
            self._judge(answer, reference)
            self._answers[url] = self._json(answer)
        return self._answers[url]

    def _ask(self, method: str, url: str, headers: dict[str, str], body: bytes | None = None) -> Answer:
        try:
            return self.outgoing.request(method, url, headers=headers, body=body)
        except AddressRefusedError as error:
            raise unavailable(self.config, f"its address is refused: {error}") from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise unavailable(self.config, f"it does not answer ({type(error).__name__})") from error

    def _json(self, answer: Answer) -> dict[str, Any]:
        try:
            found = json.loads(answer.body)
        except ValueError as error:
            raise unavailable(self.config, "its answer is not JSON") from error
        if not isinstance(found, dict):
            raise unavailable(self.config, "its answer has another shape than expected")
        return found

    def _judge(self, answer: Answer, reference: Reference) -> None:
        if answer.status == 404:
            raise missing(self.config, reference, "it is not there")
        if answer.status in (401, 403):
            raise unavailable(self.config, f"it refuses the credential ({answer.status})")
        if answer.status != 200:
            raise unavailable(self.config, f"it answers {answer.status}")

    def _version(self, reference: Reference) -> str:
        if not _VERSION.match(reference.version):
            raise invalid(self.config.name, "the version in the reference is not one")
        return reference.version


class HashiCorpVault(_Web):
    """KV version 2: `GET /v1/<mount>/data/<path>`; with the option `kv: "1"` version 1: `GET /v1/<mount>/<path>`.

    The credential is a token, or the secret id of an AppRole (`role-id` among the options, `role-mount` where it is not `approle`).
    """

    _session = ""

    def problems(self) -> list[str]:
        found = self._address_problems() if self.config.address else ["it needs an address"]
        found += [] if self.config.options.get("kv", "2") in ("1", "2") else ["the option `kv` is 1 or 2"]
        return found if self.config.credential else [*found, "it needs a token"]

    def read(self, reference: Reference) -> str:
        segments = reference.path.strip("/").split("/")
        if any(part in ("", ".", "..") for part in segments):
            raise invalid(self.config.name, "the path in the reference is not one")
        mount = quote(self.config.options.get("mount", "secret").strip("/"))
        path = "/".join(quote(part, safe="") for part in segments)
        version, first = self._version(reference), self.config.options.get("kv") == "1"
        if first and version:
            raise invalid(self.config.name, "KV version 1 keeps no versions, and the reference names one")
        url = f"{self._base()}/v1/{mount}/{path}" if first else f"{self._base()}/v1/{mount}/data/{path}"
        found = self._once(url + (f"?version={version}" if version else ""), reference)
        data = found.get("data")
        return field_of(self.config, reference, data if first else data.get("data") if isinstance(data, dict) else None)

    def _headers(self) -> dict[str, str]:
        return {"X-Vault-Token": self._token(), **self._namespace()}

    def _base(self) -> str:
        return self.config.address.rstrip("/")

    def _namespace(self) -> dict[str, str]:
        name = self.config.options.get("namespace", "")
        return {"X-Vault-Namespace": name} if name else {}

    def _token(self) -> str:
        role = self.config.options.get("role-id", "")
        if not role or self._session:
            return self._session or self.config.credential.strip()
        place = quote(self.config.options.get("role-mount", "approle").strip("/"))
        body = json.dumps({"role_id": role, "secret_id": self.config.credential.strip()}).encode()
        headers = {"Content-Type": "application/json", **self._namespace()}
        answer = self._ask("POST", f"{self._base()}/v1/auth/{place}/login", headers, body)
        if answer.status != 200:
            raise unavailable(self.config, f"the AppRole login answers {answer.status}")
        auth = self._json(answer).get("auth")
        if not isinstance(auth, dict) or not isinstance(auth.get("client_token"), str):
            raise unavailable(self.config, "the AppRole login gave no token")
        self._session = str(auth["client_token"])
        return self._session


class GcpSecretManager(_Web):
    """`GET /v1/projects/<project>/secrets/<name>/versions/<version>:access`, with a service account's key or an access token."""

    _session = ""

    def problems(self) -> list[str]:
        found = self._address_problems()
        found += [] if _GCP_NAME.match(self.config.options.get("project", "")) else ["it needs the option `project`"]
        return found if self.config.credential else [*found, "it needs the key of a service account, or an access token"]

    def read(self, reference: Reference) -> str:
        project, version = self.config.options.get("project", ""), self._version(reference) or "latest"
        if not _GCP_NAME.match(reference.path) or not _GCP_NAME.match(project):
            raise invalid(self.config.name, "the project, or the name in the reference, is not one")
        url = f"{(self.config.address or _GCP).rstrip('/')}/v1/projects/{project}/secrets/{reference.path}/versions/{version}:access"
        payload = self._once(url, reference).get("payload")
        raw = self._data(payload if isinstance(payload, dict) else {})
        try:
            text = raw.decode()
        except UnicodeDecodeError as error:
            raise unavailable(self.config, "the value is not text") from error
        if not reference.key:
            return text_of(self.config, reference, text)
        try:
            return field_of(self.config, reference, json.loads(text))
        except ValueError as error:
            raise missing(self.config, reference, "it is not JSON, so it has no fields") from error

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._token()}"}

    def _data(self, payload: dict[str, Any]) -> bytes:
        try:
            raw = base64.b64decode(str(payload["data"]), validate=True)
            wanted = payload.get("dataCrc32c")
            if wanted is not None and int(wanted) != crc32c(raw):
                raise unavailable(self.config, "the value was damaged on its way (checksum)")
        except (KeyError, ValueError, binascii.Error) as error:
            raise unavailable(self.config, "its answer has another shape than expected") from error
        return raw

    def _token(self) -> str:
        credential = self.config.credential.strip()
        if self._session or not credential.startswith("{"):
            return self._session or credential
        try:
            account = json.loads(credential)
            address, assertion = str(account["token_uri"]), _assertion(account)
        except (ValueError, KeyError, TypeError, UnsupportedAlgorithm) as error:
            raise invalid(self.config.name, "its credential is not the key of a service account") from error
        body = urlencode({"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": assertion}).encode()
        answer = self._ask("POST", address, {"Content-Type": "application/x-www-form-urlencoded"}, body)
        token = self._json(answer).get("access_token") if answer.status == 200 else None
        if not isinstance(token, str):
            raise unavailable(self.config, f"the token of the service account was refused ({answer.status})")
        self._session = token
        return token


class Doppler(_Web):
    """`GET /v3/configs/config/secrets/download?format=json`: every secret of a config at once.

    The path of a reference is the config (`prd`), its key the secret; the project is an option. A service token knows both by itself.
    """

    def problems(self) -> list[str]:
        return self._address_problems() + ([] if self.config.credential else ["it needs a service token"])

    def read(self, reference: Reference) -> str:
        project = self.config.options.get("project", "")
        if not _GCP_NAME.match(reference.path) or (project and not _GCP_NAME.match(project)):
            raise invalid(self.config.name, "the project, or the config in the reference, is not one")
        if reference.version:
            raise invalid(self.config.name, "it gives no older versions, and the reference names one")
        query = {"format": "json", **({"project": project, "config": reference.path} if project else {})}
        base = (self.config.address or _DOPPLER).rstrip("/")
        return field_of(self.config, reference, self._once(f"{base}/v3/configs/config/secrets/download?{urlencode(query)}", reference))

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.config.credential.strip()}", "Accept": "application/json"}


def _assertion(account: dict[str, Any]) -> str:
    """A signed statement of who asks (RFC 7523)."""
    key = load_pem_private_key(str(account["private_key"]).encode(), None)
    if not isinstance(key, rsa.RSAPrivateKey):
        raise TypeError("an RSA key is needed")
    issued = int(time.time())
    claims = {"iss": account["client_email"], "scope": _GCP_SCOPE, "aud": account["token_uri"], "iat": issued, "exp": issued + 600}
    header = {"alg": "RS256", "typ": "JWT", "kid": account.get("private_key_id", "")}
    signed = ".".join(_part(json.dumps(part).encode()) for part in (header, claims))
    return f"{signed}.{_part(key.sign(signed.encode(), padding.PKCS1v15(), SHA256()))}"


def _part(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli, RFC 3720 appendix B.4), which Google adds to each value."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF
