"""Procfile: one process type per line. https://devcenter.heroku.com/articles/procfile says what it means:
`web` receives traffic, `release` runs before a release goes live, all others run without a port."""

from __future__ import annotations

import re
from typing import ClassVar

from homeport.blueprints.commands import command_line, fixed_port, without_comment
from homeport.blueprints.dialect import open_blueprint
from homeport.blueprints.document import Document, bounded, invalid
from homeport.blueprints.naming import Names, bare_name
from homeport.blueprints.source import SourceTree
from homeport.blueprints.view import Ledger
from homeport.model.base import slug
from homeport.model.errors import BlueprintInvalid, Problem
from homeport.model.reading import Fate, Loss, Reading, Written
from homeport.model.service import Hook, Scale, Service, WebService, WorkerService
from homeport.model.spec import Spec

_LINE = re.compile(r"^([A-Za-z0-9_.\-]+)\s*:(?:\s*$|\s+(?=\S)|(?=[^\s:/]))(.*)$")
_NAME = re.compile(r"^[A-Za-z0-9_.\-]+$")
MAX_PROCESSES = 200
MAX_PROBLEMS = 20
ONE_OFF = frozenset({"console", "shell", "migrate", "createsuperuser", "seed", "test", "tests", "debug", "rake", "setup", "init"})
"""Process types that people run by hand: Heroku starts none of them by itself."""


def parse_procfile(file: str, text: str) -> Document:
    """The process types of a Procfile and their command lines. Raises BlueprintInvalid naming every line that is neither
    `name: command`, a comment nor empty."""
    bounded(file, text)
    document = Document(file, text, {})
    problems: list[Problem] = []
    for number, line in enumerate(text.split("\n"), 1):
        stripped = line.strip().lstrip("\ufeff")
        if not stripped or stripped.startswith("#"):
            continue
        if len(problems) >= MAX_PROBLEMS or len(document.data) >= MAX_PROCESSES:
            problems.append(Problem(f"more than {MAX_PROCESSES} processes, or too many faults to list", line=number, column=1))
            break
        match = _LINE.match(stripped)
        if match is None:
            problems.append(_malformed(stripped, number, len(line) - len(line.lstrip()) + 1))
        elif not match[2]:
            problems.append(Problem(f"the process {match[1][:60]!r} has no command", match[1], number, line.index(":") + 1))
        elif match[1] in document.data:
            problems.append(Problem(f"the process {match[1][:60]!r} stands twice", match[1], number, 1))
        else:
            document.data[match[1]] = without_comment(match[2].strip())
            document.places[(match[1],)] = (number, line.index(match[1]) + 1)
    if problems:
        raise BlueprintInvalid(file=file, problems=problems, text=text)
    if not document.data:
        raise invalid(file, text, "no process is named here", 1, 1, "Write a line such as `web: gunicorn app:app`.")
    return document


def _malformed(line: str, number: int, column: int) -> Problem:
    if line.startswith(("{%", "{{", "<%")):
        return Problem("this is a template, not yet a Procfile", line=number, column=column, fix="Render the template first.")
    if line.startswith(("<<<<<<<", "=======", ">>>>>>>")):
        return Problem("a merge conflict is left in the file", line=number, column=column, fix="Resolve the conflict.")
    return Problem("this line is not `name: command`", line=number, column=column)


class ProcfileReader:
    """Heroku's process types, as Dokku, Railway, Render and Cloud Native Buildpacks read them too."""

    dialect: ClassVar[str] = "procfile"
    precedence: ClassVar[int] = 30

    def recognises(self, file_name: str, text: str) -> bool:  # noqa: ARG002
        return bare_name(file_name) == "Procfile"

    def candidates(self, tree: SourceTree) -> list[str]:
        return [name for name in tree.list() if name == "Procfile"]

    def read(self, tree: SourceTree, path: str) -> Reading:
        ledger = Ledger(parse_procfile(path, open_blueprint(tree, path)))
        warnings: list[str] = []
        names = Names()
        services: dict[str, Service] = {}
        release = ""
        for process, command in ledger.document.data.items():
            ledger.note((process,), Fate.HONOURED)
            if process == "release":
                release = command
                continue
            name = names.claim(process)
            services[name] = _service(process, name, command, ledger)
        if release:
            _attach_release(services, release, warnings)
        spec = Spec(name=slug(tree.name), title=Names.title(tree.name, slug(tree.name)), services=services)
        return Reading(file=path, dialect=self.dialect, spec=spec, keys=ledger.close(), warnings=tuple(warnings))


def _service(process: str, name: str, command: str, ledger: Ledger) -> Service:
    title = Names.title(process, name)
    if process == "web":
        return WebService(command=command, port=fixed_port(command))
    if name in ONE_OFF:
        ledger.note(
            (process,), Fate.APPROXIMATED, f"not started by itself, as on Heroku; `homeport scale {name}=1` or `homeport run` starts it"
        )
        return WorkerService(title=title, command=command, scale=Scale(instances=0))
    return WorkerService(title=title, command=command)


def _attach_release(services: dict[str, Service], release: str, warnings: list[str]) -> None:
    """The release command belongs to the web service, or else to the first one."""
    if not services:
        warnings.append("No `web` process is named: its start command is detected from the source.")
        services["web"] = WebService()
    owner = "web" if "web" in services else next(iter(services))
    services[owner] = services[owner].model_copy(update={"release_command": Hook(command=release)})


def _process_name(name: str, title: str) -> str:
    """What a process that is not the web process is called; `web` and `release` mean something else."""
    process = title if _NAME.match(title) else name
    return f"{process}-worker" if slug(process) in ("web", "release") else process


class ProcfileWriter:
    """Writes process types and the release command; a Procfile can say no more."""

    dialect: ClassVar[str] = "procfile"

    def write(self, spec: Spec) -> Written:
        lines: list[str] = []
        losses: list[Loss] = []
        renamed: dict[str, str] = {}
        release = ""
        taken: set[str] = set()
        web = next((n for n, s in spec.services.items() if s.kind == "web" and n == "web"), None)
        web = web or next((n for n, s in spec.services.items() if s.kind == "web"), None)
        for name, service in spec.services.items():
            if service.kind not in ("web", "worker") or (service.kind == "web" and name != web):
                why = "a Procfile has one web process" if service.kind == "web" else f"a Procfile has no {service.kind} service"
                losses.append(Loss(path=f"services.{name}", reason=why))
                continue
            command = command_line(service.command)
            if service.release_command is not None and not release:
                release = command_line(service.release_command.command)
            if not command or "\n" in command:
                why = "a Procfile needs a start command" if not command else "a Procfile holds a command on one line"
                losses.append(Loss(path=f"services.{name}.command", reason=why))
                continue
            process = "web" if name == web else _process_name(name, service.title)
            there = "web" if name == web else slug(process)
            if there in taken:
                losses.append(Loss(path=f"services.{name}", reason=f"another process is called {process} already"))
                continue
            taken.add(there)
            if there != name:
                renamed[name] = there
            lines.append(f"{process}: {command}")
        if release:
            lines.insert(0, f"release: {release}")
        losses += [Loss(path=f"addons.{name}", reason="a Procfile names no add-ons") for name in spec.addons]
        text = "\n".join(lines) + "\n" if lines else "# no process of this project fits a Procfile\n"
        return Written(dialect=self.dialect, files={"Procfile": text}, losses=tuple(losses), renamed=renamed)
