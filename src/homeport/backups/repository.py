"""One target as a repository of backups.

key.age                              the home's backup key, wrapped by the vault key
backups/<id>/manifest.age            written last: without it there is no backup
backups/<id>/<n>.parcel              tar, zstd, age
blobs/<kind>/<name>.parcel           immutable things several backups share (artifacts, toolchains)
wal/<era>/<segment>-<sha256>.parcel  one finished WAL segment; the digest is of its content
wal/<era>/<segment>.<bytes>-<sha256>.parcel  the beginning of an unfinished one: so many bytes (hexadecimal), the rest is zeros
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pydantic import ValidationError

from homeport.backups.errors import BackupMissing
from homeport.backups.manifest import Manifest, Part, Proof
from homeport.drivers.addons.copies import sha256
from homeport.drivers.files import remove_tree
from homeport.drivers.storage.base import ObjectMissing, Storage, StorageFailed
from homeport.drivers.storage.keys import BackupKey, unwrap, wrap
from homeport.drivers.storage.parcels import ParcelDamaged, check, pack_file, unpack_file, unpack_tree

_WAL = re.compile(r"wal/[^/]+/([0-9A-F]{24}|[0-9A-F]{8}\.history)-([0-9a-f]{64})\.parcel")
_TAIL = re.compile(r"wal/[^/]+/([0-9A-F]{24})\.([0-9a-f]{8})-([0-9a-f]{64})\.parcel")
WORKERS = 2
"""Objects fetched side by side."""
KEY = "key.age"


class Repository:
    """`scratch` is a folder for files on their way: each under a name of its own, since a drill and a restore may want the same object."""

    def __init__(self, storage: Storage, key: BackupKey, scratch: Path, beside: Sequence[Repository] = ()) -> None:
        self.storage, self.key, self.scratch = storage, key, scratch
        self.beside = beside
        """Others of the same home, asked for segments of the log that are not here."""

    def with_log_of(self, others: Sequence[Repository]) -> Repository:
        """This one, its log completed by what lies on others."""
        return Repository(self.storage, self.key, self.scratch, [other for other in others if other.name != self.name])

    @property
    def name(self) -> str:
        return self.storage.name

    # --- backups ----------------------------------------------------------------------------------------------

    def store(self, manifest: Manifest, folder: Path) -> None:
        """Upload the parts that lie in `folder` by the last word of their key; those there already are left. Twice is once.

        Raises StorageFailed.
        """
        there = self.storage.list(f"backups/{manifest.id}")
        for part in manifest.parts:
            known = there.get(part.key) if part.key.startswith("backups/") else self.storage.list(part.key.rsplit("/", 1)[0]).get(part.key)
            if known != part.size:
                self.storage.put(part.key, folder / part.key.rsplit("/", 1)[1])
        self._put_sealed(f"backups/{manifest.id}/manifest.age", manifest.model_dump_json(exclude_defaults=True))

    def has(self, part: Part) -> bool:
        """Whether a shared object lies here with its size."""
        return self.storage.list(part.key.rsplit("/", 1)[0]).get(part.key) == part.size

    def manifests(self) -> Iterator[Manifest]:
        """Every complete backup, oldest first; what cannot be read or was not signed by this home's key is left out."""
        for key in sorted(self.storage.list("backups")):
            if key.endswith("/manifest.age"):
                try:
                    yield self.manifest(key.split("/")[1])
                except ParcelDamaged:
                    continue

    def manifest(self, id: str) -> Manifest:
        """Raises BackupMissing, ParcelDamaged, BackupKeyWrong, StorageFailed."""
        try:
            body = self._fetch_sealed(f"backups/{id}/manifest.age", id)
        except ObjectMissing as error:
            raise BackupMissing(f"The target {self.name} has no backup {id}.") from error
        try:
            return Manifest.model_validate_json(body)
        except ValidationError as error:
            raise ParcelDamaged(backup=id, why="Its manifest cannot be read.") from error

    def fetch(self, manifest: Manifest, into: Path, parts: Sequence[Part] | None = None) -> None:
        """Fetch, check and unpack every part into `into`. Raises ParcelDamaged, StorageFailed, OSError."""
        into.mkdir(parents=True, exist_ok=True)

        def one(part: Part) -> None:
            with self.fetched(part, manifest.id) as parcel:
                unpack_tree(parcel.path, into, self.key, backup=manifest.id)

        with ThreadPoolExecutor(WORKERS, thread_name_prefix="fetch") as pool:
            list(pool.map(one, manifest.parts if parts is None else parts))

    def check(self, manifest: Manifest) -> None:
        """Compare every object with its digest, without unpacking. Raises ParcelDamaged, StorageFailed."""
        for part in manifest.parts:
            with self.fetched(part, manifest.id):
                pass

    def remove(self, manifest: Manifest) -> None:
        """Forget a backup: its manifest first, so that no half of it is ever taken for one."""
        self.storage.remove(f"backups/{manifest.id}/manifest.age")
        for key in self.storage.list(f"backups/{manifest.id}"):
            self.storage.remove(key)

    def prove(self, proof: Proof) -> None:
        """Keep a proof beside its backup."""
        self._put_sealed(f"backups/{proof.backup}/proof.age", proof.model_dump_json())

    def proof(self, id: str) -> Proof | None:
        try:
            return Proof.model_validate_json(self._fetch_sealed(f"backups/{id}/proof.age", id))
        except (ObjectMissing, ParcelDamaged, ValidationError):
            return None

    # --- WAL --------------------------------------------------------------------------------------------------

    def wal(self, era: str) -> dict[str, str]:
        """Key of each archived segment and history file of an era."""
        return {found[1]: key for key in self.storage.list(f"wal/{era}") if (found := _WAL.fullmatch(key))}

    def tails(self, era: str) -> dict[str, list[str]]:
        """By segment, the keys of its beginnings that lie here, the longest last: those of finished segments too."""
        found: dict[str, list[tuple[str, str]]] = {}
        for key in self.storage.list(f"wal/{era}"):
            if known := _TAIL.fullmatch(key):
                found.setdefault(known[1], []).append((known[2], key))
        return {name: [key for _, key in sorted(keys)] for name, keys in found.items()}

    def put_wal(self, era: str, file: Path) -> None:
        """Archive one segment; one that is there already is left. Raises StorageFailed."""
        self._put_packed(f"wal/{era}/{file.name}-{sha256(file)}.parcel", file)

    def put_tail(self, era: str, segment: str, data: bytes) -> str:
        """Keep the beginning of an unfinished segment; its key. Raises StorageFailed."""
        key = tail_key(era, segment, data)
        file = self.scratch / f"{era}-{segment}.{self.name}.tail"
        try:
            file.write_bytes(data)
            self._put_packed(key, file)
        finally:
            file.unlink(missing_ok=True)
        return key

    def _put_packed(self, key: str, file: Path) -> None:
        part = self.scratch / f"{key.replace('/', '-')}.{self.name}.out"
        try:
            pack_file(file, part, self.key)
            self.storage.put(key, part)
        finally:
            part.unlink(missing_ok=True)

    def fetch_wal(self, era: str, first: str, into: Path) -> dict[str, ParcelDamaged]:
        """Fetch every segment of an era from `first` on, with its history files; those that were left out as damaged, by name.

        Raises StorageFailed; ParcelDamaged for a history file, without which nobody knows which segments count.

        The beginning of the segment after the last finished one comes as `<segment>.partial`. Of a segment that lies beside as well, the
        copies are tried one after the other; another that does not answer is passed over.
        """
        damaged: dict[str, ParcelDamaged] = {}
        into.mkdir(parents=True, exist_ok=True)
        places: dict[str, list[tuple[Repository, str]]] = {}
        tails: list[tuple[str, str, Repository]] = []
        for repository in (self, *self.beside):
            try:
                whole, begun = repository.wal(era), repository.tails(era)
            except StorageFailed:
                if repository is self:
                    raise
                continue
            for name, key in whole.items():
                if name.endswith(".history") or name[8:] >= first[8:]:
                    places.setdefault(name, []).append((repository, key))
            tails += [(name, keys[-1], repository) for name, keys in begun.items()]
        name, key, holder = max(tails, key=lambda tail: tail[:2], default=("", "", self))  # the longest of the last: keys hold lengths
        if name and name not in places and name[8:] >= first[8:]:
            places[f"{name}.partial"] = [(holder, key)]

        def one(item: tuple[str, list[tuple[Repository, str]]]) -> None:
            problem: Exception | None = None
            for repository, key in item[1]:
                try:
                    repository._fetch_segment(era, item[0], key, into / item[0])
                except (StorageFailed, ParcelDamaged) as error:
                    problem = problem or error
                else:
                    return
            if not isinstance(problem, ParcelDamaged) or item[0].endswith(".history"):
                raise problem or ObjectMissing(target=self.name, why=f"{item[0]} is not there.")
            (into / item[0]).unlink(missing_ok=True)
            damaged[item[0]] = problem

        with ThreadPoolExecutor(WORKERS, thread_name_prefix="fetch-wal") as pool:
            list(pool.map(one, sorted(places.items())))
        return dict(sorted(damaged.items()))

    def _fetch_segment(self, era: str, name: str, key: str, into: Path) -> None:
        sealed = self.scratch / f"{era}-{name}.{secrets.token_hex(4)}.in"
        try:
            self.storage.fetch(key, sealed)
            unpack_file(sealed, into, self.key, backup=f"the WAL segment {name}")
            if sha256(into) != key[-71:-7]:
                raise ParcelDamaged(backup=f"the WAL segment {name}", why=f"{key} is not what was written.")
        finally:
            sealed.unlink(missing_ok=True)

    # --- the key ----------------------------------------------------------------------------------------------

    def publish_key(self, vault_key: bytes) -> None:
        """Keep the backup key here, wrapped by the vault key."""
        self._put(KEY, wrap(self.key, vault_key))

    def holds_key(self) -> bool:
        """Whether there is a wrapped key here."""
        try:
            read_object(self.storage, KEY, self.scratch)
        except ObjectMissing:
            return False
        return True

    # --- small things -----------------------------------------------------------------------------------------

    def fetched(self, part: Part, backup: str) -> _Fetched:
        """A checked object in a scratch file, for a `with` block. Raises ParcelDamaged, StorageFailed."""
        return _Fetched(self, part, backup)

    def _put_sealed(self, key: str, body: str) -> None:
        signed = json.dumps({"body": body, "mac": self.key.sign(body.encode())})
        self._put(key, self.key.seal(signed.encode()))

    def _fetch_sealed(self, key: str, backup: str) -> str:
        data = read_object(self.storage, key, self.scratch)
        try:
            signed = json.loads(self.key.open(data))
            if self.key.sign(str(signed["body"]).encode()) != signed["mac"]:
                raise ParcelDamaged(backup=backup, why=f"{key} was not made by this home.")
            return str(signed["body"])
        except (ValueError, KeyError, TypeError) as error:
            raise ParcelDamaged(backup=backup, why=f"{key} cannot be read.") from error

    def _put(self, key: str, data: bytes) -> None:
        file = self.scratch / f"{key.replace('/', '-')}.{secrets.token_hex(4)}.out"
        file.write_bytes(data)
        try:
            self.storage.put(key, file)
        finally:
            file.unlink(missing_ok=True)


