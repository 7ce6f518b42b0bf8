"""Taking back the data of an add-on that a removal or a restore has put aside."""

from __future__ import annotations

from datetime import UTC, datetime

from homeport.deploys.audit import Caller
from homeport.deploys.control import ControlPlane, ProjectNotFound
from homeport.deploys.retention import UNDO
from homeport.deploys.tombstones import exchange, graves, since
from homeport.drivers.addons.base import AddOnId
from homeport.model.views import KeptView, UndoneView


class AddOnUndo:
    """Lists what is kept of an environment's add-ons, and takes it back."""

    def __init__(self, control: ControlPlane) -> None:
        self.control, self.platform, self.book = control, control.platform, control.platform.addons

    def kept(self, project: str, environment: str) -> list[KeptView]:
        """What can be taken back, the newest first. An environment that was removed is asked by its name."""
        found, now = [], datetime.now(UTC)
        for grave, record in graves(self.platform.home):
            began = since(self.platform, grave)
            if (record.id.project, record.id.environment) == (project, environment) and began + UNDO > now:
                found.append(KeptView(tombstone=grave.name, addon=record.id.name, kind=record.kind, since=began, until=began + UNDO))
        return sorted(found, key=lambda view: (view.since, view.tombstone), reverse=True)

    def undo(self, project: str, environment: str, name: str, tombstone: str = "", *, by: Caller) -> UndoneView:
        """Bring an add-on's data back from the newest tombstone, or from the one that is named.

        Raises ProjectNotFound, EnvironmentBusy, AddOnFailed.
        """
        wanted = [view for view in self.kept(project, environment) if view.addon == name and tombstone in ("", view.tombstone)]
        if not wanted:
            others = sorted({view.addon for view in self.kept(project, environment)})
            raise ProjectNotFound(
                what="Nothing was changed.",
                why=f"Nothing is kept of {name[:80]!r} in {project}/{environment}"
                + (f" under {tombstone[:120]!r}." if tombstone else f" (of these there is: {', '.join(others) or 'none'})."),
                fix="`homeport addons kept` lists what can be brought back. Data is kept for 7 days.",
            )
        grave, kind = wanted[0].tombstone, wanted[0].kind
        operations, id = self.platform.store.operations, AddOnId(project=project, environment=environment, name=name)
        began = operations.begin(
            [("undo", project, environment)], what="Nothing was changed.", actor=by.name, addon=name, engine=kind, tombstone=grave
        )
        try:
            before = {path.name for path, _ in graves(self.platform.home)}
            exchange(self.platform, id, kind, grave)
            former = [path.name for path, record in graves(self.platform.home) if record.id == id and path.name not in before]
            self._fit(id)
        finally:
            operations.end(began[0].id)
            self.control.released(project, environment)
        self.platform.event(
            "addon.taken-back", f"{name} has its data of {grave} again.", (project, environment), actor=by.name, subject=name
        )
        self.control.supervisor.wake()
        return UndoneView(addon=name, tombstone=grave, former=former[0] if former else "")

    def _fit(self, id: AddOnId) -> None:
        """Give it the logins and settings of what is live: passwords may have changed since."""
        self.book.forget(id)
        release = self.platform.live_release(id.project, id.environment)
        if release is not None and id.name in release.spec.addons:
            self.book.current(release, id.name)
