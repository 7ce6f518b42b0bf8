"""Finds every deployment file of a project, and makes one spec of them."""

from __future__ import annotations

from fnmatch import fnmatchcase

from homeport.blueprints.dialect import Reader
from homeport.blueprints.merge import Conflict, merge
from homeport.blueprints.overrides import for_environment
from homeport.blueprints.registry import DIALECTS, PIPELINES, reader
from homeport.blueprints.source import SourceTree, SubTree
from homeport.blueprints.sqlite import keep_sqlite
from homeport.model.base import Frozen, slug
from homeport.model.errors import BlueprintInvalid
from homeport.model.reading import Reading
from homeport.model.service import Service
from homeport.model.spec import Spec

COMPLEMENTS = PIPELINES | {"cloudflared"}
"""Dialects that say something beside what runs: they never decide, and are always read."""
MAX_FOLDERS = 40
"""Subfolders looked into for files of their own."""


class Skipped(Frozen):
    """A file that was found and not used."""

    file: str
    dialect: str
    reason: str


class ProjectReading(Frozen):
    """A project as all of its files together say."""

    spec: Spec
    """What runs in the environment that was asked for."""
    document: Spec
    """The same before the environment's patch, with the patches of all environments."""
    environment: str
    file: str
    """The file that decided; `.` when the source itself did."""
    dialect: str
    readings: tuple[Reading, ...] = ()
    """Every file that was used, the deciding one first."""
    conflicts: tuple[Conflict, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    warnings: tuple[str, ...] = ()
    dialects: dict[str, str] = {}
    """By service, the dialect of the file that describes it."""


def read_project(tree: SourceTree, *, environment: str = "production", prefer: str = "") -> ProjectReading:
    """Read a project. `prefer` names the file (`docker-compose.yml`) or the dialect (`compose`, `detect`) that shall decide.

    Raises BlueprintInvalid when the deciding file cannot be read, when `prefer` names none, or when nothing at all is recognised.
    """
    found, skipped = _files(tree)
    if prefer:
        found = _preferring(found, prefer, tree)
    readings, failed = _read(tree, found)
    folders, more = _subfolders(tree, readings, prefer)
    warnings = [warning for reading in readings for warning in reading.warnings]
    conflicts: list[Conflict] = []
    if readings:
        spec, conflicts, said = merge(readings)
        warnings += said
    else:
        spec = Spec(name=slug(tree.name))
    owner = next((reading.dialect for reading in readings if reading.spec.services), "detect")
    dialects = dict.fromkeys(spec.services, owner)
    spec, said_by = _with_folders(spec, folders)
    dialects |= said_by
    if folders and not readings:
        spec, said = _with_the_rest(spec, tree, [folder for folder, _ in folders])
        warnings += said
    deciding = [reading for reading in (*readings, *(r for _, r in folders)) if reading.dialect not in COMPLEMENTS]
    if not deciding or not (spec.services or spec.addons):
        detected = _detector().read(tree, ".")
        deciding.append(detected)
        readings = [*readings, detected]
        warnings += detected.warnings
        spec = spec.model_copy(update={"services": detected.spec.services})
    from homeport.blueprints.detect import fill

    spec, notes = fill(spec, tree)
    first = deciding[0]
    wanted, kept = keep_sqlite(for_environment(spec, environment), tree)
    return ProjectReading(
        spec=wanted,
        document=spec,
        environment=environment,
        file=first.file,
        dialect=first.dialect,
        readings=(*readings, *(reading for _, reading in folders)),
        conflicts=tuple(conflicts),
        dialects={name: dialects.get(name, "detect") for name in wanted.services},
        skipped=(*skipped, *failed, *more),
        warnings=(*warnings, *notes, *kept, *(f"{item.file} was not used: {item.reason}" for item in failed)),
    )


def find_files(tree: SourceTree) -> list[tuple[str, str]]:
    """Every file of the root folder that a platform would read, as (dialect, path), the deciding one first."""
    return _files(tree)[0]


def _files(tree: SourceTree) -> tuple[list[tuple[str, str]], list[Skipped]]:
    names = tree.list()
    found: list[tuple[int, int, str, str]] = []
    skipped: list[Skipped] = []
    for order, (dialect, entry) in enumerate(DIALECTS.items()):
        if not entry.reader or not any(fnmatchcase(name, pattern) for name in names for pattern in entry.names):
            continue
        one = reader(dialect)
        candidates = one.candidates(tree) if one is not None else []
        for number, path in enumerate(candidates):
            if number and dialect not in PIPELINES:
                skipped.append(Skipped(file=path, dialect=dialect, reason=f"{candidates[0]} stands before it"))
            elif one is not None:
                found.append((one.precedence, order, dialect, path))
    return [(dialect, path) for _, _, dialect, path in sorted(found)], skipped


def _preferring(found: list[tuple[str, str]], prefer: str, tree: SourceTree) -> list[tuple[str, str]]:
    if prefer == "detect":
        return [(dialect, path) for dialect, path in found if dialect in PIPELINES]
    chosen = [item for item in found if prefer in item or item[1].rpartition("/")[2] == prefer]
    if not chosen and tree.text(prefer) is not None:
        dialect = dialect_of(prefer, tree.text(prefer) or "")
        chosen = [(dialect, prefer)] if dialect else []
    if not chosen:
        known = ", ".join(f"{path} ({dialect})" for dialect, path in found) or "none"
        raise _nothing(prefer, f"no file of this project is called {prefer!r} or written in that dialect (found: {known})")
    return chosen + [item for item in found if item not in chosen]


def _nothing(file: str, message: str) -> BlueprintInvalid:
    from homeport.blueprints.document import invalid

    return invalid(file, "", message, fix="Name one of the files that were found, or leave the choice out.")


def dialect_of(file_name: str, text: str) -> str:
    """The dialect of a file by its name and, where names are shared, its text; empty when nobody recognises it."""
    for dialect in DIALECTS:
        one = reader(dialect) if DIALECTS[dialect].reader else None
        if one is not None and one.recognises(file_name, text):
            return dialect
    return ""


def _detector() -> Reader:
    found = reader("detect")
    if found is None:
        raise LookupError("the dialect `detect` has no reader")
    return found


def _read(tree: SourceTree, found: list[tuple[str, str]]) -> tuple[list[Reading], list[Skipped]]:
    """Read each file. Only the deciding one must be valid: another that is broken is named and left out."""
    readings: list[Reading] = []
    failed: list[Skipped] = []
    decided = False
    for dialect, path in found:
        one = reader(dialect)
        if one is None:
            continue
        try:
            reading = one.read(tree, path)
        except BlueprintInvalid as error:
            if not decided and dialect not in COMPLEMENTS:
                raise
            failed.append(Skipped(file=path, dialect=dialect, reason=error.why))
            continue
        readings.append(reading)
        decided = decided or (dialect not in COMPLEMENTS and bool(reading.spec.services))
    readings.sort(key=lambda reading: reading.dialect in COMPLEMENTS)
    return readings, failed


def _subfolders(tree: SourceTree, readings: list[Reading], prefer: str) -> tuple[list[tuple[str, Reading]], list[Skipped]]:
    """Files of subfolders. They are used where no service of the root's files already stands for that folder."""
    from homeport.blueprints.detect.files import Folder

    used: list[tuple[str, Reading]] = []
    skipped: list[Skipped] = []
    roots = {service.root for reading in readings for service in reading.spec.services.values()}
    roots |= {service.build.context for reading in readings for service in reading.spec.services.values() if service.build.context}
    top = Folder(tree)
    folders = top.folders() + [f"{name}/{sub}" for name in ("apps", "services", "packages") for sub in Folder(tree, name).folders()]
    for folder in folders[:MAX_FOLDERS]:
        sub = SubTree(tree, folder)
        for dialect, path in [item for item in _files(sub)[0] if item[0] not in COMPLEMENTS][:1]:
            file = f"{folder}/{path}"
            if prefer and prefer not in (file, dialect):
                continue
            covered = "" in roots or any(root == folder or root.startswith(f"{folder}/") for root in roots)
            if covered and readings:
                skipped.append(Skipped(file=file, dialect=dialect, reason=f"{readings[0].file} describes this folder"))
                continue
            one = reader(dialect)
            if one is None:
                continue
            try:
                reading = one.read(sub, path)
            except BlueprintInvalid as error:
                if readings:
                    skipped.append(Skipped(file=file, dialect=dialect, reason=error.why))
                    continue
                raise BlueprintInvalid(file=file, problems=error.problems, text=error.text) from error
            used.append((folder, reading.model_copy(update={"file": file, "spec": _moved(reading.spec, folder)})))
    return used, skipped


def _with_the_rest(spec: Spec, tree: SourceTree, folders: list[str]) -> tuple[Spec, list[str]]:
    """The applications of folders that have no file of their own, beside those that have one."""
    from homeport.blueprints.detect import detect_services

    services = dict(spec.services)
    said: list[str] = []
    for name, found in detect_services(tree).items():
        root = found.service.root
        if root and not any(root == folder or root.startswith(f"{folder}/") for folder in folders) and name not in services:
            services[name] = found.service
            said += [f"{name}: {note}" for note in found.notes]
    return spec.model_copy(update={"services": services}), said


def _moved(spec: Spec, folder: str) -> Spec:
    """A spec read in a subfolder, with its paths seen from the root."""
    return spec.model_copy(update={"services": {name: _moved_service(service, folder) for name, service in spec.services.items()}})


def _moved_service(service: Service, folder: str) -> Service:
    def inside(path: str) -> str:
        return f"{folder}/{path}" if path else folder

    build = service.build
    changed = {"context": inside(build.context), "dockerfile": inside(build.dockerfile or "Dockerfile")}
    return service.model_copy(
        update={
            "root": inside(service.root),
            "build": build.model_copy(update=changed) if build.builder == "dockerfile" else build,
            "env_files": tuple(file.model_copy(update={"path": inside(file.path)}) for file in service.env_files),
        }
    )


def _with_folders(spec: Spec, folders: list[tuple[str, Reading]]) -> tuple[Spec, dict[str, str]]:
    """The spec with what the folders' files describe, and the dialect of each service that came so."""
    services, addons, groups, routes = dict(spec.services), dict(spec.addons), dict(spec.env_groups), list(spec.routes)
    dialects: dict[str, str] = {}
    for folder, reading in folders:
        renamed: dict[str, str] = {}
        for name, service in reading.spec.services.items():
            own = name if name not in services and len(folders) == 1 else slug(folder.rpartition("/")[2])
            own = own if own not in services else slug(f"{folder}-{name}")
            renamed[name] = own
            services[own] = service
            dialects[own] = reading.dialect
        addons = {**reading.spec.addons, **addons}
        groups = {**reading.spec.env_groups, **groups}
        routes += [route.model_copy(update={"service": renamed.get(route.service, route.service)}) for route in reading.spec.routes]
    changes = {"services": services, "addons": addons, "env_groups": groups, "routes": tuple(routes)}
    return (spec.model_copy(update=changes) if folders else spec), dialects
