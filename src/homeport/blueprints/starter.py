"""The homeport.yaml that `homeport init` writes: what a project's files say, each key explained where it first appears."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from homeport.blueprints.homeport import dump_yaml
from homeport.model.base import describe_models
from homeport.model.spec import Spec

WIDTH = 110


def starter(spec: Spec, origin: str) -> str:
    """The spec as commented YAML. `origin` names what it was read from. Reading it gives the same spec."""
    describe_models()
    document = {"version": 1, **spec.canonical()}
    explained: set[tuple[str, str]] = set()
    blocks: list[str] = [_wrapped(f"Written by `homeport init` from {origin}. Every key there is: `homeport blueprint sample`.", "")]
    for key, value in document.items():
        blocks.append("\n" + _about(Spec, key, explained, "") if key not in ("version", "name") else "")
        if key in ("services", "addons") and isinstance(value, Mapping) and value:
            blocks.append(f"{key}:\n")
            things = getattr(spec, key)
            for name, thing in value.items():
                blocks.append("".join(_thing(name, thing, type(things[name]), explained)))
        else:
            blocks.append(dump_yaml({key: value}))
    return "".join(blocks)


def _thing(name: str, fields: Mapping[str, Any], model: type[BaseModel], explained: set[tuple[str, str]]) -> Iterator[str]:
    """One service or add-on."""
    yield f"  {dump_yaml({name: None}).partition(':')[0]}:\n"
    for key, value in fields.items():
        if key != "kind":
            yield _about(model, key, explained, "    ")
        yield textwrap.indent(dump_yaml({key: value}), "    ")


def _about(model: type[BaseModel], key: str, explained: set[tuple[str, str]], pad: str) -> str:
    """The first sentence of a key's meaning, the first time it appears."""
    field = model.model_fields.get(key)
    text = (field.description or "").partition("\n\n")[0].replace("\n", " ") if field else ""
    if not text or (key, text) in explained:
        return ""
    explained.add((key, text))
    return _wrapped(text, pad)


def _wrapped(text: str, pad: str) -> str:
    return "".join(f"{pad}# {line}\n" for line in textwrap.wrap(text, WIDTH - len(pad)))
