"""Valkey and Redis: snapshots, compared key by key over what each holds.

A key's digest is over its name, type and content, and the moment it ends when it has a life. Keys that have one are kept apart by the hour
in which it ends: the hours that have begun when a restore is read are left out, since their keys may rightly be gone.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import logging
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from homeport.backups.kinds.base import Copier, CopyByCopy, Taken, compare
from homeport.backups.manifest import Fingerprint, TablePrint
from homeport.drivers.addons.base import AddOnId
from homeport.drivers.addons.records import Place
from homeport.drivers.addons.valkey import ValkeyDriver
from homeport.drivers.files import remove_tree

if TYPE_CHECKING:
    from homeport.backups.room import Room

log = logging.getLogger("homeport.backups")

Client: TypeAlias = Any
"""redis-py's client that gives bytes; its types know text only."""
TRIES = 3
"""Snapshots taken in the hope that nothing is written between one and the look at it."""
PAGE = 500
"""Keys, members or fields asked for at once."""
BATCH = 4 << 20
"""Bytes of strings asked for at once."""
PIECE = 1 << 20
_ENDING = "keys that end from "
_FOOTER = 10
"""Bytes after a value in what DUMP gives: version and checksum (valkey.io, DUMP)."""


class ValkeyCopier(CopyByCopy):
    """Copies of Valkey add-ons."""

    kind: ClassVar[str] = "redis"

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        import redis

        return (redis.RedisError, OSError)

    def take(self, room: Room, id: AddOnId, folder: Path) -> Taken:
        driver = _driver(room)
        for last in (*[False] * (TRIES - 1), True):
            ref = driver.back_up(id, folder)
            before = _unsaved(driver, id)
            if before[0] == 0 or last:
                databases = contents(driver, id)
                exact = before[0] == 0 and _unsaved(driver, id) == before
                if exact or last:
                    return Taken(ref=ref, fingerprint=Fingerprint(exact=exact, databases=databases))
            remove_tree(Path(ref.folder))
        raise AssertionError  # the last try returns

    def read(self, room: Room, id: AddOnId) -> Fingerprint:
        return Fingerprint(databases=contents(_driver(room), id))

    def difference(self, wanted: Fingerprint, found: Fingerprint) -> str:
        if wanted.keys is not None and not wanted.databases:  # written when only numbers were compared
            return "" if found.rows <= wanted.keys[1] else f"It holds {found.rows} keys instead of {wanted.keys[1]}."
        now = datetime.now(UTC)
        return compare(lasting(wanted, now), lasting(found, now), "group of keys")

    def counted(self, found: Fingerprint) -> dict[str, int]:
        return {"keys": found.rows}


def _driver(room: Room) -> ValkeyDriver:
    driver = room.drivers["redis"]
    assert isinstance(driver, ValkeyDriver)  # noqa: S101 (wired so)
    return driver


def _unsaved(driver: ValkeyDriver, id: AddOnId) -> tuple[int, int]:
    """Changes since the last snapshot began, and the number of snapshots."""
    with driver.admin(Place(driver.home, id)) as client:
        found = client.info("persistence")
    return int(found["rdb_changes_since_last_save"]), int(found["rdb_saves"])


def lasting(print_: Fingerprint, now: datetime) -> Fingerprint:
    """What is there for longer than until `now`: databases of which nothing is left are left out."""
    until = f"{_ENDING}{now:%Y-%m-%dT%HZ}"
    kept = {
        number: {name: table for name, table in groups.items() if not name.startswith(_ENDING) or name > until}
        for number, groups in print_.databases.items()
    }
    return print_.model_copy(update={"databases": {number: groups for number, groups in kept.items() if groups}})


# --- reading everything -----------------------------------------------------------------------------------------------


def contents(driver: ValkeyDriver, id: AddOnId) -> dict[str, dict[str, TablePrint]]:
    """By database, by type or hour of end: how many keys, and a sum over a digest of each. Raises RedisError."""
    place, found = Place(driver.home, id), {}
    with driver.admin(place) as client:
        numbers = sorted(int(name.removeprefix("db")) for name in client.info("keyspace") if name.startswith("db"))
    for number in numbers:
        with driver.admin(place, decoded=False, database=number) as client:
            groups = _database(client)
        if groups:
            found[str(number)] = groups
    return found


def _database(client: Client) -> dict[str, TablePrint]:
    import redis

    with contextlib.suppress(redis.ResponseError):  # engines before Redis 7.2 know it not: then the look counts as use of each key
        client.execute_command("CLIENT", "NO-TOUCH", "ON")
    sums: dict[str, tuple[int, int]] = {}
    fields_end = _knows(client, "HPEXPIRETIME")
    for keys in _pages(client):
        with client.pipeline(transaction=False) as asked:
            for key in keys:
                asked.type(key)
                asked.pexpiretime(key)
            said = asked.execute()
        kinds = {key: (kind.decode(), end) for key, kind, end in zip(keys, said[::2], said[1::2], strict=True)}
        strings = _strings(client, [key for key, (kind, _) in kinds.items() if kind == "string"])
        for key, (kind, end) in kinds.items():
            if kind == "none" or end == -2:
                continue  # it ended meanwhile
            digest, fields = (strings[key], -1) if kind == "string" else _value(client, key, kind, fields_end=fields_end)
            ends = [moment for moment in (end, fields) if moment >= 0]
            group = f"{_ENDING}{datetime.fromtimestamp(min(ends) / 1000, UTC):%Y-%m-%dT%HZ}" if ends else kind
            count, total = sums.get(group, (0, 0))
            sums[group] = count + 1, (total + _number(key, kind.encode(), digest, str(end).encode())) % (1 << 128)
    return {group: TablePrint(rows=count, total=f"{total:032x}") for group, (count, total) in sorted(sums.items())}


