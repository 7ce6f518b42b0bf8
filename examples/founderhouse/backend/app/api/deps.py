"""What routes ask for: the database, redis, who is calling, and their share of requests."""

import uuid
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from app.config import Settings
from app.core.errors import Unauthorized
from app.core.redis import Store
from app.core.security import read_token
from app.database import Database

bearer = HTTPBearer(auto_error=False)


def settings(request: Request) -> Settings:
    return request.app.state.settings


def database(request: Request) -> Database:
    return request.app.state.database


def store(request: Request) -> Store:
    return request.app.state.store


SettingsDep = Annotated[Settings, Depends(settings)]
DatabaseDep = Annotated[Database, Depends(database)]
StoreDep = Annotated[Store, Depends(store)]


def optional_user(config: SettingsDep, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]) -> uuid.UUID | None:
    return uuid.UUID(read_token(credentials.credentials, "access", config)["sub"]) if credentials else None


MaybeUser = Annotated[uuid.UUID | None, Depends(optional_user)]


def required_user(user_id: MaybeUser) -> uuid.UUID:
    if user_id is None:
        raise Unauthorized("Log in first.")
    return user_id


CurrentUser = Annotated[uuid.UUID, Depends(required_user)]


def address(request: Request) -> str:
    return request.client.host if request.client else "unknown"


async def limited(request: Request, config: SettingsDep, redis: StoreDep, user_id: MaybeUser) -> None:
    who = f"user:{user_id}" if user_id else f"address:{address(request)}"
    await redis.count(who, config.rate_limit_per_minute)


async def limited_auth(request: Request, config: SettingsDep, redis: StoreDep) -> None:
    await redis.count(f"auth:{address(request)}", config.rate_limit_auth_per_minute)
