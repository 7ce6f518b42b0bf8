"""`homeport.yaml`: the canonical dialect. It holds the spec as it is, so nothing is lost either way."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from functools import cache, reduce
from typing import Any, ClassVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from homeport.blueprints.dialect import open_blueprint
from homeport.blueprints.document import invalid, parse_json, parse_yaml
from homeport.blueprints.naming import bare_name
from homeport.blueprints.overrides import merge_patch
from homeport.blueprints.source import SourceTree
from homeport.blueprints.view import Ledger
from homeport.model.base import describe_models, slug
from homeport.model.reading import Fate, Path, Reading, Written
from homeport.model.spec import Spec

FILES = ("homeport.yaml", "homeport.yml", "homeport.json")
_MESSAGES = {
    "union_tag_not_found": "`kind` is missing here",
    "missing": "this key is needed and missing",
}


class HomeportReader:
    """The spec as a file."""

    dialect: ClassVar[str] = "homeport"
    precedence: ClassVar[int] = 0

    def recognises(self, file_name: str, text: str) -> bool:  # noqa: ARG002
        return bare_name(file_name) in FILES

    def candidates(self, tree: SourceTree) -> list[str]:
        names = tree.list()
        return [name for name in FILES if name in names]

    def read(self, tree: SourceTree, path: str) -> Reading:
        text = open_blueprint(tree, path)
        document = parse_json(path, text) if path.endswith(".json") else parse_yaml(path, text)
        if not isinstance(document.data, dict):
            raise invalid(path, text, "a mapping of keys is expected here", 1, 1, "Write `services:` and describe at least one service.")
        ledger = Ledger(document)
        data = {"name": slug(tree.name), **document.data}
        ledger.note((), Fate.HONOURED)
        spec, _ = _validated(data, ledger, ())
        if spec is None:
            ledger.close()
            raise invalid(path, text, "this is no valid description of a project")
        base = {key: value for key, value in spec.canonical().items() if key != "environments"}
        patches: dict[str, dict[str, Any]] = {}
        for environment, patch in spec.environments.items():
            _, unknown = _validated(merge_patch(base, patch), ledger, ("environments", environment))
            patches[environment] = reduce(_without, unknown, patch)
        if patches:
            spec = spec.model_copy(update={"environments": patches})
        for name, service in spec.services.items():
            if "container" in service.model_fields_set:
                ledger.note(("services", name, "container"), Fate.APPROXIMATED, "only a container runtime acts upon it")
        return Reading(file=path, dialect=self.dialect, spec=spec, keys=ledger.close())


def _validated(data: dict[str, Any], ledger: Ledger, prefix: Path) -> tuple[Spec | None, list[Path]]:
    """The spec of a document, and the paths of unknown keys, which are noted and left out.
    Other faults become problems of the ledger; the spec is then None."""
    removed: list[Path] = []
    while True:
        try:
            return Spec.model_validate(data), removed
        except ValidationError as error:
            faults = error.errors(include_url=False, include_context=False, include_input=False)
        unknown = [fault for fault in faults if fault["type"] == "extra_forbidden"]
        for fault in faults:
            if fault["type"] != "extra_forbidden":
                where = _path_in(data, fault["loc"])
                message = _MESSAGES.get(fault["type"], fault["msg"].removeprefix("Value error, "))
                ledger.problem(_known_part(ledger, prefix + where), message)
        if not unknown or len(unknown) < len(faults):
            return None, removed
        for fault in unknown:
            where = _path_in(data, fault["loc"])
            ledger.note(prefix + where, Fate.UNKNOWN, "no such key is known in this place")
            ledger.suggest(prefix + where, (difflib.get_close_matches(str(where[-1]), field_names(), 1, 0.7) or [""])[0])
            data = _without(data, where)
            removed.append(where)


def _path_in(data: Any, location: tuple[int | str, ...]) -> Path:
    """A pydantic location as a path of the data: the tags of unions are left out, a missing last key is kept."""
    path: Path = ()
    at = data
    for index, part in enumerate(location):
        inside = part in at if isinstance(at, dict) else isinstance(at, list | tuple) and isinstance(part, int) and part < len(at)
        if inside:
            at = at[part]
        elif index < len(location) - 1 or not isinstance(at, dict):
            continue
        path = (*path, part)
    return path


def _known_part(ledger: Ledger, path: Path) -> Path:
    """The path, or for an inherited value of an environment the place in the base document it comes from."""
    if path[:1] == ("environments",) and len(path) > 2 and path not in ledger.document.places and path[2:] in ledger.document.places:
        return path[2:]
    return path


def _without(data: Any, path: Path) -> Any:
    if isinstance(data, dict):
        if len(path) == 1:
            return {key: value for key, value in data.items() if key != path[0]}
        return {key: _without(value, path[1:]) if key == path[0] else value for key, value in data.items()}
    return [_without(value, path[1:]) if index == path[0] else value for index, value in enumerate(data)]


@cache
def field_names() -> tuple[str, ...]:
    """Every field name of the spec and of what it is made of."""
    return tuple(sorted({name for model in models() for name in model.model_fields}))


@cache
def models() -> tuple[type[BaseModel], ...]:
    """The spec's model and every model it is made of, in order of first use."""
    found: dict[type[BaseModel], None] = {}
    waiting: list[type[BaseModel]] = [Spec]
    while waiting:
        model = waiting.pop(0)
        if model in found:
            continue
        found[model] = None
        for field in model.model_fields.values():
            waiting.extend(_models_in(field.annotation))
    return tuple(found)


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models_in(part)


class _Dumper(yaml.SafeDumper):
    """Block style; texts of several lines as `|`."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002
        super().increase_indent(flow, False)


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _text)


def dump_yaml(data: Mapping[str, Any]) -> str:
    """Plain data as readable YAML in the order given."""
    return yaml.dump(dict(data), Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True, default_flow_style=False)


class HomeportWriter:
    """Writes the canonical file. Nothing is lost."""

    dialect: ClassVar[str] = "homeport"

    def write(self, spec: Spec) -> Written:
        return Written(dialect=self.dialect, files={"homeport.yaml": dump_yaml(spec.canonical())})


def homeport_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of `homeport.yaml`."""
    describe_models()
    schema = Spec.model_json_schema(mode="validation")
    schema["required"] = [key for key in schema.get("required", []) if key != "name"]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **_with_shorthand(schema),
        "title": "homeport.yaml",
        "description": "A project: services, add-ons, env groups, routes, and what differs per environment.",
    }


def _with_shorthand(node: Any) -> Any:
    """A bare scalar stands for `{kind: value, value: …}`: the schema allows what the reader accepts."""
    if isinstance(node, list):
        return [_with_shorthand(item) for item in node]
    if not isinstance(node, dict):
        return node
    plain = {key: _with_shorthand(value) for key, value in node.items()}
    if "PlainValue" in str(plain.get("discriminator", {}).get("mapping", {}).get("value", "")):
        return {"anyOf": [{"type": ["string", "number", "boolean"]}, plain]}
    return plain
