import time
import uuid

from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends

from app.api.deps import CurrentUser, DatabaseDep, SettingsDep, StoreDep, limited_auth
from app.config import Settings
from app.core.errors import Unauthorized
from app.core.security import hash_password, issue_token, read_token, verify_password
from app.schemas import Login, Refresh, Registration, Tokens, UserOut
from app.services import users

router = APIRouter(prefix="/auth", tags=["auth"])


def tokens_for(user_id: uuid.UUID, settings: Settings) -> Tokens:
    return Tokens(
        access_token=issue_token(user_id, "access", settings),
        refresh_token=issue_token(user_id, "refresh", settings),
        expires_in=settings.access_token_minutes * 60,
    )


@router.post("/register", status_code=201, dependencies=[Depends(limited_auth)])
async def register(data: Registration, db: DatabaseDep) -> UserOut:
    hashed = await run_sync(hash_password, data.password)
    async with db.session() as session:
        user = await users.create(session, data.email, data.name, hashed)
    return UserOut.model_validate(user)


@router.post("/login", dependencies=[Depends(limited_auth)])
async def login(data: Login, db: DatabaseDep, settings: SettingsDep) -> Tokens:
    async with db.session() as session:
        user = await users.by_email(session, data.email)
    if not await run_sync(verify_password, data.password, user.password_hash if user else None) or user is None:
        raise Unauthorized("Email address or password is wrong.")
    return tokens_for(user.id, settings)


@router.post("/refresh", dependencies=[Depends(limited_auth)])
async def refresh(data: Refresh, settings: SettingsDep, redis: StoreDep) -> Tokens:
    """A refresh token works once."""
    claims = read_token(data.refresh_token, "refresh", settings)
    if not await redis.first_use(claims["jti"], int(claims["exp"]) - int(time.time())):
        raise Unauthorized("This refresh token was used before.")
    return tokens_for(uuid.UUID(claims["sub"]), settings)


@router.get("/me")
async def me(user_id: CurrentUser, db: DatabaseDep) -> UserOut:
    async with db.session(user_id) as session:
        user = await users.by_id(session, user_id)
    if user is None:
        raise Unauthorized("This account no longer exists.")
    return UserOut.model_validate(user)
