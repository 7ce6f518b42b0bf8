"""Git, called with argv lists only and with everything switched off that a repository's own configuration could run."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from homeport.drivers.sources.errors import SourceRefused, SourceUnavailable

SAFE = (
    "-c", "core.fsmonitor=false", "-c", "safe.directory=*", "-c", "core.hooksPath=/dev/null", "-c", "log.showSignature=false",
    "-c", "protocol.allow=never", "-c", "protocol.https.allow=always",
    "-c", "protocol.ssh.allow=always", "-c", "protocol.file.allow=always",
    "-c", "protocol.ext.allow=never", "-c", "submodule.recurse=false", "-c", "core.quotePath=false",
)  # fmt: skip
"""Options before every subcommand. `ext::` and the like would run programs that the address names."""

TIMEOUT = 300.0
"""Seconds for anything that talks to another machine."""

_REF = re.compile(r"^(?!-)(?!.*(?:\.\.|@\{|//|\.lock(?:/|$)))[A-Za-z0-9_][A-Za-z0-9._/+@#=-]{0,250}$")
_SCP = re.compile(r"^(?:[A-Za-z0-9_.-]+@)?[A-Za-z0-9.-]+:(?!/?/)[^\s:][^\s]*$")


def check_reference(reference: str) -> str:
    """A branch, tag or commit name as `git check-ref-format` allows it, and a little stricter. Raises SourceRefused."""
    if not _REF.match(reference) or reference.endswith(("/", ".")):
        raise SourceRefused(
            source=repr(reference[:80]), why="it is not the name of a branch, tag or commit", fix="Use the name as `git branch` shows it."
        )
    return reference


def check_address(address: str) -> str:
    """An address git may be given: https, ssh, file, `user@host:path`, or a folder. Raises SourceRefused."""
    scheme = address.partition("://")[0].lower() if "://" in address else ""
    usable = (
        bool(address)
        and not address.startswith("-")
        and "::" not in address.split("/", maxsplit=1)[0]
        and not re.search(r"[\x00-\x20\x7f]", address)
    )
    if scheme:
        host = urlsplit(address).hostname or ""
        usable = usable and scheme in {"https", "ssh", "file"} and not host.startswith("-") and (bool(host) or scheme == "file")
    else:
        usable = usable and (address.startswith(("/", "./", "../")) or bool(_SCP.match(address)))
    if not usable:
        raise SourceRefused(
            source=repr(without_credentials(address)[:120]),
            why="it is not an address that Homeport fetches from",
            fix="Use https://…, ssh://…, git@host:owner/name, file:///… or a folder.",
        )
    return address


def without_credentials(address: str) -> str:
    """The address without user name and password (`git@` of ssh stays: it is no secret)."""
    if "://" not in address:
        return address
    try:
        parts = urlsplit(address)
        host = parts.hostname or ""
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return address.partition("://")[0] + "://"
    user = f"{parts.username}@" if parts.scheme == "ssh" and parts.username and not parts.password else ""
    return urlunsplit((parts.scheme, f"{user}{host}{port}", parts.path, "", ""))


def environment(home: Path, network: Mapping[str, str]) -> dict[str, str]:
    """What git sees: no configuration of the host's, no prompt, only the variables that lead to the network."""
    return {
        "PATH": os.defpath + ":/usr/local/bin",
        "LANG": "C.UTF-8",
        **network,
        "HOME": str(home),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_LFS_SKIP_SMUDGE": "1",
    }


class Git:
    """Runs git for one purpose: a fixed environment and, for folders that are no repository, a stand-in for one."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self.env = dict(env)

    def start(self, folder: Path, *arguments: str, extra: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start git in a folder. Raises SourceUnavailable when there is no git."""
        try:
            return subprocess.Popen(
                ["git", *SAFE, "-C", str(folder), *arguments],
                env={**self.env, **(extra or {})},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except FileNotFoundError as error:
            raise SourceUnavailable(source=str(folder), why="the program git is not installed", fix="Install git.") from error

    def run(
        self, folder: Path, *arguments: str, extra: Mapping[str, str] | None = None, timeout: float = TIMEOUT
    ) -> tuple[int, bytes, str]:
        """Run git to its end: exit code, output, and what it said about errors."""
        return self.finish(self.start(folder, *arguments, extra=extra), timeout)

    def finish(self, process: subprocess.Popen[bytes], timeout: float = TIMEOUT) -> tuple[int, bytes, str]:
        """Wait for a started git; it is killed when it takes longer than `timeout` seconds."""
        with process:
            try:
                output, errors = process.communicate(timeout=timeout)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
                return 124, b"", f"git took longer than {timeout:.0f} s"
        return process.returncode, output, errors.decode(errors="replace").strip()


@contextmanager
def stand_in(folder: Path) -> Iterator[dict[str, str]]:
    """Variables that make git treat a plain folder as a work tree, so that its .gitignore files are read by git itself."""
    with tempfile.TemporaryDirectory(prefix="homeport-git-") as made:
        root = Path(made)
        (root / "objects").mkdir()
        (root / "refs").mkdir()
        (root / "HEAD").write_text("ref: refs/heads/main\n")
        yield {"GIT_DIR": made, "GIT_WORK_TREE": str(folder)}
