"""The small bench service as a project of its own: any version, any blueprint, any defect."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

from homes import APPS

NODE, PYTHON = "node", "python"


class BenchApp:
    """A copy of `tests/apps/node-bench` (or `python-bench` where there is no Node) with a `homeport.yaml`."""

    def __init__(self, folder: Path, name: str = "bench", *, language: str = "", watch: int = 0) -> None:
        """`watch`: seconds a new release is watched; 0 keeps the tests of other things free of it."""
        self.language = language or (NODE if shutil.which("node") else PYTHON)
        self.folder, self.name = folder, name
        shutil.copytree(APPS / f"{self.language}-bench", folder, ignore=shutil.ignore_patterns("render.yaml", "Procfile", "__pycache__"))
        self.source = folder / ("server.js" if self.language == NODE else "server.py")
        if not self.source.exists():
            self.source = next(folder.glob("*.py"))
        self.original = self.source.read_text()
        self.command = f"node {self.source.name}" if self.language == NODE else f"python {self.source.name}"
        self.web: dict[str, Any] = {"kind": "web", "command": self.command, "health": {"path": "/health", "deadline": 10}}
        self.services: dict[str, dict[str, Any]] = {"web": self.web}
        self.more: dict[str, Any] = {"watch": {"window": watch}}
        self.write()

    def write(self) -> None:
        """Bring `homeport.yaml` to what the attributes say."""
        document = {"name": self.name, "services": self.services, **self.more}
        (self.folder / "homeport.yaml").write_text(json.dumps(document, indent=1, ensure_ascii=False))

    def version(self, text: str, *, defect: str = "") -> None:
        """Change the line that says the version; `defect` adds statements to the start of the program."""
        changed = re.sub(r"""VERSION = (['"]).*?\1""", f"VERSION = {text!r}", self.original, count=1)
        if self.language == NODE and defect:
            changed += f"\n{defect}\n"
        elif defect:
            head, marker, rest = changed.partition('if __name__ == "__main__":')
            changed = f"{head}{defect}\n{marker}{rest}"
        self.source.write_text(changed)

    def ends_after(self, seconds: float, code: int = 7) -> str:
        """A defect: the program ends by itself."""
        if self.language == NODE:
            return f"setTimeout(() => {{ console.error('out of luck'); process.exit({code}); }}, {seconds * 1000});"
        return f"threading.Timer({seconds}, lambda: (print('out of luck', flush=True), os._exit({code}))).start()"

    def unwell(self) -> None:
        """A defect: the health check answers 500."""
        text = self.source.read_text()
        self.source.write_text(
            text.replace("return json(res, 200, { ok: true, version: VERSION });", "return json(res, 500, { ok: false });").replace(
                'self.reply(200, {"ok": True', 'self.reply(500, {"ok": False'
            )
        )

    def hungry(self, seconds: float) -> str:
        """A defect: after a while the program takes memory until it gets no more."""
        if self.language == NODE:
            return (
                f"setTimeout(() => {{ const held = []; setInterval(() => held.push(Buffer.alloc(16 << 20, 1)), 10); }}, {seconds * 1000});"
            )
        return f"threading.Timer({seconds}, lambda: [bytearray(os.urandom(1 << 20) * 16) for _ in iter(int, 1)]).start()"

    @property
    def host(self) -> str:
        return f"web.{self.name}.localhost"


def variables_of(pid: int) -> dict[str, str]:
    """The environment that a running process was started with."""
    pairs = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
    return dict(pair.split("=", 1) for pair in pairs if "=" in pair)


AS_ROOT = os.geteuid() == 0