def _pages(client: Client) -> Iterator[list[bytes]]:
    """Every key once: SCAN may give one twice while its table grows or shrinks."""
    seen: set[int] = set()
    cursor = 0
    while True:
        cursor, keys = client.scan(cursor, count=PAGE)
        fresh = []
        for key in keys:
            mark = hash(key)
            if mark not in seen:
                seen.add(mark)
                fresh.append(key)
        if fresh:
            yield fresh
        if not cursor:
            return


def _strings(client: Client, keys: Sequence[bytes]) -> dict[bytes, bytes]:
    """Digest of each string. Many small ones are asked for at once, a large one in pieces."""
    with client.pipeline(transaction=False) as asked:
        for key in keys:
            asked.strlen(key)
        sizes = dict(zip(keys, asked.execute(), strict=True)) if keys else {}
    found = {key: _large(client, key, size) for key, size in sizes.items() if size > PIECE}
    batch: list[bytes] = []
    held = 0
    for key, size in [*((key, size) for key, size in sizes.items() if size <= PIECE), (b"", BATCH)]:
        if batch and held + size > BATCH:
            found.update(zip(batch, (_hash(value or b"") for value in client.mget(batch)), strict=True))
            batch, held = [], 0
        batch.append(key)
        held += size
    return found


def _large(client: Client, key: bytes, size: int) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for start in range(0, size, PIECE):
        digest.update(client.getrange(key, start, start + PIECE - 1))
    return digest.digest()


def _value(client: Client, key: bytes, kind: str, *, fields_end: bool) -> tuple[bytes, int]:
    """Digest of a value that is no string, and the first moment at which a field of it ends; -1 when none does."""
    if kind == "hash":
        return _of_hash(client, key, fields_end=fields_end)
    if kind == "set":
        members = list(_scanned(client, "SSCAN", key))
        if len(set(members)) != client.scard(key):
            members = list(client.smembers(key))
        return _unordered((member,) for member in set(members)), -1
    if kind == "list":
        return _ordered(itertools.chain.from_iterable(_ranges(client, "LRANGE", key, ()))), -1
    if kind == "zset":
        return _ordered(itertools.chain.from_iterable(_ranges(client, "ZRANGE", key, ("WITHSCORES",)))), -1
    if kind == "stream":
        return _of_stream(client, key), -1
    return _hash((client.dump(key) or b"")[:-_FOOTER]), -1


def _of_hash(client: Client, key: bytes, *, fields_end: bool) -> tuple[bytes, int]:
    flat = list(_scanned(client, "HSCAN", key))
    pairs = dict(zip(flat[::2], flat[1::2], strict=True))
    if len(pairs) != client.hlen(key):
        pairs = client.hgetall(key)
    ends: list[int] = []
    every = list(pairs) if fields_end else []
    for names in (every[start : start + PAGE] for start in range(0, len(every), PAGE)):
        ends += client.execute_command("HPEXPIRETIME", key, "FIELDS", len(names), *names)
    return _unordered(pairs.items()), min((end for end in ends if end >= 0), default=-1)


def _of_stream(client: Client, key: bytes) -> bytes:
    """Entries, and how far each group has come."""

    def entries() -> Iterator[bytes]:
        start = b"-"
        while page := client.execute_command("XRANGE", key, start, "+", "COUNT", PAGE):
            for id, fields in page:
                yield from (id, *itertools.chain.from_iterable((fields or {}).items()))
            start = b"(" + page[-1][0]
        about: dict[Any, Any] = client.xinfo_stream(key)
        yield repr(about.get("last-generated-id", about.get(b"last-generated-id"))).encode()
        for group in client.xinfo_groups(key):
            known = {str(name): value for name, value in group.items()}
            yield repr([known.get(name) for name in ("name", "pending", "last-delivered-id")]).encode()

    return _ordered(entries())


def _scanned(client: Client, command: str, key: bytes) -> Iterator[bytes]:
    cursor: Any = 0
    while True:
        cursor, page = client.execute_command(command, key, cursor, "COUNT", PAGE)
        yield from itertools.chain.from_iterable(page.items()) if isinstance(page, dict) else page
        if not int(cursor):
            return


def _ranges(client: Client, command: str, key: bytes, options: tuple[str, ...]) -> Iterator[Iterator[bytes]]:
    for start in itertools.count(0, PAGE):
        page = client.execute_command(command, key, start, start + PAGE - 1, *options)
        if not page:
            return
        yield (part if isinstance(part, bytes) else repr(part).encode() for part in page)


def _knows(client: Client, command: str) -> bool:
    import redis

    try:
        return bool(client.execute_command("COMMAND", "INFO", command))
    except (redis.RedisError, TypeError, AttributeError):
        return False


# --- digests ----------------------------------------------------------------------------------------------------------


def _hash(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


def _number(*parts: bytes) -> int:
    """A number of 128 bits over parts, each with its length: no two lists of parts read alike."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(len(part).to_bytes(8))
        digest.update(part)
    return int.from_bytes(digest.digest())


def _ordered(parts: Iterable[bytes]) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(len(part).to_bytes(8))
        digest.update(part)
    return digest.digest()


def _unordered(items: Iterable[tuple[bytes, ...]]) -> bytes:
    return (sum(_number(*item) for item in items) % (1 << 128)).to_bytes(16)


if TYPE_CHECKING:
    _: type[Copier] = ValkeyCopier
