"""Which exit code an error has. The one table at this door."""

from __future__ import annotations

from typing import Any

EXIT = {
    "usage": 2,
    "folder-unusable": 2,
    "unknown-dialect": 2,
    "scale-invalid": 2,
    "env-invalid": 2,
    "key-invalid": 2,
    "confirmation-needed": 3,
    "secrets-missing": 4,
    "plan-refused": 5,
    "blueprint-invalid": 6,
    "unknown-keys": 6,
    "not-found": 7,
    "release-not-found": 7,
    "cron-not-found": 7,
    "control-plane-away": 8,
}
"""Everything else is 1."""

DOCS = "docs/reference/errors"


class CliError(Exception):
    """An error to show: what, why, fix, code, as the API told it or as found here."""

    def __init__(self, body: dict[str, Any]) -> None:
        super().__init__(str(body.get("what", "")))
        self.body = body

    @property
    def code(self) -> str:
        return str(self.body.get("code", "internal-error"))

    @property
    def exit_code(self) -> int:
        return EXIT.get(self.code, 1)

    def text(self) -> str:
        """The error as a person reads it."""
        body = self.body
        lines = [f"error[{self.code}]: {body.get('what', '')}"]
        if body.get("report"):
            lines += [f"  {line}" for line in str(body["report"]).splitlines()]
        else:
            lines.append(f"  why: {body.get('why', '')}")
        if body.get("fix"):
            lines.append(f"  fix: {body['fix']}")
        lines.append(f"  see: {DOCS}/{self.code}.md")
        if body.get("tail"):
            lines += ["  last lines:", *(f"    {line}" for line in body["tail"])]
        return "\n".join(lines)


def usage(why: str, fix: str) -> CliError:
    return CliError({"code": "usage", "what": "Nothing was done.", "why": why, "fix": fix})


class Interrupted(BaseException):
    """Ctrl-C. The command parser would answer KeyboardInterrupt itself, and not say what goes on."""
