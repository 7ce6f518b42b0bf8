"""Stores that are read through their own program: sops and age files, 1Password, AWS Secrets Manager, Infisical.

Programs run without a shell, with a fixed set of variables; credentials go by environment or standard input, never by argument, and
what a program writes to standard error is dropped: it may repeat a secret.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

from homeport.blueprints.compose.dotenv import DotenvInvalid, parse_dotenv
from homeport.drivers.vault.stores.base import (
    ExternalSecretMissing,
    Reference,
    StoreConfig,
    field_of,
    invalid,
    missing,
    text_of,
    unavailable,
)

SECONDS = 30.0
MAX_OUTPUT = 1 << 20
MAX_FILE = 1 << 20
_PLAIN = re.compile(r"^[A-Za-z0-9_./+=@ :#-]{1,500}$")
_WORD = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,200}$")


class _Program:
    """Runs one program and reads what it says."""

    program = ""

    def __init__(self, config: StoreConfig, *, search: str | None = None) -> None:
        """`search` is where programs are looked for, in the form of PATH; None is this process's own."""
        self.config, self.search = config, search

    def problems(self) -> list[str]:
        found = [] if self._where() else [f"the program `{self.program}` is not installed"]
        return found if self.config.credential else [*found, "it needs a credential"]

    def _where(self) -> str | None:
        return shutil.which(self.program, path=self.search)

    def _run(self, arguments: list[str], env: dict[str, str], given: str = "") -> str:
        program = self._where()
        if program is None:
            raise unavailable(self.config, f"the program `{self.program}` is not installed")
        search = self.search if self.search is not None else f"{Path(program).parent}:{os.defpath}"
        env = {"PATH": search, "HOME": "/nonexistent", "LANG": "C.UTF-8", **env}
        process = subprocess.Popen(
            [program, *arguments],
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )
        try:
            output, _ = process.communicate(given.encode(), timeout=SECONDS)
        except subprocess.TimeoutExpired as error:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            raise unavailable(self.config, f"`{self.program}` did not end within {SECONDS:.0f} s") from error
        if process.returncode != 0:
            raise unavailable(self.config, f"`{self.program}` ended with {process.returncode}")
        if len(output) > MAX_OUTPUT:
            raise unavailable(self.config, f"`{self.program}` said more than {MAX_OUTPUT >> 20} MiB")
        try:
            return output.decode()
        except UnicodeDecodeError as error:
            raise unavailable(self.config, "the value is not text") from error

    def _json(self, text: str) -> object:
        try:
            return json.loads(text)
        except ValueError as error:
            raise unavailable(self.config, f"what `{self.program}` said is not JSON") from error

    def _path(self, reference: Reference) -> str:
        if not _PLAIN.match(reference.path) or reference.path.startswith("-") or ".." in reference.path.split("/"):
            raise invalid(self.config.name, "the path in the reference is not one")
        return reference.path

    def _file(self, reference: Reference) -> str:
        """An encrypted file of the source, wherever links lead. Raises SecretStoreInvalid, ExternalSecretMissing."""
        if reference.root is None:
            raise invalid(self.config.name, "it reads files of the source, and there is no source here")
        root = reference.root.resolve()
        file = (root / self._path(reference)).resolve()
        if not file.is_relative_to(root):
            raise invalid(self.config.name, "the path in the reference leaves the source")
        if not file.is_file() or file.stat().st_size > MAX_FILE:
            raise missing(self.config, reference, "the file is not there or larger than 1 MiB")
        return str(file)


class Sops(_Program):
    """A sops file of the source, opened with an age key."""

    program = "sops"

    def read(self, reference: Reference) -> str:
        file = self._file(reference)
        text = self._run(["--decrypt", "--output-type", "json", file], {"SOPS_AGE_KEY": self.config.credential.strip()})
        return field_of(self.config, reference, self._json(text))


class Age(_Program):
    """An age file of the source, opened by the library: one value, or KEY=VALUE lines or JSON where a key is named."""

    program = "age"

    def problems(self) -> list[str]:
        return [] if self.config.credential else ["it needs an identity (AGE-SECRET-KEY-…)"]

    def read(self, reference: Reference) -> str:
        import pyrage

        sealed = Path(self._file(reference)).read_bytes()
        try:
            identities = [pyrage.x25519.Identity.from_str(line) for line in self._identities()]
        except pyrage.IdentityError:
            raise invalid(self.config.name, "its credential is not an age identity") from None
        try:
            text = pyrage.decrypt(sealed, identities).decode()
        except UnicodeDecodeError as error:
            raise unavailable(self.config, "the value is not text") from error
        except pyrage.DecryptError:
            raise unavailable(self.config, "the file does not open with its identity, or is damaged") from None
        if not reference.key:
            return text_of(self.config, reference, text)
        if text.lstrip().startswith("{"):
            return field_of(self.config, reference, self._json(text))
        try:
            return field_of(self.config, reference, parse_dotenv(text))
        except DotenvInvalid as error:
            raise missing(self.config, reference, "the file is neither JSON nor KEY=VALUE lines") from error

    def _identities(self) -> list[str]:
        lines = (line.strip() for line in self.config.credential.splitlines())
        return [line for line in lines if line and not line.startswith("#")]


