import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import APIRouter, Depends, FastAPI
from fastapi.middleware.cors import CORSMiddleware

from app import __version__
from app.api import auth, documents, startups, system
from app.api.deps import limited
from app.config import Settings, get_settings
from app.core import errors
from app.core import logging as json_logging
from app.core.middleware import RequestContext
from app.core.redis import Store
from app.database import Database

log = logging.getLogger("app")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    settings: Settings = app.state.settings
    app.state.database = Database(settings)
    app.state.store = Store(settings.redis_url.get_secret_value())
    log.info("started", extra={"version": __version__, "environment": settings.environment})
    yield
    await app.state.store.close()
    await app.state.database.close()
    log.info("stopped")


def create_app(settings: Settings | None = None) -> FastAPI:
    settings = settings or get_settings()
    json_logging.configure(settings.log_level, settings.log_json)
    app = FastAPI(title="Founderhouse", version=__version__, lifespan=lifespan)
    app.state.settings = settings
    errors.install(app)
    if settings.cors_origin_list:
        app.add_middleware(CORSMiddleware, allow_origins=settings.cors_origin_list, allow_methods=["*"], allow_headers=["*"])
    app.add_middleware(RequestContext)
    api = APIRouter(prefix="/api/v1", dependencies=[Depends(limited)])
    for module in (auth, startups, documents):
        api.include_router(module.router)
    app.include_router(api)
    app.include_router(system.router)
    return app


app = create_app()
