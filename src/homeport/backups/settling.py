"""Forks serve before their data is on the platter; this has it written down, a few seconds later.

What is not yet written down is in the ledger with the boot it was made in. A control plane that comes back in the same boot goes on: the
kernel has the data. After a restart of the machine in between nobody knows what is whole, so that environment is taken away again, and
said to be: it is a copy, and can be made again.
"""

from __future__ import annotations

import logging
import threading

import psycopg

from homeport.backups.room import Room
from homeport.drivers.addons.base import AddOnId
from homeport.drivers.addons.postgres import settling
from homeport.drivers.builders.layers import boot_id
from homeport.model.errors import HomeportError

log = logging.getLogger("homeport.backups")

KIND = "unsettled"
"""Ledger kind; the key is the add-on's."""
_one = threading.Lock()


def unsettled(room: Room, id: AddOnId) -> None:
    """Write down, before it is made, that an add-on is not durable yet; what is known of an earlier one of its name counts no more."""
    room.store.ledger.release(KIND, id.slug)
    room.store.ledger.claim(KIND, id.slug, f"{id.project}/{id.environment}", addon=id.name, boot=boot_id())


def forget(room: Room, project: str, environment: str) -> None:
    """An environment is gone."""
    for row in room.store.ledger.list(KIND, f"{project}/{environment}"):
        room.store.ledger.release(KIND, row.key)


def begin(room: Room) -> threading.Thread:
    """Settle in the background; a failure is tried again at the keeper's next look."""
    thread = threading.Thread(target=settle, args=(room,), name="settle", daemon=True)
    thread.start()
    return thread


def settle(room: Room) -> list[str]:
    """Make every add-on durable that is not; those that are now."""
    done = []
    with _one:
        for row in room.store.ledger.list(KIND):
            project, _, environment = row.owner.partition("/")
            id = AddOnId(project=project, environment=environment, name=str(row.value["addon"]))
            if any(one.project == project and one.environment == environment for one in room.store.operations.all()):
                continue  # being made, or being taken back
            try:
                if row.value["boot"] != boot_id():
                    room.wiring.abandon(project, environment, "the machine went down before its data was on the disk")
                elif _made(room, id):
                    settling.settle(room.postgres.cluster(id))
                    done.append(id.slug)
                room.store.ledger.release(KIND, row.key)
            except (psycopg.Error, HomeportError, OSError) as error:
                log.warning("%s is not durable yet: %s", id.slug, error)
    return done


def _made(room: Room, id: AddOnId) -> bool:
    """Whether an add-on is there. One that is being made is waited for; it is in the ledger once it is masked."""
    where = f"{id.project}/{id.environment}"
    if room.store.ledger.list("addon", where):
        return True
    with room.busy:
        return bool(room.store.ledger.list("addon", where))
