"""SQLite files in the source are found where the source says so plainly, and put on a disk."""

from __future__ import annotations

import pytest

from homeport.blueprints.source import MemoryTree
from homeport.blueprints.sqlite import keep_sqlite, sqlite_files
from homeport.model.spec import Spec

DJANGO = """DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": BASE_DIR / "db.sqlite3"}}"""


@pytest.mark.parametrize(
    ("file", "text", "found"),
    [
        ("config/settings.py", DJANGO, ("db.sqlite3",)),
        ("config/settings/base.py", DJANGO.replace('BASE_DIR / "db.sqlite3"', "os.path.join(BASE_DIR, 'data/my.db')"), ("data/my.db",)),
        ("main.py", 'engine = create_engine("sqlite:///./app.db")', ("app.db",)),
        ("main.py", "URL = 'sqlite+aiosqlite:///app.db'", ("app.db",)),
        ("app.py", 'from flask_sqlalchemy import X\nURI = "sqlite:///shop.db"', ("shop.db", "instance/shop.db")),
        ("main.py", 'engine = create_engine("sqlite:////var/lib/app.db")', ()),
        ("main.py", 'engine = create_engine("sqlite:///../../etc/app.db")', ()),
        ("main.py", 'engine = create_engine("postgresql:///app.db")', ()),
        ("venv/lib/x.py", DJANGO, ()),
    ],
)
def test_files_are_found_where_the_source_names_them(file: str, text: str, found: tuple[str, ...]) -> None:
    """Django settings and SQLAlchemy addresses relative to the source count; absolute ones and other engines do not."""
    assert sqlite_files(MemoryTree({file: text}), "") == found


def test_a_service_without_a_disk_gets_one_and_is_told() -> None:
    """The disk holds the file, and a note says so; a service that names its own database or disk stays as it is."""
    spec = Spec.model_validate(
        {
            "name": "shop",
            "services": {
                "web": {"kind": "web"},
                "other": {"kind": "web", "env": {"DATABASE_URL": "x"}},
                "disk": {"kind": "web", "disks": [{"mount_path": "/data"}]},
            },
        }
    )
    kept, notes = keep_sqlite(spec, MemoryTree({"config/settings.py": DJANGO}))
    assert kept.services["web"].disks[0].files == ("db.sqlite3",) and len(notes) == 1
    assert kept.services["other"] == spec.services["other"] and kept.services["disk"] == spec.services["disk"]
    assert keep_sqlite(spec, MemoryTree({})) == (spec, ())
