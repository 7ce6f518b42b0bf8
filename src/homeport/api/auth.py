"""Who may do what: a bearer key with scopes. A route without a declared policy is refused by a test."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from homeport.model.errors import HomeportError
from homeport.store.keys import KeyRow

bearer = HTTPBearer(auto_error=False, description="An API key: `homeport keys create`, or the one-time token of the first start.")


class Unauthorised(HomeportError):
    """Nobody knows who asks."""

    code = "unauthorised"


class Forbidden(HomeportError):
    """The key may not do this."""

    code = "forbidden"


class KeyInvalid(HomeportError):
    """A key cannot be made like this."""

    code = "key-invalid"


class Needs:
    """A dependency that lets a caller pass who has the scope."""

    def __init__(self, scope: str) -> None:
        self.scope = scope

    def __call__(self, request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]) -> KeyRow:
        key: KeyRow | None = request.app.state.control.platform.store.keys.find(credentials.credentials) if credentials else None
        if key is None:
            raise Unauthorised(
                what="The request was not carried out.",
                why="It carries no valid API key.",
                fix="Send `Authorization: Bearer hp_…`; make a key with `homeport keys create`.",
            )
        if not key.allows(self.scope):
            raise Forbidden(
                what="The request was not carried out.",
                why=f"The key {key.name!r} lacks the scope {self.scope!r}.",
                fix="Use a key that has it: `homeport keys create NAME --scope " + self.scope + "`.",
            )
        return key


Reader = Annotated[KeyRow, Depends(Needs("read"))]
Deployer = Annotated[KeyRow, Depends(Needs("deploy"))]
SecretKeeper = Annotated[KeyRow, Depends(Needs("secrets"))]
Admin = Annotated[KeyRow, Depends(Needs("admin"))]
