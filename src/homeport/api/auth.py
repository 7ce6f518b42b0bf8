"""Who may do what: a bearer key with scopes. A route without a declared policy is refused by a test.

Wrong keys are counted by address: `MAX_FAILED` a minute, then the answer is 429 and the key is not even looked at. A key that has
worked since the start is let through all the same, so that nobody who guesses can lock the owner out.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from homeport.deploys.audit import Caller
from homeport.drivers.edge.connections import account_at
from homeport.model.errors import HomeportError
from homeport.store.keys import KeyRow

bearer = HTTPBearer(auto_error=False, description="An API key: `homeport keys create`, or the one-time token of the first start.")

MAX_FAILED = 10
"""Wrong keys of one address in a minute."""

MAX_FAILED_IN_ALL = 300
"""Wrong keys of all addresses together in a minute: many addresses guess no faster than this."""

WINDOW = 60.0
MAX_ADDRESSES = 10_000
MAX_KNOWN = 1_000


class Unauthorised(HomeportError):
    """Nobody knows who asks."""

    code = "unauthorised"


class Forbidden(HomeportError):
    """The key may not do this."""

    code = "forbidden"


class KeyInvalid(HomeportError):
    """A key cannot be made like this."""

    code = "key-invalid"


class TooManyAttempts(HomeportError):
    """Too many wrong keys came from this address."""

    code = "too-many-attempts"

    def __init__(self) -> None:
        super().__init__(
            what="The request was not carried out.",
            why="Too many wrong API keys came from this address in the last minute.",
            fix="Wait a minute, and send a key that works.",
        )

    def __reduce__(self) -> tuple[object, ...]:
        return TooManyAttempts, ()


@dataclass(frozen=True)
class Key(KeyRow):
    """The key a request carries, with where it came from."""

    peer: str = ""
    port: int = 0
    """Of the caller's end of the connection."""

    @property
    def caller(self) -> Caller:
        """Who asks, as the audit log names it; of a caller on this machine the kernel tells the account."""
        account = account_at(self.peer, self.port) if self.port else ""
        return Caller(self.name, f"key {self.id} from {self.peer}{f' ({account})' if account else ''}")


class Attempts:
    """Counts wrong keys. Bounded: the addresses that failed longest ago are forgotten first."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._failed: OrderedDict[str, list[float]] = OrderedDict()
        self._all: list[float] = []
        self._known: OrderedDict[bytes, None] = OrderedDict()

    def check(self, address: str, text: str) -> None:
        """Raises TooManyAttempts when this address must wait and this key has not worked before."""
        with self._lock:
            since = self._clock() - WINDOW
            mine = [at for at in self._failed.get(address, []) if at > since]
            self._all = [at for at in self._all if at > since]
            if (len(mine) >= MAX_FAILED or len(self._all) >= MAX_FAILED_IN_ALL) and _short(text) not in self._known:
                raise TooManyAttempts

    def failed(self, address: str) -> None:
        """A wrong key came from an address."""
        with self._lock:
            moment = self._clock()
            mine = [at for at in self._failed.pop(address, []) if at > moment - WINDOW]
            self._failed[address] = [*mine, moment][-MAX_FAILED:]
            self._all = [*self._all, moment][-MAX_FAILED_IN_ALL:]
            while len(self._failed) > MAX_ADDRESSES:
                self._failed.popitem(last=False)

    def worked(self, text: str) -> None:
        """A key was right."""
        with self._lock:
            self._known[_short(text)] = None
            self._known.move_to_end(_short(text))
            while len(self._known) > MAX_KNOWN:
                self._known.popitem(last=False)


class Needs:
    """A dependency that lets a caller pass who has the scope."""

    def __init__(self, scope: str) -> None:
        self.scope = scope

    def __call__(self, request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]) -> Key:
        key = authenticate(request, credentials.credentials if credentials else "")
        require(key, self.scope)
        return key


def require(key: Key, scope: str) -> None:
    """Raises Forbidden when a key lacks a scope."""
    if not key.allows(scope):
        raise Forbidden(
            what="The request was not carried out.",
            why=f"The key {key.name!r} lacks the scope {scope!r}.",
            fix="Use a key that has it: `homeport keys create NAME --scope " + scope + "`.",
        )


def authenticate(request: Request, text: str) -> Key:
    """Whose key this is. Raises Unauthorised, TooManyAttempts."""
    state, peer = request.app.state, peer_of(request)
    if text:
        state.attempts.check(peer, text)
        row = state.control.platform.store.keys.find(text)
        if row is not None:
            state.attempts.worked(text)
            return Key(**row.__dict__, peer=peer, port=request.client.port if request.client else 0)
        state.attempts.failed(peer)
    raise Unauthorised(
        what="The request was not carried out.",
        why="It carries no valid API key.",
        fix="Send `Authorization: Bearer hp_…`; make a key with `homeport keys create`.",
    )


def peer_of(request: Request) -> str:
    """The address at the other end of the connection. Headers that claim another are not believed."""
    return request.client.host if request.client else "unknown"


def _short(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


Reader = Annotated[Key, Depends(Needs("read"))]
Deployer = Annotated[Key, Depends(Needs("deploy"))]
SecretKeeper = Annotated[Key, Depends(Needs("secrets"))]
Admin = Annotated[Key, Depends(Needs("admin"))]
