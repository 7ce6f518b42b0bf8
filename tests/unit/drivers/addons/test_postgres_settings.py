"""What a PostgreSQL cluster is told, as text: settings, who gets in, names of roles, and which engine serves it."""

from __future__ import annotations

from pathlib import Path

import pytest

from homeport.drivers.addons.errors import AddOnFailed
from homeport.drivers.addons.postgres import roles, settings
from homeport.drivers.addons.postgres.backups import SEGMENT, Target
from homeport.drivers.addons.postgres.engines import Engine, Engines
from homeport.drivers.addons.postgres.recovering import outcome_of
from homeport.drivers.toolchains.toolchains import Toolchains
from homeport.model.addon import Postgres

MB = 1 << 20


def conf(**changes: object) -> dict[str, str]:
    tuning = settings.Tuning(major=18, memory=256 * MB, host="127.78.0.1", port=5432, archive="/bin/sh ../archive.sh").model_copy(
        update=changes
    )
    lines = settings.conf(tuning).splitlines()[1:]
    return dict(line.split(" = ", 1) for line in lines)


def test_shared_memory_follows_the_plan() -> None:
    """A quarter of the plan is shared from 1 GB on, an eighth below; connections stay within what the memory bears."""
    assert conf()["shared_buffers"] == "'32MB'"
    assert conf(memory=4096 * MB)["shared_buffers"] == "'1024MB'"
    assert conf()["max_connections"] == "'100'"
    assert int(conf(memory=64 << 30)["max_connections"].strip("'")) == 500


def test_small_clusters_do_without_io_workers() -> None:
    """Version 18 starts no worker processes for reading where memory is small; version 16 knows no such setting."""
    assert conf()["io_method"] == "'sync'"
    assert conf(memory=2048 * MB)["io_method"] == "'worker'"
    assert "io_method" not in conf(major=16)


def test_a_file_may_tune_but_not_open() -> None:
    """Settings of the file are taken over, except those that decide who gets in and what runs."""
    given = conf(
        parameters={"work_mem": "32MB", "archive_command": "rm -rf /", "listen_addresses": "*", "bad name": "1", "jit": "on\nfsync=off"}
    )
    assert given["work_mem"] == "'32MB'"
    assert given["archive_command"] == "'/bin/sh ../archive.sh'"
    assert given["listen_addresses"] == "'127.78.0.1'"
    assert given["jit"] == "'off'"
    assert len(settings.refused({"fsync": "off", "shared_preload_libraries": "x", "x'": "1", "a\nb": ""})) == 4


def test_values_cannot_leave_their_quotes() -> None:
    """Quotes and backslashes are escaped as the configuration reads them."""
    assert settings.quoted("it's \\ here") == "'it''s \\\\ here'"


def test_only_homeport_is_superuser() -> None:
    """The superuser gets in over the socket by account alone, and never over the network."""
    lines = settings.hba().splitlines()[1:]
    assert lines[0] == f"local all {settings.ADMIN} peer map=homeport"
    assert lines.index(f"host all {settings.ADMIN} all reject") < lines.index("host all all 127.0.0.0/8 scram-sha-256")
    assert settings.outside(["10.0.0.0/8", "nonsense", "127.0.0.1/32", "0.0.0.0/0"]) == ["10.0.0.0/8", "0.0.0.0/0"]
    assert not any("trust" in line for line in lines)
    assert settings.ident(["root", "root", "bad name", "homeport-addon"]).splitlines()[1:] == [
        f"homeport root {settings.ADMIN}",
        f"homeport homeport-addon {settings.ADMIN}",
    ]


def test_roles_are_named_after_the_file() -> None:
    """The file's names are used; without them the add-on's. Long names stay apart."""
    named = roles.layout("db", Postgres(database="shop", user="postgres"))
    assert (named.database, named.owner, named.login("", "a"), named.login("", "b")) == ("shop", "postgres", "postgres", "postgres_b")
    assert roles.layout("main-db", Postgres()) == roles.Layout(database="main_db", owner="main_db")
    assert named.login("web", "a") == "web_a"
    assert roles.Layout(database="web", owner="web").login("web", "a") == "svc_web_a"
    long = [named.login("s" * 62 + end, "a") for end in "xy"]
    assert len(set(long)) == 2
    assert all(len(name) <= 63 for name in long)


@pytest.mark.parametrize(
    "definition", [Postgres(user="pg_monitor"), Postgres(user=settings.ADMIN), Postgres(database="template1"), Postgres(user="é" * 40)]
)
def test_names_the_engine_keeps_are_refused(definition: Postgres) -> None:
    """The plan stops before anything starts."""
    assert roles.problems(roles.layout("db", definition))


def test_a_verifier_tells_its_own_password_only() -> None:
    """The example of RFC 7677, section 3, in PostgreSQL's form."""
    known = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:"
    known += "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
    assert roles.matches(known, "pencil")
    assert not roles.matches(known, "pen")
    assert not roles.matches("", "")


def engines(tmp_path: Path, *system: Engine) -> Engines:
    found = Engines(Toolchains(tmp_path, search=[]), system=[])
    found.__dict__["all"] = (*found._bundled(), *system)
    return found


SYSTEM = Engine(major=15, source="system", bin=Path("/x"), extensions=frozenset({"plpgsql", "pg_trgm", "citext"}), tls=True, icu=True)


@pytest.mark.parametrize(
    ("definition", "major", "source"),
    [
        (Postgres(), 18, "bundled"),
        (Postgres(version="16.4"), 16, "bundled"),
        (Postgres(version="15"), 15, "system"),
        (Postgres(version="17"), 18, "bundled"),
        (Postgres(extensions_wanted=("pgvector",)), 18, "bundled"),
        (Postgres(extensions_wanted=("pg_trgm",)), 15, "system"),
    ],
)
def test_the_engine_that_can_is_chosen(tmp_path: Path, definition: Postgres, major: int, source: str) -> None:
    """The wanted version, else the nearest newer one; the system's where extensions need it."""
    found = engines(tmp_path, SYSTEM).choose(definition).engine
    assert found is not None
    assert (found.major, found.source) == (major, source)


def test_what_no_engine_has_is_said_before_anything_starts(tmp_path: Path) -> None:
    """The sentence names what each engine lacks."""
    choice = engines(tmp_path, SYSTEM).choose(Postgres(extensions_wanted=("pg_trgm", "vector")))
    assert choice.engine is None
    assert "PostgreSQL 18 (bundled) lacks pg_trgm" in choice.problems[0]
    assert "PostgreSQL 15 (system) lacks vector" in choice.problems[0]
    assert engines(tmp_path).choose(Postgres(version="19")).problems
    assert engines(tmp_path).choose(Postgres(version="14")).notes


def test_the_end_of_a_recovery_is_read_from_its_log() -> None:
    """A target past the archive is an answer with the latest time there is; anything else stays an error."""
    error = AddOnFailed(name="db", why="ended")
    lines = [
        "LOG:  last completed transaction was at log time 2026-11-20 14:05:07.5+00",
        "FATAL:  recovery ended before configured recovery target was reached",
    ]
    found = outcome_of(lines, error)
    assert found.state == "past-archive"
    assert found.latest is not None and found.latest.isoformat() == "2026-11-20T14:05:07.500000+00:00"
    with pytest.raises(AddOnFailed):
        outcome_of(["FATAL:  out of memory"], error)
    assert Target(xid="77").settings() == {"recovery_target_xid": "77"}
    assert SEGMENT.fullmatch("0000000100000000000000AF")
