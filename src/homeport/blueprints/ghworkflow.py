"""GitHub workflows: `.github/workflows/*.yml`, parsed to a typed pipeline.

The keys and rules are those GitHub checks itself (actions/languageservices, workflow-v1.0.json): required keys, job names,
`needs` that lead nowhere or in a circle, steps without `run` or `uses`. Expressions are kept as text.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar

from homeport.blueprints.document import parse_yaml
from homeport.blueprints.naming import bare_name
from homeport.blueprints.opening import finish, open_file
from homeport.blueprints.source import SourceTree
from homeport.blueprints.view import View, scalar_text
from homeport.model.base import slug
from homeport.model.reading import Fate, Reading, leaves
from homeport.model.spec import Job, Pipeline, Spec

LISTED = "listed in the plan as a pipeline; this version does not run pipelines"
_JOB_ID = re.compile(r"^[A-Za-z_][A-Za-z0-9_-]{0,99}$")
_TOP = frozenset({"name", "description", "run-name", "on", "defaults", "env", "permissions", "concurrency", "jobs"})
_JOB = frozenset({
    "name", "needs", "if", "strategy", "runs-on", "timeout-minutes", "cancel-timeout-minutes", "continue-on-error", "container", "services",
    "env", "environment", "permissions", "concurrency", "outputs", "defaults", "steps", "snapshot", "uses", "with", "secrets",
})  # fmt: skip
_CALL = frozenset({"name", "uses", "with", "secrets", "needs", "if", "permissions", "concurrency", "strategy"})
_STEP = frozenset({
    "name", "id", "if", "continue-on-error", "timeout-minutes", "uses", "with", "env", "run", "working-directory", "shell", "background",
    "wait", "parallel", "cancel", "wait-all",
})  # fmt: skip


class GitHubWorkflowReader:
    """Reads one workflow file."""

    dialect: ClassVar[str] = "ghworkflow"
    precedence: ClassVar[int] = 90

    def recognises(self, file_name: str, text: str) -> bool:
        if not bare_name(file_name).lower().endswith((".yml", ".yaml")):
            return False
        if ".github__workflows__" in file_name or ".github/workflows/" in file_name:
            return True
        keys = set(re.findall(r"^(on|\"on\"|'on'|jobs)[ \t]*:", text, re.MULTILINE))
        return "jobs" in keys and len(keys) > 1

    def candidates(self, tree: SourceTree) -> list[str]:
        folder = ".github/workflows"
        return [f"{folder}/{name}" for name in tree.list(folder) if name.endswith((".yml", ".yaml"))]

    def read(self, tree: SourceTree, path: str) -> Reading:
        view = open_file(tree, path, parse_yaml)
        return finish(view, self.dialect, lambda: _spec(view, tree, path))


def _spec(view: View, tree: SourceTree, path: str) -> Spec:
    _account(view, _TOP)
    for key in ("name", "run-name", "description"):
        if isinstance(view.raw(key), dict | list):
            view.problem(key, "text is expected here")
    if view.data:
        for key in ("on", "jobs"):
            if key not in view:
                view.problem(None, f"the required key {key!r} is missing")
    _check_expressions(view)
    jobs = _jobs(view)
    _check_needs(view, jobs)
    name = scalar_text(view.raw("name")) if not isinstance(view.raw("name"), dict | list) else ""
    stem = re.sub(r"\.ya?ml$", "", bare_name(path))
    pipeline = Pipeline(
        name=name or stem, dialect="github-workflow", file=path, on=_events(view), jobs=tuple(jobs.values()), document=view.data
    )
    return Spec(name=slug(tree.name), pipelines=(pipeline,) if view.data else ())


def _account(view: View, known: frozenset[str]) -> None:
    """All known keys are listed; an unknown one stays unknown, with a suggestion."""
    view.approximated(*sorted(known), reason=LISTED)


def _events(view: View) -> tuple[str, ...]:
    value = view.raw("on")
    if isinstance(value, dict):
        return tuple(value)
    if isinstance(value, list):
        return tuple(scalar_text(v) for v in value if not isinstance(v, dict | list))
    return (scalar_text(value),) if value is not None else ()


def _jobs(view: View) -> dict[str, Job]:
    found: dict[str, Job] = {}
    if "jobs" not in view:
        return found
    table = view.view("jobs")
    if not table.data:
        view.problem("jobs", "the workflow must contain at least one job with no dependencies")
    lower: dict[str, str] = {}
    for title, job in table.items():
        _check_id(job, title, lower)
        found[title] = _job(job, title)
    return found


def _check_id(job: View, title: str, lower: dict[str, str]) -> None:
    shown = title[:60]
    if not _JOB_ID.match(title):
        job.problem(None, f"{shown!r} is no job name: letters, digits, `_` and `-`, at most 100, beginning with a letter or `_`")
    elif title.startswith("__"):
        job.problem(None, f"the job name {shown!r} is reserved: it begins with two underscores")
    elif title.lower() in lower:
        job.problem(None, f"the job {shown!r} is defined already: names differ in more than case")
    lower[title.lower()] = title


def _job(job: View, title: str) -> Job:
    uses = job.raw("uses")
    _mark(job, _CALL if uses is not None else _JOB)
    if uses is not None and ("runs-on" in job or "steps" in job):
        extra = "runs-on" if "runs-on" in job else "steps"
        job.problem(extra, f"a job that calls a workflow with `uses` has no `{extra}`")
    elif uses is None and "runs-on" not in job:
        job.problem(None, "the required key 'runs-on' is missing", "Name a runner, such as `runs-on: ubuntu-latest`.")
    steps = list(job.views("steps"))
    called = [scalar_text(uses)] if uses is not None else []
    for step in steps:
        called += _step(step)
    _check_step_ids(steps)
    return Job(
        name=title,
        needs=_needs(job),
        runs_on=_runs_on(job.raw("runs-on")),
        image=_image(job.raw("container")),
        steps=len(steps),
        uses=tuple(dict.fromkeys(called)),
        matrix=_matrix(job),
        condition=scalar_text(job.raw("if")) if not isinstance(job.raw("if"), dict | list) else "",
    )


def _mark(view: View, known: frozenset[str]) -> None:
    """Keys that do not belong here become unknown again; the mapping as a whole was listed."""
    for key in sorted(known):
        view.ledger.knows(view.path, key)
    for key in view.keys():  # noqa: SIM118 - a View is no mapping
        if key not in known:
            view.ledger.note(view.at(key), Fate.UNKNOWN, "no such key is known in this place")


def _step(step: View) -> list[str]:
    _mark(step, _STEP)
    kinds = [key for key in ("run", "uses") if key in step]
    others = any(key in step for key in ("wait", "parallel", "cancel", "wait-all"))
    if len(kinds) == 2:
        step.problem("uses", "a step has either `run` or `uses`")
    elif not kinds and not others and step.data:
        step.problem(None, "a step needs `run` or `uses`")
    for key in kinds:
        value = step.raw(key)
        if isinstance(value, dict | list) or value is None or value == "":
            step.problem(key, f"`{key}` must be text that is not empty")
            return []
    return [scalar_text(step.raw("uses"))] if "uses" in kinds else []


def _check_step_ids(steps: list[View]) -> None:
    seen: set[str] = set()
    for step in steps:
        name = step.raw("id")
        if not isinstance(name, str) or "${{" in name:
            continue
        if not _JOB_ID.match(name) or name.startswith("__"):
            step.problem("id", f"{name[:60]!r} is no step id: letters, digits, `_` and `-`, beginning with a letter or one `_`")
        elif name.lower() in seen:
            step.problem("id", f"the step id {name[:60]!r} is used twice in one job")
        seen.add(name.lower())


def _check_expressions(view: View) -> None:
    """Every `${{` is closed, and holds something."""
    for path in leaves(view.data):
        value: Any = view.data
        for part in path:
            value = value[part]
        if not isinstance(value, str) or "${{" not in value:
            continue
        if fault := _expression_fault(value):
            view.ledger.problem(path, fault)


def _expression_fault(text: str) -> str:
    """What is wrong with the first bad `${{ … }}` of a text; a quoted text inside may hold anything. Linear in the text."""
    at = text.find("${{")
    while at >= 0:
        start = at = at + 3
        while not text.startswith("}}", at):
            if at >= len(text):
                return "the expression is not closed: `${{` stands without `}}`"
            at = text.find("'", at + 1) if text[at] == "'" else at
            if at < 0:
                return "the expression is not closed: a quote stands alone"
            at += 1
        if not text[start:at].strip():
            return "an expression is expected between `${{` and `}}`"
        at = text.find("${{", at)
    return ""


def _matrix(job: View) -> bool:
    strategy = job.raw("strategy")
    if not isinstance(strategy, dict):
        return False
    view = job.view("strategy")
    _mark(view, frozenset({"fail-fast", "max-parallel", "matrix"}))
    matrix = strategy.get("matrix")
    for key, values in matrix.items() if isinstance(matrix, dict) else ():
        if values == [] and key not in ("include", "exclude"):
            view.view("matrix").problem(key, f"the matrix row {key[:60]!r} holds no values")
    return matrix is not None


def _needs(job: View) -> tuple[str, ...]:
    value = job.raw("needs")
    items = value if isinstance(value, list) else [] if value is None or isinstance(value, dict) else [value]
    return tuple(scalar_text(item) for item in items if not isinstance(item, dict | list))


def _runs_on(value: Any) -> str:
    if isinstance(value, dict):
        labels = value.get("labels")
        value = labels if labels is not None else value.get("group")
    if isinstance(value, list):
        return ", ".join(scalar_text(v) for v in value if not isinstance(v, dict | list))
    return "" if isinstance(value, dict) else scalar_text(value)


def _image(value: Any) -> str:
    value = value.get("image") if isinstance(value, dict) else value
    return "" if isinstance(value, dict | list) else scalar_text(value)


def _check_needs(view: View, jobs: dict[str, Job]) -> None:
    """Every needed job exists, one job needs none, and no job needs itself by a detour."""
    names = {name.lower(): name for name in jobs}
    graph: dict[str, list[str]] = {}
    for name, job in jobs.items():
        graph[name] = []
        for index, needed in enumerate(job.needs):
            where = ("jobs", name, "needs", index)
            place = where if where in view.ledger.document.places else where[:-1]
            if needed.lower() in names:
                graph[name].append(names[needed.lower()])
            else:
                view.ledger.problem(place, f"job {name[:60]!r} needs {needed[:60]!r}, which is no job of this workflow")
    if jobs and all(job.needs for job in jobs.values()):
        view.ledger.problem(("jobs",), "the workflow must contain at least one job with no dependencies")
    for name in circular(graph):
        view.ledger.problem(("jobs", name, "needs"), f"job {name[:60]!r} needs itself, by way of others")


def circular(graph: dict[str, list[str]]) -> list[str]:
    """Nodes that lie on a circle or between two: what is left when free ends are taken away from both sides (Kahn's algorithm)."""
    left = _peeled({node: set(needs) & graph.keys() for node, needs in graph.items()})
    return sorted(_peeled(_turned(left)))


def _turned(graph: dict[str, set[str]]) -> dict[str, set[str]]:
    turned: dict[str, set[str]] = {node: set() for node in graph}
    for node, needs in graph.items():
        for need in needs & graph.keys():
            turned[need].add(node)
    return turned


def _peeled(graph: dict[str, set[str]]) -> dict[str, set[str]]:
    """The graph without the nodes that can be put in an order."""
    waiting = {node: len(needs & graph.keys()) for node, needs in graph.items()}
    dependents = _turned(graph)
    free = [node for node, count in waiting.items() if not count]
    while free:
        node = free.pop()
        del waiting[node]
        for dependent in dependents[node]:
            waiting[dependent] -= 1
            if not waiting[dependent]:
                free.append(dependent)
    return {node: graph[node] for node in waiting}
