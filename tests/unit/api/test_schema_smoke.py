"""Whatever fits the schema, or nearly fits, is answered: never with a fault of the server."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from doors import Door, go_live, open_door
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

EXAMPLES = 6
"""Of each operation, in the default run."""

UNTRIED = {"/api/v1/down", "/api/v1/projects/{project}/environments/{environment}/logs", "/api/v1/backups"}
"""Ends the control plane; follows without end; copies the whole home."""


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    with open_door(tmp_path_factory.mktemp("home")) as door:
        go_live(door.platform, {"services": {"web": {"kind": "web", "command": "run", "env": {"K": "v"}}}})
        door.platform.secrets.set("shop", "production", "SECRET", "value", by="me")
        yield door


def test_generated_requests_never_meet_a_fault(door: Door) -> None:
    """Requests made from the schema, good ones and bad ones, get no 5xx from any operation."""
    with urllib.request.urlopen(f"http://127.0.0.1:{door.port}/api/openapi.json") as answer:
        schema = schemathesis.openapi.from_dict(json.load(answer))
    schema.config.update(base_url=f"http://127.0.0.1:{door.port}")
    tried, faults = set[str](), list[str]()
    for found in schema.get_all_operations():
        operation = found.ok()  # type: ignore[union-attr]
        if operation.path in UNTRIED:
            continue

        @given(case=operation.as_strategy())
        @settings(
            max_examples=EXAMPLES,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
            derandomize=True,
        )
        def ask(case: Any) -> None:
            response = case.call(headers={"Authorization": f"Bearer {door.admin}"}, timeout=20)
            tried.add(f"{case.method} {case.path}")
            if response.status_code >= 500:
                faults.append(f"{case.method} {case.formatted_path}: {response.status_code} {response.text[:300]}")

        ask()
    assert len(tried) > 30 and faults == []


@given(
    project=st.one_of(st.just("shop"), st.text(min_size=1, max_size=80)),
    environment=st.one_of(st.just("production"), st.text(min_size=1, max_size=80)),
    key=st.text(min_size=1, max_size=400),
    value=st.text(max_size=200),
)
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), database=None)
def test_any_text_as_a_variable_is_set_or_refused(door: Door, project: str, environment: str, key: str, value: str) -> None:
    """Any project, environment, name and value is taken, and then comes back as it was, or is refused with a reason."""
    from urllib.parse import quote

    path = f"/api/v1/projects/{quote(project, safe='')}/environments/{quote(environment, safe='')}/env"
    try:
        reply = door.ask("POST", path, {"set": {key: value}})
    except UnicodeEncodeError:
        return
    assert reply.status < 500, reply
    if reply.status == 200:
        assert door.platform.secrets.reveal(project, environment, key) == value
