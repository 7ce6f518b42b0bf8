import asyncio
import platform
from collections.abc import Awaitable

from fastapi import APIRouter, Response

from app import __version__
from app.api.deps import DatabaseDep, SettingsDep, StoreDep

router = APIRouter(tags=["system"])

CHECK_SECONDS = 3


async def _works(check: Awaitable[None]) -> bool:
    try:
        await asyncio.wait_for(check, CHECK_SECONDS)
    except Exception:  # whatever it is, the part does not work
        return False
    return True


@router.get("/", include_in_schema=False)
async def index() -> dict[str, str]:
    return {"service": "founderhouse", "version": __version__, "docs": "/docs", "health": "/health", "api": "/api/v1"}


@router.get("/health")
async def health(response: Response, db: DatabaseDep, redis: StoreDep) -> dict[str, str]:
    """Without the database nothing works (503); without Redis everything does, slower."""
    database_up, redis_up = await asyncio.gather(_works(db.ping()), _works(redis.ping()))
    if not database_up:
        response.status_code = 503
    response.headers["Cache-Control"] = "no-store"
    return {
        "status": "ok" if database_up and redis_up else "degraded" if database_up else "down",
        "database": "up" if database_up else "down",
        "redis": "up" if redis_up else "down",
    }


@router.get("/version")
async def version(settings: SettingsDep) -> dict[str, str]:
    return {
        "service": "founderhouse",
        "version": __version__,
        "commit": settings.git_sha,
        "environment": settings.environment,
        "python": platform.python_version(),
    }
