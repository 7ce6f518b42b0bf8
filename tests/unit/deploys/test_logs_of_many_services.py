"""Reading logs opens the values of a release once, however many services and instances wrote them."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from homeport.deploys import logs
from homeport.deploys.masking import MASK, Masker
from homeport.drivers.vault.seal import SecretDoesNotOpen


class Told:
    """A home with instances of three services in two releases."""

    def __init__(self) -> None:
        rows = [
            SimpleNamespace(id=f"{service}-{number}", project="shop", environment="production", service=service, number=number)
            for number in (1, 2)
            for service in ("web", "worker", "mail")
        ]
        self.store = SimpleNamespace(
            instances=SimpleNamespace(list=lambda *_, **__: rows),
            releases=SimpleNamespace(get=lambda _p, _e, number: SimpleNamespace(release=f"r{number}")),
        )
        self.runtime = self

    def logs(self, id: str, **_: Any) -> Iterator[Any]:
        yield SimpleNamespace(text=f"{id} says canaryWord", stream="stdout")


def test_lines_that_could_not_be_masked_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the values of one release do not open a line says so in place of each of its logs; when that is so of all it is an error,
    and not an answer without lines."""
    closed = {"r1"}

    def masker_of(_platform: Any, release: Any) -> Masker:
        if release in closed:
            raise SecretDoesNotOpen("shop/production/KEY@1")
        return Masker(["canaryWord"])

    monkeypatch.setattr(logs, "masker_of", masker_of)
    lines = [line for line in logs.follow_logs(Told(), "shop", "production") if line]  # type: ignore[arg-type]
    assert [line["stream"] for line in lines] == ["homeport"] * 3 + ["stdout"] * 3
    assert all("not shown" in line["text"] and "KEY@1" in line["text"] for line in lines[:3])
    assert "canary" not in str(lines)
    closed.add("r2")
    with pytest.raises(SecretDoesNotOpen):
        logs.follow_logs(Told(), "shop", "production")  # type: ignore[arg-type]


def test_one_masker_serves_all_services_of_a_release(monkeypatch: pytest.MonkeyPatch) -> None:
    """Six instances of three services in two releases take two maskers, and every line is masked."""
    made: list[Any] = []

    def masker_of(_platform: Any, release: Any) -> Masker:
        made.append(release)
        return Masker(["canaryWord"])

    monkeypatch.setattr(logs, "masker_of", masker_of)
    lines = list(logs.follow_logs(Told(), "shop", "production"))  # type: ignore[arg-type]
    assert made == ["r1", "r2"]
    assert [line["text"] for line in lines if line] == [f"{s}-{n} says {MASK}" for n in (1, 2) for s in ("web", "worker", "mail")]
