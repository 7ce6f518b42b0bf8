"""The tables, as SQLAlchemy Core sees them. Migrations under `migrations/` create them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
)


class UtcDateTime(TypeDecorator[datetime]):
    """A moment in UTC; SQLite forgets the zone, so it is put back on reading."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Any) -> datetime | None:  # noqa: ARG002
        return value.astimezone(UTC) if value is not None else None

    def process_result_value(self, value: datetime | None, dialect: Any) -> datetime | None:  # noqa: ARG002
        return value.replace(tzinfo=UTC) if value is not None and value.tzinfo is None else value


metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

environments = Table(
    "environments",
    metadata,
    Column("project", String(63), primary_key=True),
    Column("environment", String(63), primary_key=True),
    Column("origin", Text, nullable=False, default=""),
    Column("live", Integer),
    Column("previous", Integer),
    Column("next_number", Integer, nullable=False, default=1),
    Column("account", Integer),
    Column("stopped", Boolean, nullable=False, default=False),
    Column("scale", JSON, nullable=False, default=dict),
    Column("created_at", UtcDateTime, nullable=False),
)

releases = Table(
    "releases",
    metadata,
    Column("project", String(63), primary_key=True),
    Column("environment", String(63), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("state", String(16), nullable=False),
    Column("body", Text, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("created_by", Text, nullable=False, default=""),
    Column("live_at", UtcDateTime),
    Column("reason", Text, nullable=False, default=""),
)

deploys = Table(
    "deploys",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("project", String(63), nullable=False),
    Column("environment", String(63), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("status", String(16), nullable=False),
    Column("request", JSON, nullable=False),
    Column("result", JSON),
    Column("number", Integer),
    Column("actor", Text, nullable=False, default=""),
    Column("requested_at", UtcDateTime, nullable=False),
    Column("finished_at", UtcDateTime),
    Column("watch_until", UtcDateTime),
    Index(None, "project", "environment", "status"),
)

instances = Table(
    "instances",
    metadata,
    Column("id", String(200), primary_key=True),
    Column("project", String(63), nullable=False),
    Column("environment", String(63), nullable=False),
    Column("service", String(63), nullable=False),
    Column("number", Integer, nullable=False),
    Column("ordinal", Integer, nullable=False),
    Column("role", String(16), nullable=False),
    Column("host", String(45), nullable=False, default=""),
    Column("port", Integer, nullable=False, default=0),
    Column("state", String(16), nullable=False, default="new"),
    Column("restarts", Integer, nullable=False, default=0),
    Column("crashes", Integer, nullable=False, default=0),
    Column("detail", Text, nullable=False, default=""),
    Column("started_at", UtcDateTime),
    Column("retire_at", UtcDateTime),
    Index(None, "project", "environment", "role"),
)

events = Table(
    "events",
    metadata,
    Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("at", UtcDateTime, nullable=False),
    Column("project", String(63), nullable=False, default=""),
    Column("environment", String(63), nullable=False, default=""),
    Column("kind", String(64), nullable=False),
    Column("actor", Text, nullable=False, default=""),
    Column("subject", Text, nullable=False, default=""),
    Column("text", Text, nullable=False, default=""),
    Column("data", JSON, nullable=False, default=dict),
    Index(None, "project", "environment", "seq"),
)

ledger = Table(
    "ledger",
    metadata,
    Column("kind", String(32), primary_key=True),
    Column("key", String(400), primary_key=True),
    Column("owner", String(200), nullable=False),
    Column("value", JSON, nullable=False, default=dict),
    Column("created_at", UtcDateTime, nullable=False),
    Column("tombstoned_at", UtcDateTime),
    Index(None, "owner"),
)

secrets = Table(
    "secrets",
    metadata,
    Column("project", String(63), primary_key=True),
    Column("environment", String(63), primary_key=True),
    Column("name", String(400), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("sealed", LargeBinary),
    Column("state", String(16), nullable=False),
    Column("source", String(32), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("created_by", Text, nullable=False, default=""),
    Column("note", Text, nullable=False, default=""),
)

audit = Table(
    "audit",
    metadata,
    Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("at", UtcDateTime, nullable=False),
    Column("actor", Text, nullable=False),
    Column("origin", Text, nullable=False, default=""),
    Column("action", String(32), nullable=False),
    Column("subject", Text, nullable=False),
    Column("previous", String(64), nullable=False),
    Column("digest", String(64), nullable=False, unique=True),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("name", Text, nullable=False),
    Column("digest", String(64), nullable=False, unique=True),
    Column("scopes", JSON, nullable=False, default=list),
    Column("created_at", UtcDateTime, nullable=False),
    Column("last_used_at", UtcDateTime),
    Column("expires_at", UtcDateTime),
    Column("revoked_at", UtcDateTime),
)

cron_runs = Table(
    "cron_runs",
    metadata,
    Column("id", String(250), primary_key=True),
    Column("project", String(63), nullable=False),
    Column("environment", String(63), nullable=False),
    Column("service", String(63), nullable=False),
    Column("number", Integer, nullable=False),
    Column("scheduled_for", UtcDateTime),
    Column("trigger", String(16), nullable=False),
    Column("status", String(16), nullable=False),
    Column("code", Integer),
    Column("detail", Text, nullable=False, default=""),
    Column("started_at", UtcDateTime),
    Column("finished_at", UtcDateTime),
    Index(None, "project", "environment", "service"),
)

secret_stores = Table(
    "secret_stores",
    metadata,
    Column("name", String(63), primary_key=True),
    Column("kind", String(32), nullable=False),
    Column("address", Text, nullable=False, default=""),
    Column("options", JSON, nullable=False, default=dict),
    Column("projects", JSON, nullable=False, default=list),
    Column("created_at", UtcDateTime),
    Column("created_by", Text, nullable=False, default=""),
)

backups = Table(
    "backups",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("project", String(63), nullable=False),
    Column("environment", String(63), nullable=False),
    Column("name", String(63), nullable=False),
    Column("taken_at", UtcDateTime, nullable=False),
    Column("size", BigInteger, nullable=False, default=0),
    Column("targets", JSON, nullable=False, default=list),
    Column("body", Text, nullable=False),
    Column("proven_at", UtcDateTime),
    Column("proof", JSON),
    Index(None, "project", "environment", "name"),
)

backup_targets = Table(
    "backup_targets",
    metadata,
    Column("name", String(63), primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("address", Text, nullable=False),
    Column("sealed", LargeBinary),
    Column("created_at", UtcDateTime, nullable=False),
)

settings = Table("settings", metadata, Column("key", String(64), primary_key=True), Column("value", JSON, nullable=False))
