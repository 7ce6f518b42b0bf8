"""Builds artifacts that run as processes, and static sites, straight on the machine.

An artifact lies at `artifacts/<id>/` from the first byte and counts only once `artifact.json`, written last, is there: what a
crash left behind is removed and built again. `<id>` is the sha256 of everything that goes in, so nothing is built twice.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Collection, Mapping
from datetime import timedelta
from pathlib import Path

from homeport.drivers.builders.base import Builder, BuildRequest, Log
from homeport.drivers.builders.errors import BuildCancelled, BuildFailed, DiskLow
from homeport.drivers.builders.installs import Tools, install_node, python_commands
from homeport.drivers.builders.layers import LayerStore, boot_id
from homeport.drivers.builders.plan import BuildPlan, Planner
from homeport.drivers.builders.recipe import Command, NodeInstall, PythonInstall
from homeport.drivers.builders.run import Runner, StepFailed, remove_dead_groups, sweep
from homeport.drivers.builders.tree import clear, keep_site, place, published, tree_digest
from homeport.drivers.files import copy_tree, freeze, give, locked, prune_digests, remove_tree, world_reachable, write_atomic
from homeport.drivers.sources.snapshot import digest_of
from homeport.drivers.toolchains.toolchains import Toolchains
from homeport.model.errors import HomeportError
from homeport.model.release import Artifact
from homeport.model.service import StaticService

RESERVE = 1 << 30
"""Bytes of disk that are left free for databases and logs."""
_DENIED = ("permission denied", "eacces", "read-only file system", "erofs", "eperm")


class ProcessBuilder:
    """Python, Node, both together, and static sites. `network` are the variables that lead to package registries."""

    def __init__(self, home: Path, toolchains: Toolchains, *, network: Mapping[str, str] | None = None, reserve: int = RESERVE) -> None:
        self.artifacts, self.cache = home / "artifacts", home / "cache" / "builds"
        self.toolchains, self.network, self.reserve = toolchains, dict(network or {}), reserve
        self.layers = LayerStore(home / "layers")
        self.planner = Planner(toolchains)
        for folder in (self.artifacts, self.cache):
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o711)

    def key(self, request: BuildRequest) -> str:
        """The id of the artifact that `build` would return. Raises UnknownLanguage."""
        return self.planner.plan(request).key

    def build(self, request: BuildRequest, log: Log, cancelled: Callable[[], bool] = lambda: False) -> Artifact:
        """The artifact, from the cache when complete. Raises BuildFailed, BuildTimedOut, BuildCancelled, DiskLow, UnknownLanguage."""
        plan = self.planner.plan(request)
        found = self._load(plan.key)
        if found is not None:
            return found
        try:
            with locked(self.artifacts / f".{plan.key}.lock", cancelled):
                return self._load(plan.key) or self._build(plan, log, cancelled)
        except InterruptedError:
            raise BuildCancelled(service=request.service) from None

    def prune(self, keep: Collection[str], young: timedelta) -> list[str]:
        """Remove artifacts that are not kept, and layers that no remaining one needs, unless used within `young`.

        `keep` are the ids that releases name. Returns `artifacts/<id>` and `layers/<key>`.
        """
        removed = [f"artifacts/{name}" for name in prune_digests(self.artifacts, keep, young)]
        needed: set[str] = set()
        for record in self.artifacts.glob("*/artifact.json"):
            try:
                needed |= set(json.loads(record.read_bytes())["layers"])
            except (OSError, ValueError, KeyError):
                continue
        return removed + [f"layers/{name}" for name in prune_digests(self.layers.folder, needed, young)]

    def end_strays(self) -> None:
        """End every process that has the TMPDIR of a build, and all that is in control groups of dead control planes.

        Who merely stands in one of the folders may be a person.
        """
        sweep((), self.cache)
        remove_dead_groups()

    def _load(self, key: str) -> Artifact | None:
        """The complete artifact. After a restart of the machine its content is checked once: a power cut loses writes."""
        record = self.artifacts / key / "artifact.json"
        try:
            data = json.loads(record.read_bytes())
            artifact = Artifact.model_validate(data["artifact"])
        except (OSError, ValueError, KeyError):
            return None
        if any(not self.layers.ready(layer) for layer in data["layers"]):
            return None
        if data["boot"] != boot_id():
            if tree_digest(Path(artifact.folder), set(artifact.linked)) != data["content"]:
                return None
            write_atomic(record, json.dumps({**data, "boot": boot_id()}).encode())
        os.utime(record.parent)  # used now: `prune` goes by it
        return artifact.model_copy(update={"cached": True, "seconds": 0.0})

    def _build(self, plan: BuildPlan, log: Log, cancelled: Callable[[], bool]) -> Artifact:
        free = shutil.disk_usage(self.artifacts).free
        if free < self.reserve:
            raise DiskLow(folder=self.artifacts, free=free, reserve=self.reserve)
        started = time.monotonic()
        for note in plan.notes:
            log(f"note: {note}")
        tools = self._prepare(plan, log)
        try:
            artifact = self._try_twice(plan, tools, log, cancelled)
        except StepFailed as failure:
            remove_tree(self.artifacts / plan.key)
            raise BuildFailed(service=plan.request.service, why=failure.why, tail=failure.tail) from None
        except HomeportError:
            remove_tree(self.artifacts / plan.key)
            raise
        finally:
            remove_tree(tools.temporary)
        return self._record(plan, artifact, time.monotonic() - started)

    def _try_twice(self, plan: BuildPlan, tools: Tools, log: Log, cancelled: Callable[[], bool]) -> Artifact:
        """With shared packages first; with its own when a step turns out to change them, and from then on at once."""
        shared = [key for step, key, _ in plan.layers if isinstance(step, NodeInstall)] if plan.works else []
        if any(self.layers.changed(key, plan.steps_digest) for key in shared):
            return self._attempt(plan.private(), tools, log, cancelled)
        try:
            return self._attempt(plan, tools, log, cancelled)
        except StepFailed as failure:
            if not shared or not any(word in line.lower() for line in failure.tail for word in _DENIED):
                raise
        log("a build step changes installed packages: building again with packages of its own")
        artifact = self._attempt(plan.private(), tools, log, cancelled)
        for key in shared:
            self.layers.remember_change(key, plan.steps_digest)
        return artifact

    def _prepare(self, plan: BuildPlan, log: Log) -> Tools:
        """Install the toolchains that are chosen and not there yet."""
        folders: list[Path] = []
        if plan.node is not None:
            if plan.node.pinned and not plan.node.folder.exists():
                log(f"installing Node {plan.node.version}")
            for tool in plan.node_tools:
                folders.append(self.toolchains.prepare_node_tool(tool, plan.node))
            folders.append(self.toolchains.prepare_node(plan.node))
        user = plan.request.user
        cache = self.cache / ("own" if user is None else str(user))
        temporary = cache / "tmp" / plan.key[:16]
        for folder in (cache / "home", temporary):
            folder.mkdir(parents=True, exist_ok=True)
        cache.chmod(0o700)
        if user is not None:
            if not world_reachable(self.artifacts.parent):
                raise BuildFailed(
                    service=plan.request.service,
                    why=f"{self.artifacts.parent} cannot be reached by the account that builds and runs this project",
                    fix="Put the home where every account may pass (such as /var/lib/homeport), or `chmod o+x` the folders above it.",
                )
            for folder in (cache, cache / "home", cache / "tmp", temporary):
                if folder.stat().st_uid != user:
                    os.chown(folder, user, user)
        return Tools(
            temporary=temporary,
            uv=self.toolchains.uv,
            python=plan.python.executable if plan.python else None,
            folders=tuple(folders),
            cache=cache,
            network=self.network,
            berry=any(tool.name == "yarn" and not tool.version.startswith("1.") for tool in plan.node_tools),
        )

    def _attempt(self, plan: BuildPlan, tools: Tools, log: Log, cancelled: Callable[[], bool]) -> Artifact:
        target = self.artifacts / plan.key
        remove_tree(target)
        app = target / "app"
        app.mkdir(parents=True)
        for folder in (target, app):
            folder.chmod(0o755)
        request = plan.request
        layers = self._layers(plan, tools, log, cancelled)
        place(request.source, app, plan.files, link=not plan.works)
        here = app / request.definition.root
        here.mkdir(parents=True, exist_ok=True)
        linked = [self._lay(here, step, layer, plan) for step, layer in layers]
        venv = next((layer / "venv" for step, layer in layers if isinstance(step, PythonInstall)), None)
        if plan.works:
            venv = self._work(plan, tools, app, here, venv, log, cancelled) or venv
        if isinstance(request.definition, StaticService) or plan.recipe.publish:
            return self._finish_site(plan, target, here)
        linked += [path for path in self._own_packages(plan, here) if path not in linked]
        return self._describe(plan, tools, app, here, venv, tuple(str(path.relative_to(app)) for path in linked))

    def _layers(
        self, plan: BuildPlan, tools: Tools, log: Log, cancelled: Callable[[], bool]
    ) -> list[tuple[NodeInstall | PythonInstall, Path]]:
        found: list[tuple[NodeInstall | PythonInstall, Path]] = []
        for step, key, manifests in plan.layers:
            if not self.layers.ready(key):
                log(f"installing dependencies: {step.line}")
            folder = self.layers.ensure(
                key, step, manifests, tools, plan.request.env, lambda folder: self._runner(plan, folder, tools, log, cancelled), cancelled
            )
            found.append((step, folder))
        return found

    def _runner(self, plan: BuildPlan, folder: Path, tools: Tools, log: Log, cancelled: Callable[[], bool]) -> Runner:
        request = plan.request
        places = (folder, tools.temporary)
        return Runner(
            id=plan.key, service=request.service, limits=request.limits, user=request.user, log=log, cancelled=cancelled, places=places
        )

    def _lay(self, here: Path, step: NodeInstall | PythonInstall, layer: Path, plan: BuildPlan) -> Path:
        """Put a layer's folder where the service looks for it: a link, or a copy that build steps may add to."""
        source = layer / ("node_modules" if isinstance(step, NodeInstall) else "venv")
        target = here / step.folder / "node_modules" if isinstance(step, NodeInstall) else here / ".venv"
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_tree(target)
        if isinstance(step, PythonInstall) or not plan.works:
            target.symlink_to(source)
        else:
            safe = os.geteuid() != 0 or plan.request.user is not None  # root would write through a read-only file
            copy_tree(source, target, link=safe)
        return target

    def _work(
        self, plan: BuildPlan, tools: Tools, app: Path, here: Path, venv: Path | None, log: Log, cancelled: Callable[[], bool]
    ) -> Path | None:
        """Run the steps that are not layers, in order. Returns the virtual environment when the build made one of its own."""
        request = plan.request
        own = here / ".venv" if plan.python is not None and venv is None else None
        if request.user is not None:
            give(app, request.user)
        with self._runner(plan, app, tools, log, cancelled) as runner:
            if own is not None:
                remove_tree(own)
            for step in plan.steps:
                folder = here / step.folder
                if not folder.is_dir():
                    raise StepFailed(step.folder, f"the folder {step.folder} does not exist", runner.lines.tail)
                given = {**request.revision, **request.provided, **plan.recipe.env, **request.env}
                env = tools.environment(given, folder, own or venv)
                if isinstance(step, Command):
                    if own is not None:
                        self._make_venv(own, tools, runner, here, env)
                    log(f"building: {step.text}")
                    argv = ["/bin/sh", "-c", step.argv[0]] if step.script else list(step.argv)
                    runner.run(argv, folder, {**env, **step.env}, step.text)
                    continue
                log(f"installing dependencies: {step.line}")
                if isinstance(step, NodeInstall):
                    install_node(step, {path.name for path in folder.iterdir()}, tools, runner, folder, env)
                else:
                    self._install_python(plan, step, own or here / ".venv", tools, runner, folder, env)
        return own

    def _make_venv(self, venv: Path, tools: Tools, runner: Runner, here: Path, env: Mapping[str, str]) -> None:
        """An empty environment with pip, for commands that come before or instead of an install."""
        if not (venv / "bin" / "python").exists():
            argv = [str(tools.uv), "venv", "--quiet", "--no-config", "--seed", "--python", str(tools.python), str(venv)]
            runner.run(argv, here, env, "create the virtual environment")

    def _install_python(
        self, plan: BuildPlan, step: PythonInstall, venv: Path, tools: Tools, runner: Runner, folder: Path, env: Mapping[str, str]
    ) -> None:
        wanted = plan.generated.get(step.folder) if step.method in {"poetry", "pipenv", "pyproject"} else None
        if wanted is not None:
            listed = venv.parent / ".homeport-requirements.txt"
            listed.write_text(wanted)
            step = step.model_copy(update={"method": "files", "files": (str(listed),)})
        for argv in python_commands(step, venv, tools, package=True, seed=plan.seeds):
            runner.run(argv, folder, env, step.line)

    def _own_packages(self, plan: BuildPlan, here: Path) -> list[Path]:
        """Dependency folders that the build made itself: an instance links them too."""
        folders = {here / step.folder / "node_modules" for step in plan.steps if isinstance(step, NodeInstall)}
        return sorted(path for path in {here / ".venv", here / "node_modules", *folders} if path.is_dir())

    def _finish_site(self, plan: BuildPlan, target: Path, here: Path) -> Artifact:
        """Keep nothing of a static build but the files that are served."""
        found = published(here, plan.recipe.publish, plan.works)
        if found is None:
            raise BuildFailed(
                service=plan.request.service,
                why=f"the folder to publish, {plan.recipe.publish}, does not exist after the build",
                fix="Correct the publish path in the deployment file: it is relative to the service's root folder.",
            )
        site = target / "site"
        notes = keep_site(found, site)
        clear(target, site)
        return Artifact(id=plan.key, kind="static", folder=str(site), runtime="static", notes=(*plan.notes, *notes))

    def _describe(self, plan: BuildPlan, tools: Tools, app: Path, here: Path, venv: Path | None, linked: tuple[str, ...]) -> Artifact:
        node = plan.node is not None
        programs = [str(folder) for folder in tools.path(here, venv)] if node else [str(venv / "bin")] if venv else []
        env = {**plan.recipe.env}
        if venv is not None:
            env |= {"VIRTUAL_ENV": str(venv), "PYTHONUNBUFFERED": "1"}
        if node:
            env.setdefault("NODE_ENV", "production")
        versions = [f"python {plan.python.version}" if plan.python else "", f"node {plan.node.version}" if plan.node else ""]
        return Artifact(
            id=plan.key,
            folder=str(app),
            root="/".join(part for part in (plan.request.definition.root, plan.recipe.folder) if part),
            command=plan.recipe.command,
            port=plan.recipe.port,
            path=tuple(programs),
            env=env,
            linked=linked,
            runtime=" + ".join(one for one in versions if one),
            notes=plan.notes,
        )

    def _record(self, plan: BuildPlan, artifact: Artifact, seconds: float) -> Artifact:
        """Freeze the tree and write `artifact.json`: from here on it counts."""
        target = self.artifacts / plan.key
        folder = Path(artifact.folder)
        size = freeze(folder, (0, 0) if os.geteuid() == 0 else None)
        done = artifact.model_copy(update={"bytes": size, "seconds": round(seconds, 3)})
        plain = not plan.works and artifact.kind == "process"
        content = digest_of(plan.files) if plain else tree_digest(folder, set(artifact.linked))
        record = {
            "artifact": done.model_dump(mode="json"),
            "content": content,
            "boot": boot_id(),
            "layers": [key for _, key, _ in plan.layers] if artifact.kind == "process" else [],
        }
        write_atomic(target / "artifact.json", json.dumps(record).encode())
        return done


_: type[Builder] = ProcessBuilder
