"""Google Cloud Build: `cloudbuild.yaml` and `cloudbuild.json`, parsed to a typed pipeline.

A step runs after all steps before it unless `waitFor` names others; `["-"]` starts at once. Keys are those of the Build
resource of the API, in camel case or, as the API also reads them, in snake case.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar

from homeport.blueprints.document import parse_yaml
from homeport.blueprints.ghworkflow import LISTED, circular
from homeport.blueprints.naming import bare_name
from homeport.blueprints.opening import finish, open_file
from homeport.blueprints.source import SourceTree
from homeport.blueprints.view import View, scalar_text
from homeport.model.base import slug
from homeport.model.reading import Fate, Reading
from homeport.model.spec import Job, Pipeline, Spec

_TOP = frozenset({
    "steps", "timeout", "queueTtl", "logsBucket", "options", "substitutions", "tags", "serviceAccount", "secrets", "availableSecrets",
    "artifacts", "images", "gitConfig", "dependencies", "source", "name", "$schema",
})  # fmt: skip
_STEP = frozenset({
    "name", "args", "env", "allowFailure", "allowExitCodes", "dir", "id", "waitFor", "entrypoint", "secretEnv", "volumes", "timeout",
    "script", "automapSubstitutions", "pullTiming",
})  # fmt: skip
_OPTIONS = frozenset({
    "env", "secretEnv", "volumes", "sourceProvenanceHash", "machineType", "diskSizeGb", "substitutionOption", "dynamicSubstitutions",
    "automapSubstitutions", "logStreamingOption", "logging", "defaultLogsBucketBehavior", "pool", "requestedVerifyOption", "workerPool",
    "enableStructuredLogging", "pubsubTopic",
})  # fmt: skip


class CloudBuildReader:
    """Reads one Cloud Build file."""

    dialect: ClassVar[str] = "cloudbuild"
    precedence: ClassVar[int] = 90

    def recognises(self, file_name: str, text: str) -> bool:
        name = bare_name(file_name).lower()
        if not name.endswith((".yaml", ".yml", ".json")):
            return False
        return "cloudbuild" in name or (
            "gcr.io/cloud-builders/" in text and re.search(r"^\"?\s*\"?steps\"?\s*:", text, re.MULTILINE) is not None
        )

    def candidates(self, tree: SourceTree) -> list[str]:
        found: list[str] = [name for name in ("cloudbuild.yaml", "cloudbuild.yml", "cloudbuild.json") if name in tree.list()]
        return found[:1]

    def read(self, tree: SourceTree, path: str) -> Reading:
        view = open_file(tree, path, parse_yaml)  # JSON is YAML, and the platform reads it so
        return finish(view, self.dialect, lambda: _spec(view, tree, path))


def _spec(view: View, tree: SourceTree, path: str) -> Spec:
    _mark(view, _TOP)
    if "options" in view:
        _mark(view.view("options"), _OPTIONS)
    if view.data and not view.raw("steps"):
        view.problem("steps" if "steps" in view.data else None, "a build needs at least one step")
    steps = list(view.views("steps"))
    jobs = _jobs(view, steps)
    pipeline = Pipeline(
        name=re.sub(r"\.(ya?ml|json)$", "", bare_name(path)), dialect="cloudbuild", file=path, jobs=tuple(jobs), document=view.data
    )
    return Spec(name=slug(tree.name), pipelines=(pipeline,) if view.data else ())


def camel(key: str) -> str:
    """`wait_for` as `waitFor`: the API reads both."""
    return re.sub(r"_([a-z])", lambda match: match[1].upper(), key)


def _mark(view: View, known: frozenset[str]) -> None:
    for key in sorted(known):
        view.ledger.knows(view.path, key)
    for key in view.keys():  # noqa: SIM118 - a View is no mapping
        fate = Fate.APPROXIMATED if key in known or camel(key) in known else Fate.UNKNOWN
        view.ledger.note(view.at(key), fate, LISTED if fate is Fate.APPROXIMATED else "no such key is known in this place")


def _get(step: View, key: str) -> Any:
    return next((value for name, value in step.data.items() if camel(name) == key), None)


def _jobs(view: View, steps: list[View]) -> list[Job]:
    names = [scalar_text(_get(step, "id")) or f"step-{number}" for number, step in enumerate(steps)]
    known, seen = frozenset(names), set[str]()
    jobs: list[Job] = []
    ends: dict[str, None] = {}
    """Steps that no later step waits for: whoever waits for all of them waits for every step so far."""
    for name, step in zip(names, steps, strict=True):
        _mark(step, _STEP)
        image = step.raw("name")
        if not isinstance(image, str) or not image:
            step.problem("name" if "name" in step.data else None, 'a step needs "name", the image it runs in')
            image = ""
        if name in seen:
            step.problem("id" if "id" in step.data else None, f"the step {name[:60]!r} is defined already")
        seen.add(name)
        needs = _needs(step, known, tuple(ends))
        for need in needs:
            ends.pop(need, None)
        ends[name] = None
        jobs.append(Job(name=name, needs=needs, image=image, uses=(image,) if image else (), steps=1))
    for name in circular({job.name: list(job.needs) for job in jobs}):
        view.ledger.problem(("steps", names.index(name), "waitFor"), f"the step {name[:60]!r} waits for itself, by way of others")
    return jobs


def _needs(step: View, known: frozenset[str], ends: tuple[str, ...]) -> tuple[str, ...]:
    wait = _get(step, "waitFor")
    if wait is None or wait == []:
        return ends
    items = [scalar_text(item) for item in (wait if isinstance(wait, list) else [wait]) if not isinstance(item, dict | list)]
    for item in items:
        if item != "-" and item not in known:
            step.problem("waitFor" if "waitFor" in step.data else "wait_for", f"{item[:60]!r} is no step of this build")
    return tuple(dict.fromkeys(item for item in items if item in known))
