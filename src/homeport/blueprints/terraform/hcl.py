"""HCL2 text from plain data, laid out as `terraform fmt` does (https://developer.hashicorp.com/terraform/language/style)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_MARKS = re.compile(r"(?<![$%])(?P<whole>[$%]\{[\w .,:/-]*\})|(?P<run>[$%]+)|(?P<char>.)", re.DOTALL)
_NAMED = {"\n": "\\n", "\r": "\\r", "\t": "\\t", '"': '\\"', "\\": "\\\\"}


@dataclass(frozen=True)
class Ref:
    """An expression, written as it is: `var.region`, `google_redis_instance.cache.host`."""

    expression: str


@dataclass(frozen=True)
class Joined:
    """Text with expressions in it."""

    parts: tuple[str | Ref, ...]


Value: TypeAlias = "str | int | float | bool | Ref | Joined | Sequence[Value] | dict[str, Value] | None"


@dataclass
class Block:
    """`kind "label" "label" { … }`. Attributes stand before blocks; None is left out."""

    kind: str
    labels: tuple[str, ...] = ()
    attributes: dict[str, Value] = field(default_factory=dict)
    blocks: list[Block] = field(default_factory=list)


def quote(text: str, *, joined: bool = False) -> str:
    """The inside of a quoted template: nothing in it is taken for an expression, an escape or the end.

    A whole `${name}` becomes `$${name}`, as people write it. A mark before a brace that nothing closes, or behind another
    mark, is written by its code (`\\u0024{`), since parsers differ there. With `joined`, an expression
    follows, and marks at the end count as well.
    """
    found = []
    for match in _MARKS.finditer(text):
        whole, run, char = match["whole"], match["run"], match["char"]
        if whole is not None:
            found.append(whole[0] + whole)
        elif run is None:
            found.append(_char(char))
        elif text[match.end() : match.end() + 1] == "{" or (joined and match.end() == len(text)):
            found.append("".join(_code(mark) for mark in run))
        else:
            found.append(run)
    return "".join(found)


def _char(char: str) -> str:
    if char in _NAMED:
        return _NAMED[char]
    return char if char.isprintable() else _code(char)


def _code(char: str) -> str:
    return f"\\u{ord(char):04x}" if ord(char) < 0x10000 else f"\\U{ord(char):08x}"


def render(blocks: Sequence[Block]) -> str:
    """A file of blocks, an empty line between two."""
    return "\n".join("\n".join(_block(block, 0)) + "\n" for block in blocks)


def _block(block: Block, depth: int) -> list[str]:
    pad = "  " * depth
    head = " ".join([block.kind, *(f'"{quote(label)}"' for label in block.labels)])
    inside = _attributes({k: v for k, v in block.attributes.items() if v is not None}, depth + 1)
    for child in block.blocks:
        inside += ([""] if inside else []) + _block(child, depth + 1)
    return [f"{pad}{head} {{", *inside, f"{pad}}}"] if inside else [f"{pad}{head} {{}}"]


def _attributes(attributes: dict[str, Value], depth: int) -> list[str]:
    """Attribute lines; the equals signs of neighbouring one-line attributes stand below each other."""
    pad = "  " * depth
    rendered = [(_key(key), _value(value, depth)) for key, value in attributes.items()]
    lines: list[str] = []
    at = 0
    while at < len(rendered):
        end = at
        while end < len(rendered) and len(rendered[end][1]) == 1:
            end += 1
        width = max((len(key) for key, _ in rendered[at:end]), default=0)
        lines += [f"{pad}{key:<{width}} = {value[0]}" for key, value in rendered[at:end]]
        if end < len(rendered):
            key, value = rendered[end]
            lines += [f"{pad}{key} = {value[0]}", *value[1:]]
            end += 1
        at = end
    return lines


def _key(key: str) -> str:
    """The key of an attribute or an object. No key that a user chose is ever written, so parsers need not be kept from stumbling."""
    return key if IDENTIFIER.fullmatch(key) else f'"{quote(key)}"'


def _value(value: Value, depth: int) -> list[str]:
    """A value as lines: the first without indentation."""
    if isinstance(value, bool):
        return ["true" if value else "false"]
    if isinstance(value, int | float):
        return [repr(value)]
    if isinstance(value, str):
        return [f'"{quote(value)}"']
    if isinstance(value, Ref):
        return [value.expression]
    if isinstance(value, Joined):
        return [_template(value)]
    pad = "  " * depth
    if isinstance(value, dict):
        return ["{", *_attributes(value, depth + 1), f"{pad}}}"] if value else ["{}"]
    items = [_value(item, depth + 1) for item in value or ()]
    if all(len(item) == 1 for item in items) and sum(len(item[0]) + 2 for item in items) < 100:
        return ["[" + ", ".join(item[0] for item in items) + "]"]
    inner = "  " * (depth + 1)
    lines = [line for item in items for line in (f"{inner}{item[0]}", *item[1:-1], *([item[-1] + ","] if len(item) > 1 else []))]
    return ["[", *(line if line.endswith(",") else f"{line}," if _is_item(line, inner) else line for line in lines), f"{pad}]"]


def _is_item(line: str, inner: str) -> bool:
    """Whether a line is a whole item of a list."""
    return line.startswith(inner) and not line.startswith(inner + " ") and not line.endswith(("{", "["))


def _template(value: Joined) -> str:
    text = ""
    for at, part in enumerate(value.parts):
        if isinstance(part, Ref):
            text += f"${{{part.expression}}}"
        else:
            text += quote(part, joined=at + 1 < len(value.parts))
    return f'"{text}"'
