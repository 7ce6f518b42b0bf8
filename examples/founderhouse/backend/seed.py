#!/usr/bin/env python3
"""Puts the founders, startups and documents of backend/data into the database, once.

Runs only with SEED_DEMO_DATA=true (or --force). Ids follow from the content, so a second run adds nothing.
"""

import asyncio
import json
import logging
import sys
import time
import uuid
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.config import get_settings
from app.core import logging as json_logging
from app.core.security import hash_password
from app.database import Database
from app.models import Base, Document, Startup, User
from app.services.embeddings import embed
from app.services.startups import slug_of

DATA = Path(__file__).resolve().parent / "data"
SPACE = uuid.UUID("6b0f5a3e-52c7-5d5c-9a44-2f1f4a1d6f11")
PASSWORD = "founders-demo-password"  # public, like the data

log = logging.getLogger("app.seed")


def read(name: str) -> list[dict]:
    return [json.loads(line) for line in (DATA / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def ident(*parts: object) -> uuid.UUID:
    return uuid.uuid5(SPACE, "/".join(map(str, parts)))


def user_rows() -> list[dict]:
    hashed = hash_password(PASSWORD)
    return [{"id": ident("user", f["email"]), "password_hash": hashed, **f} for f in read("founders")]


def startup_rows(users: list[dict]) -> list[dict]:
    columns = ("name", "sector", "stage", "country", "founded", "summary")
    return [
        {"id": ident("startup", s["name"]), "owner_id": users[s["owner"]]["id"], "slug": slug_of(s["name"]), **{c: s[c] for c in columns}}
        for s in read("startups")
    ]


def document_rows(startups: list[dict]) -> list[dict]:
    return [
        {
            "id": ident("document", number),
            "owner_id": startups[d["startup"]]["owner_id"],
            "startup_id": startups[d["startup"]]["id"],
            "embedding": embed(f"{d['title']}\n{d['body']}"),
            **{c: d[c] for c in ("kind", "visibility", "title", "body")},
        }
        for number, d in enumerate(read("documents"))
    ]


async def add(session: AsyncSession, model: type[Base], rows: list[dict]) -> int:
    """How many of the rows were not there before."""
    if not rows:
        return 0
    result = await session.execute(insert(model).values(rows).on_conflict_do_nothing().returning(model.id))
    return len(result.all())


async def seed(database: Database) -> dict[str, int]:
    users = user_rows()
    startups = startup_rows(users)
    documents = document_rows(startups)
    added = {"users": 0, "startups": 0, "documents": 0}
    async with database.session() as session:
        added["users"] = await add(session, User, users)
    for user in users:  # each row is written as its owner: the policies allow nothing else
        async with database.session(user["id"]) as session:
            for model, rows in ((Startup, startups), (Document, documents)):
                mine = [row for row in rows if row["owner_id"] == user["id"]]
                added[model.__tablename__] += await add(session, model, mine)
    return added


async def main() -> None:
    settings = get_settings()
    json_logging.configure(settings.log_level, settings.log_json)
    if not settings.seed_demo_data and "--force" not in sys.argv[1:]:
        log.info("not seeded: SEED_DEMO_DATA is off")
        return
    began = time.perf_counter()
    database = Database(settings)
    try:
        added = await seed(database)
    finally:
        await database.close()
    log.info("seeded", extra={**added, "seconds": round(time.perf_counter() - began, 2)})


if __name__ == "__main__":
    asyncio.run(main())
