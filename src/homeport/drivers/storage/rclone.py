"""A target behind rclone: object stores, SFTP, WebDAV, and everything else it speaks."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from homeport.drivers.files import write_atomic
from homeport.drivers.storage.base import ObjectMissing, Storage, StorageFailed, check_key

TIMEOUT = 6 * 3600.0
"""Seconds one transfer may take; rclone itself gives up earlier on a connection that says nothing."""
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_NOT_FOUND = {3, 4}
"""Exit codes of rclone: directory not found, file not found (rclone.org/docs, exit code)."""


class RcloneStorage:
    """`program` finds rclone when it is first needed. The configuration is a file that its owner alone reads; nothing of it is in argv."""

    kind: ClassVar[str] = "rclone"

    def __init__(
        self, name: str, address: str, config: Path, program: Callable[[], Path], network: Mapping[str, str] | None = None
    ) -> None:
        self.name, self.address, self.config, self._program, self._network = name, address, config, program, dict(network or {})

    def put(self, key: str, source: Path) -> None:
        self._run("copyto", "--ignore-times", str(source), self._at(key))

    def fetch(self, key: str, target: Path) -> None:
        self._run("copyto", "--ignore-times", self._at(key), str(target))
        if not target.is_file():
            raise ObjectMissing(target=self.name, why=f"{key} is not there.")

    def list(self, prefix: str = "") -> Mapping[str, int]:
        try:
            out = self._run(
                "lsjson", "--recursive", "--files-only", "--no-mimetype", "--no-modtime", self._at(prefix) if prefix else self.address
            )
        except ObjectMissing:
            return {}
        start = f"{prefix}/" if prefix else ""
        return {start + str(entry["Path"]): int(entry["Size"]) for entry in json.loads(out or "[]")}

    def remove(self, key: str) -> None:
        try:
            self._run("deletefile", self._at(key))
        except ObjectMissing:
            return

    def _at(self, key: str) -> str:
        place = self.address if self.address.endswith((":", "/")) else f"{self.address}/"
        return place + check_key(key)

    def _run(self, verb: str, *arguments: str) -> str:
        flags = [word for word in arguments if word.startswith("--")]
        words = [word for word in arguments if not word.startswith("--")]
        argv = [str(self._program()), verb, "--config", str(self.config), "--retries", "3", "--contimeout", "20s",
                "--timeout", "5m", "--log-level", "ERROR", *flags, "--", *words]  # fmt: skip
        try:
            done = subprocess.run(
                argv,
                env={"PATH": PATH, "HOME": str(self.config.parent), **self._network},
                cwd=self.config.parent,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=TIMEOUT,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise StorageFailed(target=self.name, why=f"rclone could not be run: {type(error).__name__}.") from error
        if done.returncode in _NOT_FOUND:
            raise ObjectMissing(target=self.name, why="there is no such object.")
        if done.returncode != 0:
            last = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:] or [f"rclone ended with {done.returncode}"]
            raise StorageFailed(target=self.name, why=f"{last[0][:400]}.")
        return done.stdout.decode("utf-8", "replace")


def write_config(file: Path, text: str) -> Path:
    """The configuration file of one target, readable by its owner alone."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_atomic(file, text.encode(), 0o600)
    return file


if TYPE_CHECKING:
    _: type[Storage] = RcloneStorage
