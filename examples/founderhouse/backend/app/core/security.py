"""Password hashes and tokens."""

import uuid
from datetime import UTC, datetime, timedelta
from typing import Literal

import jwt
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from app.config import Settings
from app.core.errors import Unauthorized

ALGORITHM = "HS256"
Kind = Literal["access", "refresh"]

_hasher = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)  # OWASP's minimum for argon2id
_NOBODY = _hasher.hash("nobody has this password")


def hash_password(password: str) -> str:
    return _hasher.hash(password)


def verify_password(password: str, stored: str | None) -> bool:
    """Takes as long for an unknown user (None) as for a wrong password."""
    try:
        return _hasher.verify(stored or _NOBODY, password) and stored is not None
    except (VerificationError, InvalidHashError):
        return False


def issue_token(user_id: uuid.UUID, kind: Kind, settings: Settings, now: datetime | None = None) -> str:
    now = now or datetime.now(UTC)
    life = timedelta(minutes=settings.access_token_minutes) if kind == "access" else timedelta(days=settings.refresh_token_days)
    claims = {"sub": str(user_id), "kind": kind, "iss": settings.jwt_issuer, "iat": now, "exp": now + life, "jti": uuid.uuid4().hex}
    return jwt.encode(claims, settings.jwt_secret.get_secret_value(), algorithm=ALGORITHM)


def read_token(token: str, kind: Kind, settings: Settings) -> dict[str, str]:
    """The claims of a valid token of this kind; raises Unauthorized."""
    try:
        claims = jwt.decode(
            token,
            settings.jwt_secret.get_secret_value(),
            algorithms=[ALGORITHM],
            issuer=settings.jwt_issuer,
            options={"require": ["sub", "kind", "exp", "jti"]},
        )
        uuid.UUID(claims["sub"])
    except (jwt.InvalidTokenError, ValueError):
        raise Unauthorized("The token is not valid or has expired.") from None
    if claims["kind"] != kind:
        raise Unauthorized(f"This is not an {kind} token.")
    return claims
