"""Databases and key-value stores of a render.yaml."""

from __future__ import annotations

import re
from typing import Any, cast

from homeport.blueprints.naming import Names
from homeport.blueprints.render.env import Context, Resources
from homeport.blueprints.view import View
from homeport.model.addon import IpRule, Postgres, Redis

REGION = "services run where this Homeport runs; the region is kept for converting"
PLAN = "sets the memory and cpu of an instance, by the operator's table of sizes"
GIB = 1 << 30


def read_ip_rules(view: View) -> tuple[tuple[str, ...] | None, list[IpRule]]:
    """The networks allowed, and with what note; None when the file says nothing."""
    if "ipAllowList" not in view or view.raw("ipAllowList") is None:
        return None, []
    rules = []
    raw = view.raw("ipAllowList")
    if isinstance(raw, list) and all(isinstance(item, str) for item in raw):
        view.approximated("ipAllowList", reason="Render wants `- source: …`; each text is read as a source")
        rules = [IpRule(source=item) for item in raw]
        if not raw:
            view.honoured("ipAllowList")
        return tuple(raw), rules
    for item in view.views("ipAllowList"):
        source = item.text("source")
        if not source:
            item.problem(None, "an entry needs its `source`, a network such as 203.0.113.0/24")
            continue
        rules.append(IpRule(source=source, description=item.text("description")))
    return tuple(rule.source for rule in rules), rules


def read_key_value(view: View, title: str, name: str) -> Redis:
    """A service of type `keyvalue`, or `redis` as it was called before."""
    policy = view.text("maxmemoryPolicy")
    if policy not in Redis.model_fields["eviction"].annotation.__args__:  # type: ignore[union-attr]
        view.problem("maxmemoryPolicy", f"{policy[:40]!r} is no eviction policy", fix="Use noeviction, allkeys-lru, volatile-ttl, …")
        policy = ""
    allowed, rules = read_ip_rules(view)
    view.ignored("region", reason=REGION)
    view.ignored("runtime", "env", "numInstances", "autoDeploy", reason="a key-value store has no such setting")
    return Redis(
        title=Names.title(title, name),
        plan=view.text("plan", reason=PLAN).lower(),
        preview_plan=view.text("previewPlan"),
        eviction=cast("Any", policy),
        ip_allow_list=tuple(rules) if allowed else None,
        region=str(view.raw("region") or ""),
    )


def read_database(view: View, context: Context, into: Resources) -> None:
    """One entry of `databases`."""
    title = view.text("name")
    if not title:
        view.problem(None, "a database needs a `name`")
        return
    name = context.addons.claim(title)
    allowed, rules = read_ip_rules(view)
    size = view.integer("diskSizeGB", low=1, high=1 << 20)
    preview_size = view.integer("previewDiskSizeGB", low=1, high=1 << 20)
    if preview_size is not None:
        into.in_preview("addons", name, "disk", value=f"{preview_size}GiB")
    availability = view.view("highAvailability").flag("enabled", False)
    if availability:
        view.approximated("highAvailability", reason="a streaming replica is kept beside the primary; it is promoted by hand")
    older = view.text("previewEnvironmentPlan", reason="the older name of previewPlan")
    version = view.text("postgresMajorVersion")
    if version and not re.fullmatch(r"\d{1,2}(\.\d+)?", version):
        view.problem("postgresMajorVersion", f"{version[:40]!r} is no version of PostgreSQL", fix='Write `postgresMajorVersion: "16"`.')
    view.ignored("region", reason=REGION)
    replicas = tuple(item.text("name") for item in view.views("readReplicas"))
    into.addons[name] = Postgres(
        title=Names.title(title, name),
        plan=view.text("plan", reason=PLAN).lower(),
        preview_plan=(view.text("previewPlan") or older).lower(),
        version=version,
        database=view.text("databaseName"),
        user=view.text("user"),
        region=str(view.raw("region") or ""),
        disk=None if size is None else size * GIB,
        disk_autoscaling=view.flag("storageAutoscalingEnabled"),
        high_availability=bool(availability),
        ip_allow_list=tuple(rules) if allowed else None,
        replicas=len(replicas),
        replica_names=tuple(name for name in replicas if name),
    )