class _Fetched:
    """A checked object in a scratch file, for as long as it is needed."""

    def __init__(self, repository: Repository, part: Part, backup: str) -> None:
        self.repository, self.part, self.backup = repository, part, backup
        self.path = repository.scratch / f"{part.key.replace('/', '-')}.{secrets.token_hex(4)}.in"

    def __enter__(self) -> _Fetched:
        name = self.part.key.rsplit("/", 1)[1]
        try:
            self.repository.storage.fetch(self.part.key, self.path)
            check(self.path, self.part, backup=self.backup, name=name)
        except ObjectMissing as error:
            raise ParcelDamaged(backup=self.backup, why=f"{name} is not on the target {self.repository.name} any more.") from error
        except BaseException:
            self.path.unlink(missing_ok=True)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        remove_tree(self.path)


def tail_key(era: str, segment: str, data: bytes) -> str:
    """Where the beginning of an unfinished segment lies: its length and its digest are in its name."""
    return f"wal/{era}/{segment}.{len(data):08x}-{hashlib.sha256(data).hexdigest()}.parcel"


def read_object(storage: Storage, key: str, scratch: Path) -> bytes:
    """A small object's content. Raises ObjectMissing, StorageFailed."""
    file = scratch / f"{key.replace('/', '-')}.{secrets.token_hex(4)}.read"
    try:
        storage.fetch(key, file)
        return file.read_bytes()
    finally:
        file.unlink(missing_ok=True)


def found_key(storage: Storage, vault_keys: Sequence[bytes], scratch: Path) -> BackupKey:
    """The backup key that a target holds, opened by one of the vault keys. Raises BackupKeyWrong, BackupMissing, StorageFailed."""
    try:
        wrapped = read_object(storage, KEY, scratch)
    except ObjectMissing as error:
        raise BackupMissing(
            f"The target {storage.name} holds no backups of a home.",
            "Name the folder or remote that was given to `homeport backup add-target`.",
        ) from error
    last: Exception | None = None
    for vault_key in vault_keys:
        try:
            return unwrap(wrapped, vault_key)
        except Exception as error:  # noqa: BLE001 (the last one is raised)
            last = error
    raise last or BackupMissing("No vault key was given.", "Give it with `--vault-key-file`.")
