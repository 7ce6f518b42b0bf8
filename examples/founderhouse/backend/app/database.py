"""The engine, and sessions that carry who is asking.

Row-level security decides in the database what a user sees: each transaction sets `app.user_id`
for its own length (SET LOCAL). Superusers bypass such policies, so when the connection has that
right (the postgres image's default user has) the transaction gives it up with SET LOCAL ROLE.
"""

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from app.config import Settings

APP_ROLE = "founderhouse_app"


class Database:
    def __init__(self, settings: Settings) -> None:
        self.engine = create_async_engine(
            settings.database_url.get_secret_value(),
            pool_size=settings.db_pool_size,
            max_overflow=settings.db_pool_size,
            pool_pre_ping=True,
            pool_recycle=1800,
            connect_args={
                "application_name": "founderhouse",
                "connect_timeout": 5,
                "options": f"-c statement_timeout={settings.db_statement_timeout_ms}",
            },
        )
        self._sessions = async_sessionmaker(self.engine, expire_on_commit=False)
        self._bypasses_rls: bool | None = None

    @asynccontextmanager
    async def session(self, user_id: uuid.UUID | None = None) -> AsyncIterator[AsyncSession]:
        """One transaction as `user_id` (None: nobody); committed when the block ends, rolled back on an error."""
        async with self._sessions() as session, session.begin():
            if await self._must_give_up_rights(session):
                await session.execute(text(f"SET LOCAL ROLE {APP_ROLE}"))
            await session.execute(text("SELECT set_config('app.user_id', :user_id, true)"), {"user_id": str(user_id or "")})
            yield session

    async def _must_give_up_rights(self, session: AsyncSession) -> bool:
        if self._bypasses_rls is None:
            query = text("SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user")
            self._bypasses_rls = bool((await session.execute(query)).scalar_one())
        return self._bypasses_rls

    async def ping(self) -> None:
        async with self.engine.connect() as connection:
            await connection.execute(text("SELECT 1"))

    async def close(self) -> None:
        await self.engine.dispose()
