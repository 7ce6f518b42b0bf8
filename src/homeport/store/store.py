"""The store's front: one object that holds the nouns."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from homeport.store.audit import AuditRows
from homeport.store.backups import Backups
from homeport.store.crons import CronRuns
from homeport.store.database import Database
from homeport.store.deploys import Deploys
from homeport.store.environments import Environments
from homeport.store.events import Events
from homeport.store.instances import Instances, put_roles
from homeport.store.keys import ApiKeys
from homeport.store.ledger import Ledger
from homeport.store.operations import Operations
from homeport.store.releases import Releases, put_live
from homeport.store.secrets import SecretRows
from homeport.store.stores import SecretStores


class Store:
    """Every noun over one database. Methods are single transactions unless they say otherwise."""

    def __init__(self, url: str) -> None:
        self.database = Database(url)
        self.environments = Environments(self.database)
        self.releases = Releases(self.database)
        self.deploys = Deploys(self.database)
        self.instances = Instances(self.database)
        self.events = Events(self.database)
        self.ledger = Ledger(self.database)
        self.secrets = SecretRows(self.database)
        self.keys = ApiKeys(self.database)
        self.audit = AuditRows(self.database)
        self.secret_stores = SecretStores(self.database)
        self.crons = CronRuns(self.database)
        self.backups = Backups(self.database)
        self.operations = Operations(self.database)

    @classmethod
    def open(cls, home: Path, url: str = "") -> Store:
        """Open (and migrate) the store of a home. Raises StoreUnavailable."""
        home.mkdir(parents=True, exist_ok=True, mode=0o755)
        store = cls(url or f"sqlite:///{home / 'homeport.db'}")
        store.database.migrate()
        if not url:
            (home / "homeport.db").chmod(0o600)
        return store

    def switch(self, project: str, environment: str, number: int, *, retire_at: datetime, keep_warm: Sequence[str]) -> None:
        """A release goes live with its instances, all or nothing. Twice is once."""
        with self.database.transaction() as db:
            put_live(db, project, environment, number)
            put_roles(db, project, environment, number, retire_at=retire_at, keep_warm=keep_warm)

    def close(self) -> None:
        self.database.close()


def now() -> datetime:
    """This moment, in UTC."""
    return datetime.now(UTC)
