"""Operations of the room: one at a time with deploys of the same environment, and finished or taken back after a crash.

What an operation has begun is written beside its claim before it is begun, so that the next start of the control plane knows what to
finish and what to throw away:

restore  the add-ons it makes are thrown away; a switch that had begun is finished by its own journal; disks whose exchange had begun are
         exchanged to the end; services it had stopped get their numbers back
fork     thrown away as long as it is not recorded; once it is (masked, with its secrets and its release), it goes live
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from typing import Any

from homeport.backups import settling
from homeport.backups.room import Room
from homeport.backups.volumes import exchange, incoming
from homeport.drivers.addons import switching
from homeport.drivers.addons.base import AddOnId
from homeport.drivers.addons.keeping import ServerDriver
from homeport.drivers.files import remove_tree
from homeport.store.operations import Operation

log = logging.getLogger("homeport.backups")


class Progress:
    """An operation on its way; `began` are its claims, the first one the main one."""

    def __init__(self, room: Room, began: Sequence[Operation]) -> None:
        self.room, self.operation = room, began[0]

    @property
    def detail(self) -> dict[str, Any]:
        return self.operation.detail

    def note(self, **detail: Any) -> None:
        """Write down what is begun next."""
        self.operation = self.room.store.operations.note(self.operation, **detail)

    def makes(self, id: AddOnId, kind: str) -> None:
        """An add-on is about to be made that is thrown away when this does not come to its end."""
        self.note(addons=[*self.detail.get("addons", []), {"kind": kind, **id.model_dump()}])

    def keeps(self, id: AddOnId) -> None:
        """It is in its place, or gone."""
        self.note(addons=[made for made in self.detail.get("addons", []) if _id(made) != id])

    def reach(self, point: str) -> None:
        """A point at which the control plane can be made to die: `restore:proven`, `fork:masked`."""
        self.room.reach(self.operation.kind, point)


@contextlib.contextmanager
def operating(room: Room, kind: str, project: str, environment: str, *also: tuple[str, str, str], **detail: Any) -> Iterator[Progress]:
    """Have environments for oneself: deploys of them wait until the block ends. Raises EnvironmentBusy."""
    began = room.store.operations.begin([(kind, project, environment), *also], **detail)
    try:
        yield Progress(room, began)
    finally:
        room.store.operations.end(began[0].id)
        for one in began:
            room.wiring.released(one.project, one.environment)


def take_back(room: Room) -> list[str]:
    """Finish or undo what a crash interrupted, before anything of the home is started; what was done, one sentence each.

    A fork that is recorded stays for `go_on`.
    """
    said = []
    for folder in room.made("scratch").iterdir():
        remove_tree(folder)
    for operation in room.store.operations.all():
        where = f"{operation.project}/{operation.environment}"
        if operation.kind == "restore":
            _end_restore(room, operation)
            said.append(f"A restore of {where} was interrupted by a stop of the control plane.")
        elif operation.kind == "fork" and not operation.detail.get("number"):
            discard_addons(room, operation.detail.get("addons", []))
            undo_fork(room, operation.project, operation.environment)
            said.append(f"The fork {where} was interrupted by a stop of the control plane and taken back.")
        else:
            continue
        room.store.operations.end(operation.id)
        room.wiring.tell("operation.interrupted", said[-1], operation.project, operation.environment)
    return said


def go_on(room: Room) -> list[str]:
    """Put forks live that were complete when a crash came; ids of their deploys."""
    deploys = []
    for operation in room.store.operations.all():
        if operation.kind == "fork":
            number = int(operation.detail["number"])
            if not room.store.deploys.recent(operation.project, operation.environment):
                deploys.append(
                    room.wiring.go_live(operation.project, operation.environment, number, str(operation.detail.get("actor", "")))
                )
            room.store.operations.end(operation.id)
            room.wiring.released(operation.project, operation.environment)
    return deploys


def discard_addons(room: Room, made: Sequence[dict[str, Any]]) -> None:
    """Throw away add-ons that did not come to be what they were made for."""
    for one in made:
        driver: object = room.drivers.get(one["kind"])
        if isinstance(driver, ServerDriver):
            switching.discard(driver, _id(one))


def undo_fork(room: Room, project: str, name: str) -> None:
    """Leave nothing of an environment that did not come to be. Its add-ons are gone already."""
    for row in room.store.ledger.list("addon", f"{project}/{name}"):
        room.store.ledger.release("addon", row.key)
    for volume in room.store.ledger.list("volume", f"{project}/{name}"):
        remove_tree(room.home / "volumes" / volume.key)
        remove_tree(incoming(room.home, volume.key))
        room.store.ledger.release("volume", volume.key)
    settling.forget(room, project, name)
    room.wiring.forget(project, name)
    room.store.releases.remove(project, name)
    room.store.environments.remove(project, name)


def _end_restore(room: Room, operation: Operation) -> None:
    discard_addons(room, operation.detail.get("addons", []))
    for name in operation.detail.get("disks", []):
        if operation.detail.get("exchanging"):
            exchange(room, name)
        remove_tree(incoming(room.home, name))
    if (scale := operation.detail.get("scale")) is not None:
        room.store.environments.change(operation.project, operation.environment, scale=scale)


def _id(made: dict[str, Any]) -> AddOnId:
    return AddOnId(project=made["project"], environment=made["environment"], name=made["name"])
