"""An add-on engine without a server, for tests of what is built upon drivers. It keeps records as real ones do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

from homeport.drivers.addons.base import AddOnId, AddOnRequest, BackupRef, Credentials, Inspection, Provisioned
from homeport.drivers.addons.errors import AddOnFailed
from homeport.drivers.addons.records import Place, Record
from homeport.model.addon import AddOn


class PaperEngine:
    """Runs when it says so. `broken` makes it fail to come up; `ended` are those that `ensure` finds down."""

    kind: ClassVar[str] = "postgres"

    def __init__(self, home: Path) -> None:
        self.home = home
        self.broken = ""
        self.ended: list[AddOnId] = []
        self.running: set[str] = set()
        self.passwords: dict[tuple[str, str], list[str]] = {}
        self.retired: list[str] = []
        self.closed: list[str] = []
        self.listeners: list[Callable[[AddOnId], None]] = []
        self.more: dict[str, str] = {}
        """Variables of an add-on named `db`, beside `DATABASE_URL`."""

    def check(self, definition: AddOn) -> Sequence[str]:
        return []

    def notes(self, definition: AddOn) -> Sequence[str]:
        return ["it is made of paper"]

    def provision(self, request: AddOnRequest) -> Provisioned:
        if self.broken:
            raise AddOnFailed(name=request.id.name, why=self.broken)
        place = Place(self.home, request.id)
        place.folder.mkdir(parents=True, exist_ok=True)
        place.write(Record(id=request.id, kind=self.kind, definition=request.definition, host="127.0.0.1", port=5432, source="bundled"))
        self.running.add(request.id.slug)
        for consumer, password in request.passwords.items():
            known = self.passwords.setdefault((request.id.slug, consumer), [])
            if password not in known:
                known.append(password)
        made = {name: self._credentials(request.id, name) for name in ("", *request.consumers)}
        return Provisioned(
            id=request.id, kind=self.kind, engine="paper 1", host="127.0.0.1", port=5432, folder=place.folder, credentials=made
        )

    def _credentials(self, id: AddOnId, consumer: str) -> Credentials:
        password, user = self.passwords[id.slug, consumer][-1], consumer or "owner"
        url = f"postgresql://{user}:{password}@127.0.0.1:5432/shop"
        return Credentials(
            user=user,
            password=password,
            host="127.0.0.1",
            port=5432,
            database="shop",
            url=url,
            env={"DATABASE_URL": url, **(self.more if id.name == "db" else {})},
        )

    def rotate(self, id: AddOnId, consumer: str) -> Credentials:
        known = self.passwords[id.slug, consumer]
        known.append(f"fresh-{consumer}-{len(known)}")
        return self._credentials(id, consumer)

    def retire_old(self, id: AddOnId, consumer: str) -> None:
        self.passwords[id.slug, consumer] = self.passwords[id.slug, consumer][-1:]
        self.retired.append(consumer)

    def close_pool(self, id: AddOnId) -> bool:
        self.closed.append(id.slug)
        return True

    def inspect(self, id: AddOnId) -> Inspection:
        return Inspection(running=id.slug in self.running, version="1", size=4096, memory=1024, connections=2)

    def start(self, id: AddOnId) -> None:
        self.running.add(id.slug)

    def stop(self, id: AddOnId) -> None:
        self.running.discard(id.slug)

    def client(self, id: AddOnId) -> str:
        return "/usr/bin/false"

    def back_up(self, id: AddOnId, target: Path) -> BackupRef:
        raise AddOnFailed(name=id.name, why="Paper is not copied.")

    def restore(self, backup: BackupRef, source: Path, into: AddOnId) -> Provisioned:
        raise AddOnFailed(name=into.name, why="Paper is not copied.")

    def upgrade(self, id: AddOnId, version: str) -> Provisioned:
        raise AddOnFailed(name=id.name, why="There is no newer paper.")

    def destroy(self, id: AddOnId) -> Path:
        return self.home

    def undo_destroy(self, id: AddOnId, grave: Path) -> None:
        self.running.add(id.slug)

    def ensure(self) -> Sequence[AddOnId]:
        found, self.ended = self.ended, []
        return found

    def on_exit(self, listener: Callable[[AddOnId], None]) -> None:
        self.listeners.append(listener)

    def logs(self, id: AddOnId, tail: int = 100) -> list[str]:
        return [f"password is {self.passwords[id.slug, ''][-1]}"]
