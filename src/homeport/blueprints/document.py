"""Parsed files that remember where each value stands: YAML, JSON with comments, TOML.

Limits hold before memory is spent: size, nesting depth, number of nodes, alias expansion.
"""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import dataclass, field
from typing import Any

import yaml

from homeport.blueprints.source import MAX_FILE
from homeport.model.errors import BlueprintInvalid, Problem
from homeport.model.reading import Path

MAX_DEPTH = 60
MAX_NODES = 60_000


@dataclass
class Document:
    """Plain data, its text, and the place of every path."""

    file: str
    text: str
    data: Any
    places: dict[Path, tuple[int, int]] = field(default_factory=dict)
    """Line and column, from 1, of each mapping key or list item."""

    def place(self, path: Path) -> tuple[int, int]:
        """The place of a path, or of its nearest parent; (0, 0) when unknown."""
        for end in range(len(path), -1, -1):
            if (found := self.places.get(path[:end])) is not None:
                return found
        return 0, 0


def invalid(file: str, text: str, message: str, line: int = 0, column: int = 0, fix: str = "") -> BlueprintInvalid:
    """One located problem as an error."""
    return BlueprintInvalid(file=file, problems=[Problem(message, line=line, column=column, fix=fix)], text=text)


def parse_yaml(file: str, text: str) -> Document:
    """Parse one YAML document (anchors and `<<` merged). Raises BlueprintInvalid."""
    bounded(file, text)
    loader = yaml.CSafeLoader(text)
    try:
        node = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
        raise invalid(file, text, f"{error.problem or error.context or 'not valid YAML'}", line, column) from error
    except yaml.YAMLError as error:
        raise invalid(file, text, f"not valid YAML: {error}".splitlines()[0]) from error
    finally:
        loader.dispose()
    document = Document(file, text, None)
    if node is not None:
        document.data = _YamlBuilder(document).build(node, (), 0)
    return document


_SCALARS = yaml.SafeLoader("")
"""Resolves YAML 1.1 scalars as every YAML tool does (`yes` is true, 0o17 is 15)."""


class _YamlBuilder:
    """Turns composed nodes into plain data, counting every node that aliases multiply."""

    def __init__(self, document: Document) -> None:
        self.document, self.count = document, 0

    def build(self, node: yaml.Node, path: Path, depth: int) -> Any:
        self.count += 1
        if self.count > MAX_NODES:
            raise self._error(node, f"more than {MAX_NODES} values (aliases counted as often as they are used)")
        if depth > MAX_DEPTH:
            raise self._error(node, f"nested deeper than {MAX_DEPTH} levels")
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path, depth)
        if isinstance(node, yaml.SequenceNode):
            items = []
            for index, child in enumerate(node.value):
                self.document.places[(*path, index)] = (child.start_mark.line + 1, child.start_mark.column + 1)
                items.append(self.build(child, (*path, index), depth + 1))
            return items
        return self._scalar(node)

    def _mapping(self, node: yaml.MappingNode, path: Path, depth: int) -> dict[str, Any]:
        result: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                for source in value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]:
                    data = self.build(source, path, depth + 1)
                    if not isinstance(data, dict):
                        raise self._error(value_node, "`<<` merges mappings only")
                    merged = {**data, **merged}
                continue
            key = self._key(key_node)
            if key in result:
                raise self._error(key_node, f"the key {key[:60]!r} stands twice in one mapping")
            self.document.places[(*path, key)] = (key_node.start_mark.line + 1, key_node.start_mark.column + 1)
            result[key] = self.build(value_node, (*path, key), depth + 1)
        return {**{k: v for k, v in merged.items() if k not in result}, **result} if merged else result

    def _key(self, node: yaml.Node) -> str:
        if not isinstance(node, yaml.ScalarNode):
            raise self._error(node, "a key must be plain text")
        return str(node.value)

    def _scalar(self, node: yaml.Node) -> Any:
        if not node.tag.startswith("tag:yaml.org,2002:"):
            return node.value
        try:
            value = _SCALARS.construct_object(node)
        except (yaml.YAMLError, ValueError) as error:
            raise self._error(node, f"{str(node.value)[:60]!r} is not a valid {node.tag.rsplit(':', 1)[-1]}") from error
        return value if isinstance(value, None | bool | int | float | str) else str(node.value)

    def _error(self, node: yaml.Node, message: str) -> BlueprintInvalid:
        return invalid(self.document.file, self.document.text, message, node.start_mark.line + 1, node.start_mark.column + 1)


def parse_json(file: str, text: str) -> Document:
    """Parse JSON; comments and trailing commas are read as VS Code reads JSONC. Raises BlueprintInvalid."""
    bounded(file, text)
    return _JsonParser(file, text).document()


_JSON_SPACE = re.compile(r"(?:\s+|//[^\n]*|/\*.*?\*/)*", re.DOTALL)
_JSON_ATOM = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null")


