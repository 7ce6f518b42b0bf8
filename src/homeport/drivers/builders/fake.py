"""A builder that only copies: for tests of what comes after a build, and for sources that need none."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Collection
from datetime import timedelta
from pathlib import Path

from homeport.drivers.builders.base import Builder, BuildRequest, Log
from homeport.drivers.builders.errors import BuildCancelled, BuildFailed
from homeport.drivers.builders.filters import belonging, matching
from homeport.drivers.builders.tree import place, read_manifest
from homeport.drivers.files import prune_digests, remove_tree
from homeport.drivers.sources.snapshot import digest_of
from homeport.model.release import Artifact
from homeport.model.service import StaticService


class FakeBuilder:
    """`fail` makes every build of the named service fail with that reason; `built` lists what was really built."""

    def __init__(self, home: Path) -> None:
        self.artifacts = home / "artifacts"
        self.artifacts.mkdir(parents=True, exist_ok=True)
        self.fail: dict[str, str] = {}
        self.built: list[str] = []
        self._lock = threading.Lock()

    def key(self, request: BuildRequest) -> str:
        """sha256 over the filtered source, the build settings and the environment."""
        files = belonging(read_manifest(request.source, request.source_digest), request.definition.root, whole=False)
        settings = request.definition.build.model_dump_json()
        material = [
            digest_of(matching(files, request.definition.build_filter)),
            settings,
            request.definition.root,
            request.env,
            request.user,
        ]
        return hashlib.sha256(json.dumps(material, sort_keys=True).encode()).hexdigest()

    def build(self, request: BuildRequest, log: Log, cancelled: Callable[[], bool] = lambda: False) -> Artifact:
        """Copy the source. Raises BuildFailed when told to, BuildCancelled."""
        if cancelled():
            raise BuildCancelled(service=request.service)
        key = self.key(request)
        target = self.artifacts / key
        static = isinstance(request.definition, StaticService)
        with self._lock:
            cached = (target / "done").exists()
            if not cached:
                log("building: copy")
                if why := self.fail.get(request.service):
                    raise BuildFailed(service=request.service, why=why, tail=("building: copy", why))
                remove_tree(target)
                (target / "app").mkdir(parents=True)
                files = belonging(read_manifest(request.source, request.source_digest), request.definition.root, whole=False)
                place(request.source, target / "app", files, link=True)
                (target / "done").touch()
                self.built.append(request.service)
        folder = target / "app"
        if isinstance(request.definition, StaticService):
            folder = folder / request.definition.root / request.definition.publish
        return Artifact(
            id=key,
            kind="static" if static else "process",
            folder=str(folder),
            root="" if static else request.definition.root,
            cached=cached,
        )

    def end_strays(self) -> None:
        """There are none."""

    def prune(self, keep: Collection[str], young: timedelta) -> list[str]:
        """Remove artifacts that are not kept and were not used within `young`."""
        return [f"artifacts/{name}" for name in prune_digests(self.artifacts, keep, young)]


_: type[Builder] = FakeBuilder
