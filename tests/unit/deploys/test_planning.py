"""Plans say what will be done, and refuse what must not be done by accident."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from homeport.deploys.plan import ConfirmationNeeded, PlanRefused, check, compare, instances_of, make_plan, strategy_of
from homeport.drivers.runtimes.base import Capabilities
from homeport.model.release import Release, Revision
from homeport.model.spec import Spec

ABLE = Capabilities(limits_memory=True, limits_cpu=True, mounts=True, names=True)


def spec(services: dict[str, Any], **rest: Any) -> Spec:
    return Spec.model_validate({"name": "shop", "services": services, **rest})


def live(of: Spec) -> Release:
    return Release(
        id="r1", project="shop", environment="production", number=1, revision=Revision(digest="d"), spec=of, created_at=datetime.now(UTC)
    )


WEB = {"kind": "web", "command": "run", "env": {"A": "1", "B": "2"}}


def test_a_first_deploy_starts_everything() -> None:
    """Without a live release every service starts, is scheduled or is served."""
    wanted = spec({"web": WEB, "job": {"kind": "cron", "schedule": "0 3 * * *"}, "site": {"kind": "static"}, "work": {"kind": "worker"}})
    plan = make_plan(wanted, "production", None, capabilities=ABLE)
    assert {p.service: p.action for p in plan.services} == {"web": "start", "job": "schedule", "site": "serve", "work": "start"}
    assert plan.live == "" and plan.differences == ()


def test_a_vanished_variable_needs_confirmation_and_its_value_is_not_shown() -> None:
    """A key that the live release has and the new one lacks stops the deploy until it is confirmed."""
    old = spec({"web": {**WEB, "env": {"A": "1", "TOKEN": "hunter2hunter2"}}})
    plan = make_plan(spec({"web": {**WEB, "env": {"A": "1"}}}), "production", live(old), capabilities=ABLE)
    assert [(d.kind, d.name, d.destructive) for d in plan.differences] == [("remove", "web.TOKEN", True)]
    assert "hunter2" not in plan.model_dump_json()
    with pytest.raises(ConfirmationNeeded, match="Nothing was changed"):
        check(plan, confirmed=False)
    check(plan, confirmed=True)


@pytest.mark.parametrize(
    ("before", "after", "name", "section"),
    [
        ({"command": "a"}, {"command": "b"}, "web.command", "command"),
        ({"scale": {"instances": 1}}, {"scale": {"instances": 3}}, "web.scale", "scale"),
        ({"health": {"path": "/a"}}, {"health": {"path": "/b"}}, "web.health", "health"),
        ({"build": {"command": "x"}}, {"build": {"command": "y"}}, "web.build", "build"),
        ({"env": {"K": "1"}}, {"env": {"K": "2"}}, "web.K", "env"),
    ],
)
def test_each_change_of_a_service_is_listed(before: dict[str, Any], after: dict[str, Any], name: str, section: str) -> None:
    """A changed field appears once, under its own section."""
    found = compare(spec({"web": {"kind": "web", **before}}), spec({"web": {"kind": "web", **after}}))
    assert [(d.section, d.name, d.kind) for d in found] == [(section, name, "change")]


def test_a_lost_disk_or_add_on_is_destructive() -> None:
    """Data that would no longer be reachable is never taken away silently."""
    disk = {"name": "data", "mount_path": "/var/data"}
    old = spec({"web": {"kind": "web", "disks": [disk]}}, addons={"db": {"kind": "postgres"}})
    found = compare(old, spec({"web": {"kind": "web"}}))
    assert {d.name for d in found if d.destructive} == {"web:/var/data", "db"}


def test_an_image_without_a_container_engine_is_refused_before_anything_starts() -> None:
    """What this machine cannot run is said in the plan, with the reason."""
    plan = make_plan(spec({"web": {"kind": "web", "build": {"builder": "image", "image": "nginx"}}}), "production", None, capabilities=ABLE)
    assert "nginx" in plan.refusals[0]
    with pytest.raises(PlanRefused):
        check(plan, confirmed=True)


def test_rules_that_the_edge_cannot_decide_are_said() -> None:
    """Nobody tells the edge a visitor's country: what becomes of the rule stands in the plan."""
    rule = {"service": "web", "action": {"kind": "redirect", "to": "/x"}}
    conditions = (
        {"type": "country", "value": "de"},
        {"type": "role", "value": "admin", "negate": True},
        {"type": "language", "value": "de"},
    )
    routes = [{**rule, "match": {"path": f"/{number}", "conditions": [one]}} for number, one in enumerate(conditions)]
    plan = make_plan(spec({"web": WEB}, routes=routes), "production", None, capabilities=ABLE)
    assert plan.warnings == (
        "web: the rule for /0 never applies: the edge does not know a visitor's country",
        "web: the rule for /1 applies whatever it is: the edge does not know a visitor's role",
    )


def test_an_inactive_profile_is_skipped() -> None:
    """A service of a profile runs only when the profile is asked for."""
    wanted = spec({"web": WEB, "admin": {"kind": "web", "profiles": ["tools"]}})
    off = make_plan(wanted, "production", None, capabilities=ABLE)
    on = make_plan(wanted, "production", None, capabilities=ABLE, profiles=frozenset({"tools"}))
    assert [p.action for p in off.services] == ["start", "skip"] and [p.action for p in on.services] == ["start", "start"]


def test_a_service_with_a_disk_does_not_overlap_and_runs_once() -> None:
    """Two processes on one disk lose data, so the old one ends first and scaling is ignored."""
    service = spec({"web": {"kind": "web", "disks": [{"mount_path": "/data"}], "scale": {"instances": 3}}}).services["web"]
    assert strategy_of(service) == "hold" and instances_of("web", service, {}) == 1
    overlapping = service.model_copy(update={"rollout": service.rollout.model_copy(update={"strategy": "overlap"})})
    assert strategy_of(overlapping) == "overlap"


def test_limits_that_are_not_enforced_are_said() -> None:
    """A memory limit on a machine without control groups becomes a warning with the reason."""
    poor = Capabilities(reasons={"limits_memory": "there is no memory control group here"})
    plan = make_plan(spec({"web": {"kind": "web", "resources": {"memory": "64MB"}}}), "production", None, capabilities=poor)
    assert plan.warnings == ("web: its memory limit is not enforced: there is no memory control group here",)
