"""Fills what a deployment file left out with what the source shows. What a file says is never changed."""

from __future__ import annotations

from typing import Any

from homeport.blueprints.detect.files import Folder
from homeport.blueprints.detect.found import Found
from homeport.blueprints.detect.reader import detect_folder
from homeport.blueprints.source import SourceTree
from homeport.model.service import Build, HealthCheck, Service, StaticService
from homeport.model.spec import Spec

ANY_ANSWER = HealthCheck(kind="http", path="/", expect_status=(100, 499))
"""Health of a web service for which nobody named a path: it answers, and not with a server error."""
BINDS = HealthCheck(kind="tcp")
"""Health of a private service for which nobody named a path: its port is open."""


def fill(spec: Spec, tree: SourceTree) -> tuple[Spec, tuple[str, ...]]:
    """The spec with start commands, publish folders, build settings and health checks where a file named none,
    and a sentence for each assumption."""
    detected: dict[str, Found | None] = {}
    notes: list[str] = []
    services: dict[str, Service] = {}
    for name, service in spec.services.items():
        changes: dict[str, Any] = {}
        if _needs_detection(service):
            root = service.root
            if root not in detected:
                detected[root] = detect_folder(Folder(tree, root))
            changes, said = _from_source(service, detected[root])
            notes += [f"{name}: {note}" for note in said]
        if service.kind in ("web", "private") and service.health is None:
            listens_http = service.kind == "web" and service.protocol in ("http", "h2c", "https")
            changes["health"] = ANY_ANSWER if listens_http else BINDS
        services[name] = service.model_copy(update=changes) if changes else service
    filled = spec.model_copy(update={"services": services}) if any(services[n] is not s for n, s in spec.services.items()) else spec
    return filled, tuple(notes)


def _needs_detection(service: Service) -> bool:
    if service.repository or service.build.builder in ("image", "dockerfile", "buildpacks"):
        return False
    if service.kind == "static":
        return not service.publish and service.build.builder != "none"
    return service.kind in ("web", "private", "worker", "cron") and not service.command


def _from_source(service: Service, found: Found | None) -> tuple[dict[str, Any], list[str]]:
    if found is None:
        where = service.root or "the root folder"
        if service.kind == "static":
            return {}, [f"no folder of built files is named, and none was recognised: {where} itself is served."]
        return {}, [f"no start command is named, and none was recognised in {where}."]
    other = found.service
    changes: dict[str, Any] = {}
    said = [f"from the source: {note}" for note in found.notes]
    if isinstance(service, StaticService):
        if not isinstance(other, StaticService):
            return {}, [f"no folder of built files is named; the source looks like a {other.kind} service."]
        changes["publish"] = other.publish
        if other.single_page and not service.single_page:
            changes["single_page"] = True
    elif other.command:
        changes["command"] = other.command
        if other.disks and not service.disks and service.kind == "web":
            changes["disks"], changes["rollout"] = other.disks, other.rollout
    build = _merged_build(service.build, other.build)
    if build is not service.build:
        changes["build"] = build
    return changes, said


def _merged_build(own: Build, other: Build) -> Build:
    """What the file says, and below it what was detected. A command of the file's own keeps detection's out."""
    if own.builder != "auto":
        return own
    changes: dict[str, Any] = {
        key: getattr(other, key) for key in ("runtime", "framework") if getattr(other, key) and not getattr(own, key)
    }
    if not own.command and not own.install:
        changes |= {key: getattr(other, key) for key in ("command", "install") if getattr(other, key)}
        if other.builder != "auto":
            changes["builder"] = other.builder
    return own.model_copy(update=changes) if changes else own
