"""What the readers of GitHub workflows and Cloud Build files make of them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from textwrap import dedent
from time import perf_counter

import pytest

from homeport.blueprints.cloudbuild import CloudBuildReader
from homeport.blueprints.ghworkflow import GitHubWorkflowReader, circular
from homeport.blueprints.source import MemoryTree
from homeport.model.errors import BlueprintInvalid
from homeport.model.reading import Fate, Reading


def workflow(text: str) -> Reading:
    path = ".github/workflows/ci.yml"
    return GitHubWorkflowReader().read(MemoryTree({path: dedent(text)}, "repo"), path)


def build(text: str) -> Reading:
    return CloudBuildReader().read(MemoryTree({"cloudbuild.yaml": dedent(text)}, "repo"), "cloudbuild.yaml")


def test_a_workflow_becomes_a_pipeline() -> None:
    """Events, jobs, needs, runners, matrices, actions and conditions are there; every key is listed as not run yet."""
    reading = workflow(
        """
        name: CI
        on: {push: {branches: [main]}, pull_request: }
        jobs:
          test:
            runs-on: [self-hosted, linux]
            container: {image: "node:20"}
            strategy: {matrix: {os: [a, b]}}
            steps:
              - uses: actions/checkout@v4
              - run: make test
          ship:
            needs: test
            if: github.ref == 'refs/heads/main'
            uses: ./.github/workflows/ship.yml
        """
    )
    (pipeline,) = reading.spec.pipelines
    assert (pipeline.name, pipeline.on) == ("CI", ("push", "pull_request"))
    test, ship = pipeline.jobs
    assert (test.runs_on, test.image, test.matrix, test.steps, test.uses) == (
        "self-hosted, linux", "node:20", True, 2, ("actions/checkout@v4",),
    )  # fmt: skip
    assert (ship.needs, ship.uses) == (("test",), ("./.github/workflows/ship.yml",))
    assert ship.condition.startswith("github.ref")
    assert {note.fate for note in reading.keys} == {Fate.APPROXIMATED}


def test_faults_of_a_workflow() -> None:
    """Unknown needs, circles, missing runners, steps without work and bad names are located in one go."""
    with pytest.raises(BlueprintInvalid) as caught:
        workflow(
            """\
            on: push
            jobs:
              a:
                needs: [b, nowhere]
                runs-on: x
                steps: [{run: a, uses: b}]
              b:
                needs: a
                steps: [{name: idle}]
              my.job:
                runs-on: x
              ok:
                uses: a/b/.github/workflows/c.yml@v1
                runs-on: x
            """
        )
    found = [(problem.path, problem.line) for problem in caught.value.problems]
    assert sorted(found) == sorted(
        [
            ("jobs.a.steps[0].uses", 6), ("jobs.b", 7), ("jobs.b.steps[0]", 9), ('jobs["my.job"]', 10), ("jobs.ok.runs-on", 14),
            ("jobs.a.needs[1]", 4), ("jobs.a.needs", 4), ("jobs.b.needs", 8),
        ]
    )  # fmt: skip


def test_unknown_keys_are_suggested() -> None:
    """A mistyped key of a job is unknown, with a suggestion."""
    reading = workflow("on: push\njobs:\n  a:\n    runs-on: x\n    timeout-minute: 5\n    steps: [{run: x}]\n")
    (note,) = reading.by_fate(Fate.UNKNOWN)
    assert note.path == "jobs.a.timeout-minute"


def test_steps_of_cloud_build() -> None:
    """A step waits for all before it unless it says otherwise; both spellings of a key are read."""
    reading = build(
        """
        steps:
          - {name: a, id: one}
          - {name: b, id: two, waitFor: ["-"]}
          - {name: c}
          - {name: d, wait_for: [two]}
        timeout: 600s
        """
    )
    (pipeline,) = reading.spec.pipelines
    assert [(job.name, job.needs, job.image) for job in pipeline.jobs] == [
        ("one", (), "a"), ("two", (), "b"), ("step-2", ("one", "two"), "c"), ("step-3", ("two",), "d"),
    ]  # fmt: skip


def test_faults_of_cloud_build() -> None:
    """No image, names used twice, waiting for nobody and circles are located."""
    with pytest.raises(BlueprintInvalid) as caught:
        build("steps:\n- args: [x]\n- {name: a, id: p}\n- {name: a, id: p, waitFor: [zz]}\n")
    assert [problem.line for problem in caught.value.problems] == [2, 4, 4]
    with pytest.raises(BlueprintInvalid) as caught:
        build("steps:\n- {name: a, id: p, waitFor: [q]}\n- {name: a, id: q, waitFor: [p]}\n")
    assert [problem.line for problem in caught.value.problems] == [2, 3]
    with pytest.raises(BlueprintInvalid):
        build("timeout: 3s\n")


def test_circles_are_found_in_linear_time() -> None:
    """Ten thousand jobs in a row are checked at once, and only what lies on a circle is named."""
    chain = {str(n): [str(n - 1)] for n in range(1, 10_000)} | {"0": []}
    started = perf_counter()
    assert circular(chain) == []
    assert circular({**chain, "5": ["4", "7"]}) == ["5", "6", "7"]
    assert perf_counter() - started < 20


def test_workflows_of_the_languageservices_suite(shared: Path) -> None:
    """Good workflows of GitHub's own parser suite are never refused; of the bad ones most are."""
    folder = shared / "suites/actions-workflow-parser"
    wrongly, caught, bad = [], 0, 0
    for path in sorted(folder.glob("*.yml")):
        documents = re.split(r"^---\r?\n", path.read_text(), flags=re.MULTILINE)
        expected = json.loads(documents[-1])
        name = f".github/workflows/{path.name}"
        try:
            GitHubWorkflowReader().read(MemoryTree({name: documents[1]}), name)
            refused = False
        except BlueprintInvalid:
            refused = True
        if "errors" in expected:
            bad += 1
            caught += refused
        elif refused:
            wrongly.append(path.name)
    assert wrongly == []
    assert bad > 80
    assert caught >= 25


def test_names_and_texts_that_are_workflows() -> None:
    """A workflow is known by its folder, or by its keys; a Cloud Build file by its name or its images."""
    recognises = GitHubWorkflowReader().recognises
    assert recognises("o__r__.github__workflows__ci.yml", "")
    assert recognises("ci.yml", "on: push\njobs:\n  a: {}\n")
    assert not recognises("ci.yml", "services: {}\n")
    assert CloudBuildReader().recognises("o__r__test.cloudbuild.yaml", "")
    assert CloudBuildReader().recognises("ci.yaml", "steps:\n- name: gcr.io/cloud-builders/docker\n")
    assert not CloudBuildReader().recognises("ci.yaml", "steps:\n")
