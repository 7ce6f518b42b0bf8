"""Outside secret stores of a home: which there are, and what a deploy fetches from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from homeport.deploys.audit import ITSELF, Caller
from homeport.deploys.config import Fetch
from homeport.deploys.secrets import SecretBook
from homeport.drivers.vault.seal import SecretDoesNotOpen, way_out
from homeport.drivers.vault.stores.base import Kind, Reference, SecretStore, StoreConfig, invalid
from homeport.drivers.vault.stores.registry import DRIVERS
from homeport.model.env import ExternalValue
from homeport.model.views import StoreView
from homeport.store.stores import StoreRow

PLACE = ("", "stores")
"""Project and environment of the stores' own credentials in the vault; no project has an empty name."""

MAX_STORES = 50


class OutsideStores:
    """Keeps stores and reads from them."""

    def __init__(self, book: SecretBook, drivers: Mapping[Kind, Callable[[StoreConfig], SecretStore]] = DRIVERS) -> None:
        self.book, self.rows, self.drivers = book, book.store.secret_stores, drivers

    def put(self, config: StoreConfig, *, projects: tuple[str, ...] = (), by: Caller) -> StoreView:
        """Add a store or change it; an empty credential leaves the one it has. Raises AuditUnavailable, SecretStoreInvalid."""
        if self.rows.get(config.name) is None and len(self.rows.list()) >= MAX_STORES:
            raise invalid(config.name, f"there are {MAX_STORES} stores already")
        self.book.audit.write(by, "store-put", f"/stores/{config.name} ({config.kind})")
        if config.credential:
            self.book.set(*PLACE, config.name, config.credential, by=by.name, origin=by.origin)
        row = StoreRow(config.name, config.kind, config.address, dict(config.options), list(projects), datetime.now(UTC), by.name)
        self.rows.put(row)
        return self._view(row)

    def remove(self, name: str, *, by: Caller) -> bool:
        """Forget a store and its credential. Values that releases pinned stay. Raises AuditUnavailable."""
        self.book.audit.write(by, "store-remove", f"/stores/{name}")
        self.book.unset(*PLACE, name, by=by.name, origin=by.origin)
        return self.rows.remove(name)

    def list(self) -> list[StoreView]:
        """Every store with what keeps it from working here."""
        return [self._view(row) for row in self.rows.list()]

    def fetcher(self, project: str, environment: str, root: Path, *, by: Caller = ITSELF) -> Fetch:
        """What a deploy of a project reads with; the same value of a store is asked for once, and that is written down first."""
        seen: dict[ExternalValue, str] = {}
        drivers: dict[str, SecretStore] = {}

        def fetch(value: ExternalValue) -> str:
            key = value.model_copy(update={"description": ""})
            if key not in seen:
                if value.store not in drivers:
                    drivers[value.store] = self._driver(self._allowed(project, value))
                what = f"{value.store}: {value.path}" + (f"#{value.key}" if value.key else "")
                self.book.audit.write(by, "fetch", f"{project}/{environment} from {what}")
                reference = Reference(path=value.path, key=value.key, version=value.version, root=root)
                seen[key] = drivers[value.store].read(reference)
            return seen[key]

        return fetch

    def _allowed(self, project: str, value: ExternalValue) -> StoreRow:
        row = self.rows.get(value.store)
        if row is None or (row.projects and project not in row.projects):
            raise invalid(value.store, f"it is not known here, or {project} may not use it; an admin adds it with `homeport stores add`")
        return row

    def _driver(self, row: StoreRow) -> SecretStore:
        kind: Kind = row.kind  # type: ignore[assignment]
        credential = self.book.reveal(*PLACE, row.name) or ""
        config = StoreConfig(name=row.name, kind=kind, address=row.address, options=row.options, credential=credential)
        return self.drivers[kind](config)

    def _view(self, row: StoreRow) -> StoreView:
        values = {k: v for k, v in row.__dict__.items() if k != "projects"}
        try:
            problems = tuple(self._driver(row).problems())
        except SecretDoesNotOpen as error:
            problems = (f"its credential does not open with this vault; {way_out(error.place)}",)
        return StoreView(**values, projects=tuple(row.projects), problems=problems)
