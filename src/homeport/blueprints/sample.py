"""The commented sample of homeport.yaml: every key with its meaning and default, generated from the model."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, Literal, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from homeport.model.addon import AddOnBase, External, MariaDB, Postgres, Redis, Temporal
from homeport.model.base import describe_models, format_duration, format_size
from homeport.model.service import CronService, FunctionService, PrivateService, ServiceBase, StaticService, WebService, WorkerService
from homeport.model.spec import Spec

WIDTH = 110
EXAMPLES: dict[str, Any] = {
    "Spec.name": "shop",
    "CronService.schedule": "0 3 * * *",
    "External.type": "mongodb",
    "WebService.command": "node server.js",
    "WorkerService.command": "node worker.js",
    "PrivateService.command": "node search.js",
    "CronService.command": "node nightly.js",
    "StaticService.publish": "dist",
    "FunctionService.entrypoint": "src/worker.js",
}
"""Values for keys that must be there, or that make the example one that runs."""
SHOWN: dict[str, type[BaseModel]] = {
    "web": WebService,
    "search": PrivateService,
    "mailer": WorkerService,
    "nightly": CronService,
    "site": StaticService,
    "edge": FunctionService,
}
ADDONS: dict[str, type[AddOnBase]] = {"db": Postgres, "cache": Redis, "workflows": Temporal, "legacy": MariaDB, "documents": External}
NESTED = {"build", "build_filter", "resources", "scale", "restart", "rollout", "previews", "health", "maintenance", "watch"}
"""Keys whose own keys are explained below them."""
OFF = "#~"
"""Marks a key that is switched off, until the text is whole."""
INTRODUCTION = """\
homeport.yaml: a project as Homeport knows it. Every key is shown here with its meaning and its default;
those behind a # have their default and may be left out. Durations are written like 30s or 1m30s, sizes like 512MiB.
"""
ENV = """\
Variables. A bare value stands for itself; other kinds:
  SECRET: {kind: secret}                                  # lives in the vault; `homeport env set SECRET`
  TOKEN: {kind: generated, format: hex, bytes: 32}        # made once per environment
  DATABASE_URL: {kind: addon, addon: db, property: url}
  SEARCH: {kind: service, service: search, property: hostport}
  URL: {kind: template, parts: ["redis://", {kind: addon, addon: cache, property: hostport}]}
"""


def sample() -> str:
    """A valid homeport.yaml that explains itself."""
    describe_models()
    lines = [*_comment(INTRODUCTION, 0), "version: 1", *_field("name", Spec.model_fields["name"], "Spec", 0)]
    for name in ("title", "description"):
        lines += _field(name, Spec.model_fields[name], "Spec", 0)
    lines += ["", "services:"]
    explained: set[str] = set()
    for name, model in SHOWN.items():
        lines += [f"  {name}:", *_comment(model.__doc__ or "", 4), f"    kind: {model.model_fields['kind'].default}"]
        lines += _fields(model, 4, skip=explained | {"kind"})
        explained |= set(ServiceBase.model_fields) - {"command"}
        lines.append("")
    lines.append("addons:")
    explained = set()
    for name, addon in ADDONS.items():
        lines += [f"  {name}:", *_comment(addon.__doc__ or "", 4), f"    kind: {addon.model_fields['kind'].default}"]
        lines += _fields(addon, 4, skip=explained | {"kind"})
        explained |= set(AddOnBase.model_fields)
        lines.append("")
    done = {"version", "name", "title", "description", "services", "addons"}
    lines += _fields(Spec, 0, skip=done)
    return "\n".join(line.replace(OFF, "# ", 1).rstrip() for line in lines) + "\n"


def _comment(text: str, indent: int) -> list[str]:
    found: list[str] = []
    for line in text.strip("\n").splitlines():
        body = (
            textwrap.wrap(line, WIDTH - indent, subsequent_indent=" " * (len(line) - len(line.lstrip())))
            if len(line) > WIDTH - indent
            else [line]
        )
        found += [f"{' ' * indent}# {part}" for part in body]
    return found


def _fields(model: type[BaseModel], indent: int, skip: set[str]) -> Iterator[str]:
    for name, field in model.model_fields.items():
        if name not in skip:
            yield from _field(name, field, model.__name__, indent)


def _field(name: str, field: FieldInfo, owner: str, indent: int) -> list[str]:
    pad = " " * indent
    about = ENV if name == "env" and owner == "WebService" else field.description or ""
    choices = _choices(field.annotation)
    if choices:
        about = f"{about} One of: {', '.join(choices)}.".strip()
    lines = _comment(about, indent) if about else []
    example = EXAMPLES.get(f"{owner}.{name}")
    if example is not None:
        return [*lines, f"{pad}{name}: {_inline(example)}"]
    inner = _nested(field)
    if name in NESTED and inner is not None:
        below = [line[indent + 2 :] for line in _fields(inner, indent + 2, skip=set())]
        return [*lines, f"{pad}{OFF}{name}:", *(f"{pad}#   {line.removeprefix(OFF)}" for line in below)]
    return [*lines, f"{pad}{OFF}{name}: {_inline(_default(field))}"]


def _nested(field: FieldInfo) -> type[BaseModel] | None:
    for candidate in (field.annotation, *get_args(field.annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def _choices(annotation: Any) -> list[str]:
    if get_origin(annotation) is Literal:
        return [str(choice) for choice in get_args(annotation) if choice != ""] if len(get_args(annotation)) > 1 else []
    return next((found for part in get_args(annotation) if (found := _choices(part))), []) if get_origin(annotation) is not dict else []


def _default(field: FieldInfo) -> Any:
    value = None if field.default is PydanticUndefined else field.default
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", exclude_defaults=True)
    if isinstance(value, timedelta):
        return format_duration(value)
    return format_size(value) if isinstance(value, int) and not isinstance(value, bool) and value >= 1 << 20 else value


def _inline(value: Any) -> str:
    """A value on one line, as YAML."""
    text: str = yaml.safe_dump(list(value) if isinstance(value, tuple) else value, default_flow_style=True, width=1000)
    return text.removesuffix("\n").removesuffix("...").strip()
