"""Which HTTP status an error has. The one table at this door."""

from __future__ import annotations

from typing import Any

from fastapi.exceptions import RequestValidationError

from homeport.model.errors import BlueprintInvalid, HomeportError

STATUS = {
    "not-found": 404,
    "release-not-found": 404,
    "cron-not-found": 404,
    "unauthorised": 401,
    "forbidden": 403,
    "confirmation-needed": 409,
    "environment-busy": 409,
    "backup-missing": 404,
    "backup-target-failed": 502,
    "backup-no-room": 507,
    "disk-full": 507,
    "secret-version-unavailable": 404,
    "too-many-attempts": 429,
    "audit-unavailable": 503,
    "store-unavailable": 503,
    "internal-error": 500,
}
"""Everything else is the caller's to mend: 422."""


MAX_PROBLEMS = 10
MAX_PLACE = 6


def status_of(error: HomeportError) -> int:
    return STATUS.get(error.code, 422)


def refused(error: RequestValidationError) -> dict[str, Any]:
    """A request that does not fit, as JSON: which part of it and what is wrong, never what it was."""
    detail = [
        {"type": one["type"], "loc": list(one["loc"])[:MAX_PLACE], "msg": one["msg"].removeprefix("Value error, ")}
        for one in error.errors()[:MAX_PROBLEMS]
    ]
    told = "; ".join(f"{'.'.join(str(part) for part in one['loc'][1:]) or 'request'}: {one['msg']}" for one in detail)
    fix = "See the route in /api/openapi.json, or the verb's --help."
    return {"code": "usage", "what": "Nothing was done.", "why": f"{told}.", "fix": fix, "detail": detail}


def body_of(error: HomeportError) -> dict[str, Any]:
    """The error as JSON: what, why, fix, code, and where there are any the place in the file and the missing keys."""
    body: dict[str, Any] = {"code": error.code, "what": error.what, "why": error.why, "fix": error.fix}
    if error.tail:
        body["tail"] = list(error.tail)
    if isinstance(error, BlueprintInvalid):
        body["report"] = error.render()
        body["problems"] = [{"path": p.path, "message": p.message, "line": p.line, "column": p.column} for p in error.problems]
    missing = getattr(error, "missing", None)
    if missing:
        body["missing"] = missing
    return body
