"""How those who use a cluster connect to it: services through the pool, where there is one, the owner directly."""

from __future__ import annotations

from urllib.parse import quote

from homeport.drivers.addons.base import Credentials
from homeport.drivers.addons.postgres import roles
from homeport.drivers.addons.records import Record


def credentials_for(record: Record, found: roles.Layout, consumer: str, slot: str, password: str) -> Credentials:
    """How a consumer connects: services through the pool, where there is one, the owner directly."""
    login = found.login(consumer, slot)
    direct = credentials_of(record.host, record.port, found.database, login, password)
    if not (consumer and record.pool_port and getattr(record.definition, "pooling", False)):
        return direct
    pooled = credentials_of(record.host, record.pool_port, found.database, login, password)
    past = {"DATABASE_URL_UNPOOLED": direct.url, "DIRECT_URL": direct.url}
    direct = direct.model_copy(update={"env": {**direct.env, **past}})
    return pooled.model_copy(update={"env": {**pooled.env, **past}, "direct": direct})


def credentials_of(host: str, port: int, database: str, user: str, password: str) -> Credentials:
    url = f"postgresql://{quote(user, safe='')}:{quote(password, safe='')}@{host}:{port}/{quote(database, safe='')}"
    env = {"DATABASE_URL": url, "PGHOST": host, "PGPORT": str(port), "PGUSER": user, "PGPASSWORD": password, "PGDATABASE": database}
    return Credentials(user=user, password=password, host=host, port=port, database=database, url=url, env=env)