class _JsonParser:
    def __init__(self, file: str, text: str) -> None:
        self.file, self.text, self.at, self.count = file, text, 0, 0
        self.result = Document(file, text, None)
        self.line_starts = [0] + [m.end() for m in re.finditer("\n", text)]

    def document(self) -> Document:
        self._space()
        if self.at < len(self.text):
            self.result.data = self._value((), 0)
            self._space()
            if self.at < len(self.text):
                raise self._error("text after the end of the document")
        return self.result

    def _place(self, at: int) -> tuple[int, int]:
        from bisect import bisect_right

        line = bisect_right(self.line_starts, at)
        return line, at - self.line_starts[line - 1] + 1

    def _error(self, message: str) -> BlueprintInvalid:
        return invalid(self.file, self.text, message, *self._place(min(self.at, len(self.text))))

    def _space(self) -> None:
        self.at = _JSON_SPACE.match(self.text, self.at).end()  # type: ignore[union-attr]

    def _value(self, path: Path, depth: int) -> Any:
        self.count += 1
        if self.count > MAX_NODES:
            raise self._error(f"more than {MAX_NODES} values")
        if depth > MAX_DEPTH:
            raise self._error(f"nested deeper than {MAX_DEPTH} levels")
        char = self.text[self.at : self.at + 1]
        if char == "{":
            return self._object(path, depth)
        if char == "[":
            return self._array(path, depth)
        if char == '"':
            return self._string()
        match = _JSON_ATOM.match(self.text, self.at)
        if not match:
            raise self._error("a value is expected here" if char else "the file ends in the middle of a value")
        try:
            value = json.loads(match[0])
        except ValueError as error:
            raise self._error("this number is too large") from error
        self.at = match.end()
        return value

    def _string(self) -> str:
        try:
            value, self.at = json.decoder.scanstring(self.text, self.at + 1, False)  # type: ignore[attr-defined]
        except ValueError as error:
            raise self._error(getattr(error, "msg", "a string without end")) from error
        return str(value)

    def _object(self, path: Path, depth: int) -> dict[str, Any]:
        result: dict[str, Any] = {}
        self.at += 1
        while True:
            self._space()
            char = self.text[self.at : self.at + 1]
            if char == "}":
                self.at += 1
                return result
            if char != '"':
                raise self._error('a key in double quotes or "}" is expected here')
            place = self._place(self.at)
            key = self._string()
            if key in result:
                raise invalid(self.file, self.text, f"the key {key[:60]!r} stands twice in one object", *place)
            self.result.places[(*path, key)] = place
            self._space()
            if self.text[self.at : self.at + 1] != ":":
                raise self._error('":" is expected here')
            self.at += 1
            self._space()
            result[key] = self._value((*path, key), depth + 1)
            self._space()
            if not self._separator("}"):
                raise self._error('"," or "}" is expected here')

    def _array(self, path: Path, depth: int) -> list[Any]:
        result: list[Any] = []
        self.at += 1
        while True:
            self._space()
            if self.text[self.at : self.at + 1] == "]":
                self.at += 1
                return result
            self.result.places[(*path, len(result))] = self._place(self.at)
            result.append(self._value((*path, len(result)), depth + 1))
            self._space()
            if not self._separator("]"):
                raise self._error('"," or "]" is expected here')

    def _separator(self, closing: str) -> bool:
        char = self.text[self.at : self.at + 1]
        if char == ",":
            self.at += 1
        return char in (",", closing) and char != ""


_TOML_WHERE = re.compile(r"\(at line (\d+), column (\d+)\)")
_TOML_LINE = re.compile(r"^\s*(\[\[?)\s*(.+?)\s*\]\]?\s*(?:#.*)?$|^\s*([A-Za-z0-9_\-\"'.]+)\s*=", re.MULTILINE)


def parse_toml(file: str, text: str) -> Document:
    """Parse TOML 1.0. Places are those of table headers and keys. Raises BlueprintInvalid."""
    bounded(file, text)
    try:
        data = tomllib.loads(text.replace("\r\n", "\n"))
    except (tomllib.TOMLDecodeError, ValueError, RecursionError) as error:
        where = _TOML_WHERE.search(str(error))
        line, column = (int(where[1]), int(where[2])) if where else (0, 0)
        raise invalid(file, text, _TOML_WHERE.sub("", str(error)).strip() or "not valid TOML", line, column) from error
    document = Document(file, text, _plain(data))
    _place_toml(document)
    return document


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_plain(v) for v in value]
    return value if isinstance(value, None | bool | int | float | str) else str(value)


def _place_toml(document: Document) -> None:
    table: Path = ()
    counts: dict[Path, int] = {}
    for number, line in enumerate(document.text.split("\n"), 1):
        match = _TOML_LINE.match(line)
        if not match:
            continue
        if match[1]:
            table = _toml_key(match[2], counts)
            if match[1] == "[[":
                counts[table] = counts.get(table, -1) + 1
                table = (*table, counts[table])
            document.places.setdefault(table, (number, line.index("[") + 1))
        else:
            path = (*table, *_toml_key(match[3], {}))
            document.places.setdefault(path, (number, len(line) - len(line.lstrip()) + 1))


def _toml_key(text: str, counts: dict[Path, int]) -> Path:
    path: Path = ()
    for bare, quoted in re.findall(r"([A-Za-z0-9_\-]+)|[\"']([^\"']*)[\"']", text):
        path = (*path, bare or quoted)
        if path in counts and len(path) < text.count(".") + 1:
            path = (*path, counts[path])
    return path


def bounded(file: str, text: str) -> None:
    """Refuse text that is too large or no text. Raises BlueprintInvalid."""
    if len(text) > MAX_FILE:
        raise invalid(file, "", f"larger than {MAX_FILE >> 20} MiB", fix="A deployment file is rarely past 100 kB; is this the right file?")
    if "\0" in text:
        raise invalid(file, "", "not a text file (it holds a NUL byte)")
