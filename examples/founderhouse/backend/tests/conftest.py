import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

os.environ.setdefault("ENV_FILE", str(Path(__file__).resolve().parents[2] / ".env.test"))

import httpx
import pytest
from sqlalchemy import make_url, text

from app.config import get_settings
from app.core.redis import Store
from app.database import Database
from app.main import create_app

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def migrated() -> None:
    """The schema, made by the migrations: what production runs is what is tested."""
    name = make_url(get_settings().database_url.get_secret_value()).database or ""
    if not name.endswith("_test"):
        pytest.exit(f"The tests empty their database: {name!r} does not end with _test.", returncode=2)
    command = [sys.executable, "-m", "alembic", "-c", "backend/alembic.ini"]
    subprocess.run([*command, "downgrade", "base"], cwd=ROOT, check=True, timeout=60)
    subprocess.run([*command, "upgrade", "head"], cwd=ROOT, check=True, timeout=60)


@pytest.fixture(scope="session")
async def database(migrated: None) -> AsyncIterator[Database]:
    database = Database(get_settings())
    yield database
    await database.close()


@pytest.fixture(scope="session")
async def store() -> AsyncIterator[Store]:
    store = Store(get_settings().redis_url.get_secret_value())
    yield store
    await store.close()


@pytest.fixture
async def clean(database: Database, store: Store) -> None:
    async with database.engine.begin() as connection:
        await connection.execute(text("TRUNCATE users, startups, documents CASCADE"))
    await store.redis.flushdb()


@pytest.fixture
async def client(clean: None, database: Database, store: Store) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app()
    app.state.database, app.state.store = database, store
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


class Account:
    """A registered user with a client that is logged in."""

    def __init__(self, client: httpx.AsyncClient, email: str) -> None:
        self.client, self.email, self.headers = client, email, {}

    async def open(self) -> "Account":
        password = "a long enough password"
        answer = await self.client.post("/api/v1/auth/register", json={"email": self.email, "name": "Test", "password": password})
        assert answer.status_code == 201, answer.text
        answer = await self.client.post("/api/v1/auth/login", json={"email": self.email, "password": password})
        self.tokens = answer.json()
        self.headers = {"Authorization": f"Bearer {self.tokens['access_token']}"}
        return self

    async def request(self, method: str, path: str, **kwargs) -> httpx.Response:
        return await self.client.request(method, f"/api/v1{path}", headers=self.headers, **kwargs)


@pytest.fixture
async def ada(client: httpx.AsyncClient) -> Account:
    return await Account(client, "ada@example.com").open()


@pytest.fixture
async def bob(client: httpx.AsyncClient) -> Account:
    return await Account(client, "bob@example.com").open()
