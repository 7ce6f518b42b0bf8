"""What pgbouncer is told, which engine serves, and what an add-on may use: all decided without starting anything."""

from __future__ import annotations

from pathlib import Path

from homeport.drivers.addons.keeping import memory_limit
from homeport.drivers.addons.postgres import doors, settings
from homeport.drivers.addons.postgres.certificates import self_made
from homeport.drivers.addons.postgres.engines import Engine, Engines
from homeport.drivers.toolchains.toolchains import Toolchains
from homeport.model.addon import Pooling, Postgres

UPSTREAM = ("127.78.1.2", 5432)


def engines(tmp_path: Path, *system: Engine) -> Engines:
    found = Engines(Toolchains(tmp_path, search=[]), system=[])
    found.__dict__["all"] = (*found.all, *system)
    return found


def of(major: int, *extensions: str) -> Engine:
    return Engine(major=major, source="system", bin=Path("/x"), extensions=frozenset(extensions))


def test_a_pool_is_for_this_machine_and_a_gate_for_networks_with_tls() -> None:
    """Neither lets the keeper in over a network; prepared statements are kept where the version can."""
    pool = doors.pool("127.78.1.2", 6432, Pooling(size=7))
    text = doors.ini(pool, UPSTREAM, (1, 18))
    assert "pool_mode = transaction\ndefault_pool_size = 7\nmax_db_connections = 7" in text
    assert "max_prepared_statements" not in text
    assert "max_prepared_statements" in doors.ini(pool, UPSTREAM, (1, 21, 0))
    gate = doors.gate(15000, ["203.0.113.0/24"])
    assert "client_tls_sslmode = require" in doors.ini(gate, UPSTREAM, (1, 18))
    assert "listen_addr = 0.0.0.0" in doors.ini(gate, UPSTREAM, (1, 18))
    lines = doors.hba(gate).splitlines()
    assert lines[1:3] == [f"host all {doors.KEEPER} 0.0.0.0/0 reject", f"host all {doors.KEEPER} ::/0 reject"]
    assert lines[3:] == ["hostssl all all 203.0.113.0/24 scram-sha-256"]
    assert doors.gate(1, ["fd00::/8"]).host == "*"


def test_names_are_quoted_for_pgbouncer() -> None:
    """A quote in a role's name ends nothing."""
    assert doors.users([('a"b', "SCRAM-SHA-256$x")]).splitlines()[1] == '"a""b" "SCRAM-SHA-256$x"'


def test_a_pool_has_room_at_the_server() -> None:
    """A pool larger than the usual limit raises it; slow statements are logged from the milliseconds asked for."""
    text = settings.conf(settings.Tuning(major=18, memory=256 << 20, host="127.0.0.1", port=5432, pool=300, slow=100))
    assert f"max_connections = '{300 + settings.SPARE}'" in text
    assert "log_min_duration_statement = '100'" in text


def test_a_certificate_names_the_machine() -> None:
    """Key and certificate are PEM, and the name is shortened to what a certificate holds."""
    key, certificate = self_made("x" * 80, names=("server.example",))
    assert key.startswith("-----BEGIN PRIVATE KEY")
    assert certificate.startswith("-----BEGIN CERTIFICATE")


def test_migrations_decide_the_engine_where_they_can(tmp_path: Path) -> None:
    """An engine with what they make is preferred; where none has it the plan notes it, and refuses nothing."""
    found = engines(tmp_path, of(15, "pg_trgm", "plpgsql"))
    choice = found.choose(Postgres(extensions_made=("pg_trgm",)))
    assert choice.engine == of(15, "pg_trgm", "plpgsql")
    assert "its migrations make pg_trgm" in choice.notes[0]
    wanted = found.choose(Postgres(version="16", extensions_made=("pg_trgm",)))
    assert wanted.engine is not None
    assert (wanted.engine.major, wanted.problems) == (16, ())
    assert "which no PostgreSQL here has that fits" in wanted.notes[0]
    assert found.choose(Postgres(extensions_made=("vector",))).notes == ()
    assert found.choose(Postgres(extensions_wanted=("pg_trgm", "vector"))).problems


def test_data_moves_to_the_nearest_engine_that_has_what_is_missing(tmp_path: Path) -> None:
    """Never to an older version; to the newest when nothing is missing; nowhere when nothing is better."""
    found = engines(tmp_path, of(15, "pg_trgm"), of(17, "pg_trgm", "vector"), of(18, "pg_trgm", "vector"))
    bundled = {engine.major: engine for engine in found.all if engine.source == "bundled"}
    assert found.successor(bundled[16], {"pg_trgm"}, "") == of(17, "pg_trgm", "vector")
    assert found.successor(bundled[18], {"pg_trgm"}, "") == of(18, "pg_trgm", "vector")
    assert found.successor(bundled[16], {"vector"}, "") == bundled[18]
    assert found.successor(bundled[18], {"vector"}, "") == bundled[18]
    assert found.successor(bundled[18], {"vector"}, "17") is None
    assert found.successor(bundled[16], {"postgis"}, "") is None


def test_a_named_size_is_a_limit() -> None:
    """What a file names is held to; without a name the smallest size only tunes."""
    assert memory_limit(Postgres(plan="standard-0")) == 4 << 30
    assert memory_limit(Postgres(memory=100 << 20)) == 100 << 20
    assert memory_limit(Postgres(plan="of my own")) is None