class OnePassword(_Program):
    """`op read op://<vault>/<item>/<field>` with a service account's token."""

    program = "op"

    def read(self, reference: Reference) -> str:
        path = "/".join(part for part in (self._path(reference).strip("/"), reference.key) if part)
        if not _PLAIN.match(path):
            raise invalid(self.config.name, "the key in the reference is not one")
        text = self._run(["read", "--no-newline", f"op://{path}"], {"OP_SERVICE_ACCOUNT_TOKEN": self.config.credential.strip()})
        return text_of(self.config, reference, text)


class AwsSecretsManager(_Program):
    """`aws secretsmanager get-secret-value`, or `aws ssm get-parameter` with the option `service: ssm`.

    Its credential is JSON: `access_key_id`, `secret_access_key`, perhaps `session_token`. An address takes the place of AWS's own.
    """

    program = "aws"

    def read(self, reference: Reference) -> str:
        region, address = self.config.options.get("region", ""), self.config.address
        if not _WORD.match(region) or (reference.version and not _WORD.match(reference.version)):
            raise invalid(self.config.name, "the region, or the version in the reference, is not one")
        if address and not re.match(r"^https?://[A-Za-z0-9.:\[\]-]+/?$", address):
            raise invalid(self.config.name, "its address is not one")
        arguments = [*self._question(reference), "--output=json", f"--region={region}"]
        found = self._json(self._run([*arguments, *([f"--endpoint-url={address}"] if address else [])], self._env()))
        value = self._value(found) if isinstance(found, dict) else None
        if not isinstance(value, str):
            raise missing(self.config, reference, "it is not text")
        if not reference.key:
            return text_of(self.config, reference, value)
        try:
            return field_of(self.config, reference, json.loads(value))
        except ValueError as error:
            raise missing(self.config, reference, "it is not JSON, so it has no fields") from error

    def _question(self, reference: Reference) -> list[str]:
        path, version = self._path(reference), reference.version
        if self.config.options.get("service") == "ssm":
            return ["ssm", "get-parameter", "--with-decryption", f"--name={path}{f':{version}' if version else ''}"]
        return ["secretsmanager", "get-secret-value", f"--secret-id={path}", *([f"--version-id={version}"] if version else [])]

    def _value(self, found: dict[str, object]) -> object:
        parameter = found.get("Parameter")
        return parameter.get("Value") if isinstance(parameter, dict) else found.get("SecretString")

    def _env(self) -> dict[str, str]:
        try:
            given = json.loads(self.config.credential)
            env = {f"AWS_{name.upper()}": str(given[name]) for name in ("access_key_id", "secret_access_key")}
        except (ValueError, KeyError, TypeError) as error:
            raise invalid(self.config.name, "its credential is not JSON with access_key_id and secret_access_key") from error
        env |= {"AWS_EC2_METADATA_DISABLED": "true", "AWS_PAGER": "", "AWS_MAX_ATTEMPTS": "2"}
        return {**env, **({"AWS_SESSION_TOKEN": str(given["session_token"])} if given.get("session_token") else {})}


class Infisical(_Program):
    """`infisical secrets get <key> --path=<path>` with a machine identity's token."""

    program = "infisical"

    def read(self, reference: Reference) -> str:
        options = {"projectId": self.config.options.get("project", ""), "env": self.config.options.get("environment", "prod")}
        words = [reference.key, *(value for value in options.values() if value)]
        if not all(_WORD.match(word) for word in words):
            raise invalid(self.config.name, "the key in the reference, the project or the environment is not one")
        arguments = ["secrets", "get", reference.key, "--plain", "--silent", f"--path=/{self._path(reference).strip('/')}"]
        arguments += [f"--{name}={value}" for name, value in options.items() if value]
        arguments += [f"--domain={self.config.address}"] if self.config.address.startswith("https://") else []
        text = self._run(arguments, {"INFISICAL_TOKEN": self.config.credential.strip()}).removesuffix("\n")
        if not text:
            raise missing(self.config, reference, "it is not there")
        return text_of(self.config, reference, text)


__all__ = ["Age", "AwsSecretsManager", "ExternalSecretMissing", "Infisical", "OnePassword", "Sops"]
