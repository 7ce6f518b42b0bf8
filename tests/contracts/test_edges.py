"""What every edge promises; the fake always, nginx for real."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from homeport.drivers.edge.base import Answer, EdgeRefused, EdgeRoute, Forward, RouteTable, Site, Target, Upstream
from homeport.drivers.edge.fake import FakeEdge
from homeport.drivers.edge.nginx import NginxEdge

AnyEdge = FakeEdge | NginxEdge


@pytest.fixture(params=["fake", "nginx"])
def edge(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[AnyEdge]:
    made: AnyEdge = FakeEdge() if request.param == "fake" else NginxEdge(tmp_path / "home")
    yield made
    made.stop()


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def table(port: int, status: int = 200) -> RouteTable:
    return RouteTable(port=port, sites=(Site(name="web", hosts=("web.localhost",), routes=(EdgeRoute(action=Answer(status=status)),)),))


def test_nothing_runs_before_the_first_table(edge: AnyEdge) -> None:
    """A new edge is stopped, has no table, and `ensure_running` starts nothing."""
    assert (edge.status().running, edge.status().generation, edge.table()) == (False, 0, None)
    assert edge.ensure_running().running is False


def test_an_applied_table_is_the_one_that_is_served(edge: AnyEdge, port: int) -> None:
    """`apply` returns the generation that `status` tells and the table that `table` gives back."""
    generation = edge.apply(table(port))
    status = edge.status()
    assert (status.running, status.generation, status.port) == (True, generation, port)
    assert status.pid > 0
    assert status.workers > 0
    assert edge.table() == table(port)


def test_an_equal_table_changes_nothing(edge: AnyEdge, port: int) -> None:
    """Applying twice is applying once; another table is a later generation."""
    first = edge.apply(table(port))
    assert edge.apply(table(port)) == first
    assert edge.apply(table(port, 404)) > first


@pytest.mark.parametrize(
    "bad",
    [
        {"sites": (Site(name="a", hosts=("a b",), routes=()),)},
        {"sites": (Site(name="a", hosts=("a.b",), routes=()), Site(name="b", hosts=("a.b",), routes=()))},
        {"sites": (Site(name="a", hosts=("a.b",), routes=(EdgeRoute(path="x", action=Answer(status=200)),)),)},
        {"sites": (Site(name="a", hosts=("a.b",), routes=(), allow=("nowhere",)),)},
        {"forwards": (Forward(name="f", host="10.0.0.1", port=1, targets=(Target(host="127.0.0.1", port=1),)),)},
    ],
    ids=["host", "host twice", "path", "network", "public forward"],
)
def test_a_bad_table_is_refused_and_the_good_one_stays(edge: AnyEdge, port: int, bad: dict[str, object]) -> None:
    """A refusal leaves generation and table as they were."""
    generation = edge.apply(table(port))
    with pytest.raises(EdgeRefused) as refused:
        edge.apply(RouteTable.model_validate({"port": port, **bad}))
    assert refused.value.code == "edge-refused"
    assert (edge.status().generation, edge.table()) == (generation, table(port))


def test_a_stopped_edge_keeps_its_table_and_comes_back(edge: AnyEdge, port: int) -> None:
    """Stopping twice is fine; `ensure_running` serves the last table; `apply` starts it too."""
    generation = edge.apply(table(port))
    edge.stop()
    edge.stop()
    assert (edge.status().running, edge.table()) == (False, table(port))
    assert edge.ensure_running().running is True
    assert edge.ensure_running().generation == generation
    edge.stop()
    assert edge.apply(table(port)) >= generation
    assert edge.status().running is True


def test_an_instance_nobody_uses_is_drained_at_once(edge: AnyEdge, port: int) -> None:
    """Without connections nothing is in flight and a drain returns 0."""
    target = Target(host="127.0.0.1", port=port)
    edge.apply(
        RouteTable(port=port, sites=(Site(name="a", hosts=("a.b",), routes=(EdgeRoute(action=Upstream(name="a", targets=(target,))),)),))
    )
    edge.apply(table(port))
    assert (edge.in_flight(target), edge.drain(target, timedelta(seconds=5))) == (0, 0)
