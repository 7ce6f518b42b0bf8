"""What people do with the add-ons of an environment: look at them, connect, rotate passwords, restart, upgrade."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from homeport.deploys.addon_keeper import ROTATION
from homeport.deploys.addons import consumers_of, resolve
from homeport.deploys.audit import Caller
from homeport.deploys.candidates import masker_for
from homeport.deploys.control import ControlPlane, ProjectNotFound
from homeport.deploys.external import PORTS, property_of, url_key, without_password
from homeport.drivers.addons.base import AddOnDriver, AddOnId, HasClient
from homeport.drivers.addons.errors import AddOnMissing
from homeport.drivers.addons.records import Place
from homeport.model.addon import AddOn, External, Temporal
from homeport.model.env import PlainValue
from homeport.model.errors import HomeportError
from homeport.model.release import Release
from homeport.model.views import AddOnView, ConnectionView, RotationView, SlowQueryView

KINDS = {"postgres": "PostgreSQL", "redis": "Valkey", "mariadb": "MariaDB", "temporal": "Temporal"}

LEFT = "the file names it no longer"
"""What is told of an add-on that stays, with its data, for a rollback or for good."""


class AddOnRefused(HomeportError):
    """What was asked of an add-on cannot be done with it."""

    code = "addon-refused"


class AddOnCare:
    """Answers and acts for the doors. Nothing here starts an add-on that nobody asked for."""

    def __init__(self, control: ControlPlane) -> None:
        self.control, self.platform, self.book = control, control.platform, control.platform.addons

    # --- looking ----------------------------------------------------------------------------------------------

    def all(self, project: str, environment: str) -> list[AddOnView]:
        """Every add-on of what is live. Raises ProjectNotFound."""
        release = self._live(project, environment)
        names = [*release.spec.addons, *self._left(release)]
        with ThreadPoolExecutor(max_workers=8, thread_name_prefix="inspect") as pool:
            return list(pool.map(lambda name: self._view(release, name), names))

    def info(self, project: str, environment: str, name: str) -> AddOnView:
        """One add-on. Raises ProjectNotFound."""
        release = self._live(project, environment)
        return self._view(release, name if name in self._left(release) else self._name(release, name))

    def logs(self, project: str, environment: str, name: str, tail: int = 100) -> list[str]:
        """The last lines its server wrote, masked. Raises ProjectNotFound, AddOnRefused, AddOnMissing."""
        release = self._live(project, environment)
        id, _, driver = self._own(release, self._name(release, name), what="Nothing is shown.")
        pins = [pinned for mine in release.secrets.values() for pinned in mine.values()]
        mask = masker_for(self.platform, project, environment, pins)
        return [mask(line) for line in driver.logs(id, tail)]

    def _left(self, release: Release) -> dict[str, AddOn]:
        """Add-ons that run and that the live release does not name any more."""
        found: dict[str, AddOn] = {}
        for row in self.platform.store.ledger.list("addon", f"{release.project}/{release.environment}"):
            name = str(row.value["addon"])
            record = Place(self.platform.home, AddOnId(project=release.project, environment=release.environment, name=name)).read()
            if name not in release.spec.addons and record is not None:
                found[name] = record.definition
        return found

    def _view(self, release: Release, name: str) -> AddOnView:
        left = name not in release.spec.addons
        definition = self._left(release)[name] if left else release.spec.addons[name]
        aliases = tuple(dict.fromkeys(alias for alias in (definition.title, *definition.aliases) if alias and alias != name))
        if isinstance(definition, External):
            return self._external(release, name, definition, aliases)
        id = AddOnId(project=release.project, environment=release.environment, name=name)
        driver = self.book.drivers.get(definition.kind)
        record = Place(self.platform.home, id).read()
        view = AddOnView(
            name=name, kind=definition.kind, state="missing", aliases=aliases, consumers=() if left else consumers_of(release, name)
        )
        if driver is None or record is None:
            return view
        try:
            seen = driver.inspect(id)
        except (HomeportError, OSError) as error:
            return view.model_copy(update={"state": "down", "detail": str(error)})
        silent = "problem" in seen.detail
        state = ("unwell" if silent else "running") if seen.running else "stopped" if record.wanted == "stopped" else "down"
        return view.model_copy(
            update={
                "engine": f"{KINDS.get(definition.kind, definition.kind)} {seen.version} ({record.source or 'bundled'})",
                "state": state,
                "detail": seen.detail.get("problem", LEFT if left else ""),
                "host": record.host,
                "port": record.port,
                "replicas": tuple(f"{record.host}:{port}" for port in record.replica_ports),
                "pool": f"{record.host}:{record.pool_port}" if record.pool_port else "",
                "gate": record.gate_port,
                "size": seen.size,
                "memory": seen.memory,
                "connections": seen.connections,
                "metrics": seen.metrics,
                "facts": seen.detail,
                "slow": tuple(SlowQueryView(**query.model_dump()) for query in seen.slow),
                "notes": tuple(driver.notes(definition) if left else self.book.notes(release.spec, name, release.environment)),
            }
        )

    def _external(self, release: Release, name: str, definition: External, aliases: tuple[str, ...]) -> AddOnView:
        health = self.book.check(release, name)
        url = definition.url.value if isinstance(definition.url, PlainValue) else ""
        port = property_of(url, "port") or "0"
        return AddOnView(
            name=name, kind=definition.type, engine="external", state=health.state, detail=health.detail, aliases=aliases,
            host=property_of(url, "host") or "", port=int(port),
            metrics={"check_milliseconds": health.milliseconds} if health.milliseconds else {},
        )  # fmt: skip

    # --- connecting -------------------------------------------------------------------------------------------

    def connect(self, project: str, environment: str, name: str, kind: str = "", *, reveal: bool = True, by: Caller) -> ConnectionView:
        """How to connect as the owner; who asked is written down first, in the audit log when it is with the password.

        Raises ProjectNotFound, AddOnRefused, AddOnFailed, AuditUnavailable.
        """
        release = self._live(project, environment)
        name = self._name(release, name, kind)
        definition = release.spec.addons[name]
        if kind and definition.kind != kind and not (isinstance(definition, External) and self._outside_kind(release, name) == kind):
            own = KINDS.get(definition.kind, getattr(definition, "type", ""))
            raise _refused(f"{name} is {own}, not {KINDS.get(kind, kind)}.", "Name another one: `homeport addons` lists them.")
        if reveal:
            self.platform.secrets.audit.write(by, "connect", f"{project}/{environment}/addon.{name}")
        self.platform.event(
            "addon.opened", f"{by.name} connected to {name}.", (project, environment), actor=by.name, subject=name, origin=by.origin
        )
        found = self._outside(release, name, definition) if isinstance(definition, External) else self._inside(release, name)
        return found if reveal else found.model_copy(update={"password": "", "url": without_password(found.url)})

    def _inside(self, release: Release, name: str) -> ConnectionView:
        kind = release.spec.addons[name].kind
        provisioned = self.book.current(release, name)
        owner = provisioned.credentials[""]
        driver = self.book.drivers[kind]
        client = driver.client(provisioned.id) if isinstance(driver, HasClient) else ""
        return ConnectionView(
            kind=kind, host=owner.host, port=owner.port, user=owner.user, password=owner.password, database=owner.database,
            url=owner.url, client=client,
        )  # fmt: skip

    def _outside(self, release: Release, name: str, definition: External) -> ConnectionView:
        url = self.book.url(release, name) or ""
        host, port = property_of(url, "host"), property_of(url, "port")
        if not host or not port:
            raise _refused(
                f"The address of {name} names no host and port.", f"Set it with `homeport env set {url_key(name)}`, which asks for it."
            )
        return ConnectionView(
            kind=definition.type, host=host, port=int(port), user=property_of(url, "user") or "", url=url,
            password=property_of(url, "password") or "", database=property_of(url, "database") or "",
        )  # fmt: skip

    def _outside_kind(self, release: Release, name: str) -> str:
        scheme = (self.book.url(release, name) or "").partition(":")[0].partition("+")[0]
        kinds = {5432: "postgres", 6379: "redis", 3306: "mariadb"}
        return kinds.get(PORTS.get(scheme, 0), "")

    # --- changing ---------------------------------------------------------------------------------------------

    def rotate(self, project: str, environment: str, name: str, *, deploy: bool, by: Caller) -> RotationView:
        """New passwords for the owner and every service. The old ones work until nothing that was started with them is left.

        With `deploy` the live release is put live once more, so that its services get them.

        Raises ProjectNotFound, AddOnRefused, AddOnFailed, AuditUnavailable, EnvironmentBusy.
        """
        release = self._live(project, environment)
        name = self._name(release, name)
        id, definition, driver = self._own(release, name)
        if definition.kind == "temporal":
            raise _refused(f"{name} is a Temporal server, which knows no passwords.", "Nothing needs to be done.")
        fixed = self.book.fixed_password(release, name)
        if fixed == "the project's file":
            raise _refused(f"The password of {name} is written in the project's file.", "Change it there and deploy, or take it out of it.")
        if fixed:
            fix = f"Set it anew with `homeport env set {fixed}`, which asks for it, and deploy."
            raise _refused(f"The password of {name} is what the project's file calls {fixed}.", fix)
        with self._alone("rotation", id, by) as operation:
            release = self._live(project, environment)  # nothing else goes live from here on
            self.book.awake(release, name)
            consumers = ("", *consumers_of(release, name))
            for consumer in consumers:
                self._rotate_one(id, driver, definition.kind, consumer, by)
            self.book.forget(id)
            self.platform.event("addon.rotated", f"The passwords of {name} were changed.", release, actor=by.name, subject=name)
            queued = self._hand_out(release, name, by, operation) if deploy and self.platform.secrets.opens(release) else ""
        self.control.supervisor.wake()
        return RotationView(addon=name, consumers=consumers, deploy=queued)

    def _rotate_one(self, id: AddOnId, driver: AddOnDriver, kind: str, consumer: str, by: Caller) -> None:
        """One new password, kept in the vault, its predecessor noted for retirement. A crash in between leaves the old one in use."""
        ledger, key = self.platform.store.ledger, f"{id.slug}/{consumer or 'owner'}"
        ledger.release(ROTATION, key)
        fresh = driver.rotate(id, consumer)
        entry = f"addon.{id.name}/{consumer or 'owner'}.password"
        self.platform.secrets.set(id.project, id.environment, entry, fresh.password, by=by.name, source="rotated", origin=by.origin)
        ledger.claim(
            ROTATION, key, f"{id.project}/{id.environment}", project=id.project, environment=id.environment, addon=id.name, engine=kind,
            consumer=consumer, at=datetime.now(UTC).isoformat(),
        )  # fmt: skip

    def _hand_out(self, release: Release, name: str, by: Caller, operation: str) -> str:
        """The live release once more under a new number: same source and artifacts, values of now.

        A deploy that waits already hands them out itself, and is not put aside for this one.
        """
        where, releases = (release.project, release.environment), self.platform.store.releases
        waiting = [row.id for row in self.platform.store.deploys.open() if (row.project, row.environment) == where]
        if waiting:
            return waiting[-1]
        number = releases.reserve(release.project, release.environment)
        again = {"id": f"r{number}", "number": number, "created_at": datetime.now(UTC), "created_by": by.name}
        releases.record(release.model_copy(update=again))
        row = self.control.request_deploy(
            actor=by.name, project=release.project, environment=release.environment, release=number,
            reason=f"passwords of {name} rotated", confirmed=True, within=operation,
        )  # fmt: skip
        return row.id

    def restart(self, project: str, environment: str, name: str, *, by: Caller) -> AddOnView:
        """Stop it and start it again. Connections break off. Raises ProjectNotFound, AddOnRefused, AddOnFailed, EnvironmentBusy."""
        release = self._live(project, environment)
        name = self._name(release, name)
        id, _, driver = self._own(release, name)
        with self._alone("restart", id, by):
            driver.stop(id)
            driver.start(id)
        self.platform.event("addon.restarted", f"{name} was restarted by hand.", release, actor=by.name, subject=name)
        return self._view(release, name)

    def upgrade(self, project: str, environment: str, name: str, version: str, *, by: Caller) -> AddOnView:
        """Move to another version; on failure the old one runs again.

        Raises ProjectNotFound, AddOnRefused, UpgradeFailed, AddOnFailed, EnvironmentBusy.
        """
        release = self._live(project, environment)
        name = self._name(release, name)
        id, _, driver = self._own(release, name)
        with self._alone("upgrade", id, by):
            before = driver.inspect(id).version
            driver.upgrade(id, version)
            self.book.forget(id)
        after = self._view(release, name)
        self.platform.event("addon.upgraded", f"{name}: {before} to {after.engine}.", release, actor=by.name, subject=name)
        return after

    @contextlib.contextmanager
    def _alone(self, kind: str, id: AddOnId, by: Caller) -> Iterator[str]:
        """Have the environment for one operation, whose id is given: deploys of it wait until the block ends. Raises EnvironmentBusy."""
        operations = self.platform.store.operations
        began = operations.begin([(kind, id.project, id.environment)], what="Nothing was changed.", actor=by.name, addon=id.name)
        try:
            yield began[0].id
        finally:
            operations.end(began[0].id)
            self.control.released(id.project, id.environment)

    # --- which one --------------------------------------------------------------------------------------------

    def _live(self, project: str, environment: str) -> Release:
        release = self.platform.live_release(project, environment)
        if release is None:
            raise ProjectNotFound(
                what="Nothing was done.", why=f"{project} has nothing live in {environment}.", fix="Deploy it with `homeport up`."
            )
        return release

    def _name(self, release: Release, name: str, kind: str = "") -> str:
        """The add-on a person means; without a name the only one (of a kind)."""
        addons = release.spec.addons
        if name:
            found = resolve(release.spec, name)
            if found is None:
                raise ProjectNotFound(
                    what="Nothing was done.",
                    why=f"{release.project} has no add-on {name[:80]!r} in {release.environment} (it has: {', '.join(addons) or 'none'}).",
                    fix="Name one of those; another environment is named with --env.",
                )
            return found
        fit = [n for n, a in addons.items() if kind in ("", a.kind)]
        fit = fit or [n for n, a in addons.items() if isinstance(a, External) and self._outside_kind(release, n) == kind]
        if len(fit) == 1:
            return fit[0]
        if fit:
            raise ProjectNotFound(
                what="Nothing was done.", why=f"{release.project} has several: {', '.join(fit)}.", fix="Say which one, by its name."
            )
        label = f"{KINDS.get(kind, kind)} add-on" if kind else "add-on"
        raise ProjectNotFound(
            what="Nothing was done.", why=f"{release.project} has no {label} in {release.environment}.",
            fix="`homeport addons` lists what it has; another environment is named with --env.",
        )  # fmt: skip

    def _own(self, release: Release, name: str, *, what: str = "Nothing was changed.") -> tuple[AddOnId, AddOn, AddOnDriver]:
        """An add-on that Homeport runs. Raises AddOnRefused, AddOnMissing."""
        definition = release.spec.addons[name]
        id = AddOnId(project=release.project, environment=release.environment, name=name)
        if isinstance(definition, External) or (isinstance(definition, Temporal) and definition.address):
            raise AddOnRefused(what=what, why=f"{name} is run by somebody else.", fix="Do it where it runs.")
        driver = self.book.drivers.get(definition.kind)
        if driver is None or Place(self.platform.home, id).read() is None:
            raise AddOnMissing(id.slug)
        return id, definition, driver


def _refused(why: str, fix: str) -> AddOnRefused:
    return AddOnRefused(what="Nothing was changed.", why=why, fix=fix)
