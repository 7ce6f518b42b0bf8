"""Files of a project that its new databases are filled from: found in the source, and kept until they are used.

A release names them by content, and their content lies in `seeds/` of the home: the source is long gone when a database is made from an
older release.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from homeport.drivers.addons.base import Seed
from homeport.drivers.addons.filling import is_seed
from homeport.drivers.files import copy_file, sync_folder
from homeport.model.addon import AddOn, MariaDB, Postgres, SeedFile
from homeport.model.spec import Spec

MAX_FILES = 200
MAX_SIZE = 4 << 30
"""Bytes of one file."""


def with_seeds(spec: Spec, source: Path, home: Path | None) -> Spec:
    """The spec with the files that its databases are filled from; with a home their content is kept there."""
    addons: dict[str, AddOn] = {}
    for name, addon in spec.addons.items():
        wanted = wanted_of(addon)
        if not wanted:
            continue
        found = [(path, file) for path, file in _files(source, wanted) if is_seed(path)][:MAX_FILES]
        seeds = tuple(SeedFile(path=path, digest=_keep(file, home)) for path, file in found if file.stat().st_size <= MAX_SIZE)
        addons[name] = addon.model_copy(update={"seeds": seeds})
    return spec.model_copy(update={"addons": {**spec.addons, **addons}}) if addons else spec


def notes(addon: AddOn, source: Path) -> list[str]:
    """What an add-on's file wants it to be filled from and nobody runs, one sentence each."""
    wanted = wanted_of(addon)
    found = [f"there is no {path} in the source to fill it from" for path in wanted if _inside(source, path) is None]
    for path, file in _files(source, wanted):
        if path.endswith(".sh"):
            found.append(
                f"{path} is not run, for it counts on the image's own folders and tools: write it as .sql, or as a release command"
            )
        elif is_seed(path) and file.stat().st_size > MAX_SIZE:
            found.append(f"{path} is not run: it is larger than {MAX_SIZE >> 30} GiB")
    return found


def wanted_of(addon: AddOn) -> tuple[str, ...]:
    """What an add-on is filled from by its file: its own words, else what a Compose file mounts."""
    if not isinstance(addon, Postgres | MariaDB):
        return ()
    mounted = addon.extensions.get("init")
    return addon.init or tuple(str(path) for path in mounted if isinstance(path, str)) if isinstance(mounted, list | tuple) else addon.init


def seeds_of(addon: AddOn, home: Path) -> tuple[Seed, ...]:
    """The kept files of an add-on. A file that is gone is left out: it matters to new databases alone."""
    found = (Seed(path=seed.path, file=home / "seeds" / seed.digest) for seed in addon.seeds)
    return tuple(seed for seed in found if seed.file.is_file())


def _files(source: Path, wanted: Sequence[str]) -> Iterator[tuple[str, Path]]:
    """Every file that is meant, those of folders by name, as images order them."""
    for path in wanted:
        place = _inside(source, path)
        if place is None:
            continue
        entries = sorted(place.iterdir()) if place.is_dir() else [place]
        for entry in entries:
            inside = _inside(source, str(entry))
            if inside is not None and inside.is_file():
                yield str(entry.relative_to(source.resolve())), inside


def _inside(source: Path, path: str) -> Path | None:
    """A file or folder of the source; None when there is none, or it lies outside."""
    if "\0" in path:
        return None
    root = source.resolve()
    found = (root / path).resolve()
    return found if found.exists() and found.is_relative_to(root) else None


def _keep(file: Path, home: Path | None) -> str:
    with file.open("rb") as source:
        digest = hashlib.file_digest(source, "sha256").hexdigest()
    if home is None:
        return digest
    folder = home / "seeds"
    try:
        os.utime(folder / digest)  # young again: nothing takes it away before the release that names it is recorded
    except FileNotFoundError:
        folder.mkdir(mode=0o700, exist_ok=True)
        part = folder / f".{digest}.{os.getpid()}.part"
        part.unlink(missing_ok=True)
        copy_file(file, part)
        part.rename(folder / digest)
        sync_folder(folder)
    return digest
