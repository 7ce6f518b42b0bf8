"""Extensions that migrations make: found in the files people write them in, and nowhere else."""

from __future__ import annotations

import pytest

from homeport.blueprints.extensions import extensions_of, made_extensions, with_made_extensions
from homeport.blueprints.source import MemoryTree
from homeport.model.addon import Pooling, Postgres, Redis
from homeport.model.env import FromAddOn
from homeport.model.service import WebService
from homeport.model.spec import Spec


@pytest.mark.parametrize(
    ("path", "text", "wanted"),
    [
        ("a.sql", 'CREATE EXTENSION IF NOT EXISTS "uuid-ossp" WITH SCHEMA public;\ncreate extension pg_trgm;', ["uuid-ossp", "pg_trgm"]),
        ("a.sql", "-- CREATE EXTENSION hstore;\nCREATE EXTENSION plpgsql;", []),
        ("migrations/versions/1_init.py", "op.execute('CREATE EXTENSION IF NOT EXISTS citext')", ["citext"]),
        ("migrations/versions/2.py", 'op.execute("CREATE EXTENSION IF NOT EXISTS \\"uuid-ossp\\"")', ["uuid-ossp"]),
        ("app/migrations/0001.py", "operations = [TrigramExtension(), CreateExtension('postgis')]", ["postgis", "pg_trgm"]),
        ("db/schema.rb", '  enable_extension "pg_catalog.plpgsql"\n  enable_extension "hstore"', ["hstore"]),
        ("prisma/schema.prisma", 'extensions = [pgcrypto, uuidOssp(map: "uuid-ossp", schema: "x")]', ["pgcrypto", "uuid-ossp"]),
        ("db/migrate.ts", "await sql`CREATE EXTENSION IF NOT EXISTS unaccent`", ["unaccent"]),
    ],
)
def test_each_tool_has_its_words(path: str, text: str, wanted: list[str]) -> None:
    """SQL, Alembic, Django, Rails and Prisma each say it in their own way; comments say nothing."""
    assert extensions_of(path, text) == wanted


def test_only_migrations_are_read() -> None:
    """Test data, dependencies and ordinary programs decide nothing; hidden folders are not entered."""
    tree = MemoryTree({
        "tests/fixtures/a.sql": "CREATE EXTENSION hstore;",
        "node_modules/x/a.sql": "CREATE EXTENSION hstore;",
        ".git/a.sql": "CREATE EXTENSION hstore;",
        "app/main.py": "# how to CREATE EXTENSION hstore\nx = 'CREATE EXTENSION hstore'",
        "app/db/0001.sql": "CREATE EXTENSION pg_trgm;",
        "app/big/0002.sql": "x" * (2 << 20),
    })  # fmt: skip
    assert made_extensions(tree) == {"pg_trgm": "app/db/0001.sql"}


def test_databases_of_the_project_are_told() -> None:
    """PostgreSQL add-ons get the names, others are left as they are, and a project without a database is not searched."""
    tree = MemoryTree({"init.sql": "CREATE EXTENSION citext;"})
    spec = with_made_extensions(Spec(name="shop", addons={"db": Postgres(), "cache": Redis()}), tree)
    assert spec.addons["db"] == Postgres(extensions_made=("citext",))
    assert spec.addons["cache"] == Redis()
    assert with_made_extensions(Spec(name="shop"), tree) == Spec(name="shop")


def test_an_address_of_a_pool_asks_for_one() -> None:
    """A variable that wants a database's pool, as Render's `connectionPoolString` does, gives it one; how it pools stays as written."""
    env = {"DATABASE_URL": FromAddOn(addon="db", property="pooled-url"), "OTHER": FromAddOn(addon="log", property="url")}
    addons = {"db": Postgres(), "log": Postgres(), "own": Postgres(pooling=Pooling(size=3))}
    spec = Spec(name="shop", addons=addons, services={"web": WebService(env=env)})
    found = with_made_extensions(spec, MemoryTree({})).addons
    assert [getattr(found[name], "pooling", None) for name in addons] == [True, False, Pooling(size=3)]
