"""Parsed files that remember where each value stands: YAML, JSON with comments, TOML.

Limits hold before memory is spent: size, nesting depth, number of nodes, alias expansion.
"""

from __future__ import annotations

import json
import math
import re
import tomllib
from dataclasses import dataclass, field
from typing import Any

import yaml

from homeport.blueprints.source import MAX_FILE
from homeport.model.errors import BlueprintInvalid, Problem
from homeport.model.reading import Path

MAX_DEPTH = 60
MAX_NODES = 20_000
"""Values of one document; the largest of 3,000 real files has 1,600."""
SMALL = 1_500
"""Characters below which a text cannot nest deep enough to hurt."""
_TOO_MANY = f"more than {MAX_NODES} values (aliases counted as often as they are used)"
_TOO_DEEP = f"nested deeper than {MAX_DEPTH} levels"


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
    """One located problem as an error. Long messages (a parser quoting the file) are cut."""
    return BlueprintInvalid(file=file, problems=[Problem(message[:300], line=line, column=column, fix=fix)], text=text)


def guard_yaml(file: str, text: str) -> None:
    """Refuse YAML that is too large, too deep or has too many nodes, before anything is built of it. Raises BlueprintInvalid.

    libyaml's events come one at a time and cost no memory; composing nodes recurses in C, where `[[[[…` ends the process.
    """
    bounded(file, text)
    if len(text) < SMALL:
        return
    parser = yaml.CSafeLoader(text)
    depth = count = 0
    try:
        while (event := parser.get_event()) is not None:
            kind = type(event)
            if kind is yaml.ScalarEvent or kind is yaml.AliasEvent:
                count += 1
            elif kind is yaml.MappingStartEvent or kind is yaml.SequenceStartEvent:
                count += 1
                depth += 1
            elif kind is yaml.MappingEndEvent or kind is yaml.SequenceEndEvent:
                depth -= 1
            if depth > MAX_DEPTH or count > 2 * MAX_NODES:
                message = _TOO_DEEP if depth > MAX_DEPTH else _TOO_MANY
                mark = event.start_mark
                raise invalid(file, text, message, mark.line + 1 if mark else 0, mark.column + 1 if mark else 0)
    except yaml.YAMLError as error:
        raise yaml_fault(file, text, error) from error
    finally:
        parser.dispose()


def yaml_fault(file: str, text: str, error: yaml.YAMLError) -> BlueprintInvalid:
    """A parser's error as a located problem."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    message = getattr(error, "problem", None) or getattr(error, "context", None) or getattr(error, "reason", None) or "not valid YAML"
    if mark is not None:
        return invalid(file, text, str(message), mark.line + 1, mark.column + 1)
    at = getattr(error, "position", None)
    if not isinstance(at, int):
        return invalid(file, text, str(message))
    before = text.encode()[:at].decode(errors="replace")
    return invalid(file, text, str(message), before.count("\n") + 1, len(before) - before.rfind("\n"))


def parse_yaml(file: str, text: str) -> Document:
    """Parse one YAML document (anchors and `<<` merged). Raises BlueprintInvalid."""
    guard_yaml(file, text)
    loader = yaml.CSafeLoader(text)
    try:
        node = loader.get_single_node()
    except yaml.YAMLError as error:
        raise yaml_fault(file, text, error) from error
    finally:
        loader.dispose()
    document = Document(file, text, None)
    if node is not None:
        document.data = YamlBuilder(document).build(node, (), 0)
    return document


_TAG = "tag:yaml.org,2002:"
_STR = _TAG + "str"
_PLAIN_TAGS = frozenset(_TAG + name for name in ("str", "binary", "timestamp", "value"))
_NODE_TAGS = _PLAIN_TAGS | {_TAG + name for name in ("null", "bool", "int", "float", "merge", "map", "seq", "set", "omap", "pairs")}
_TRUE = frozenset({"yes", "true", "on"})


def _scalar_value(tag: str, text: str) -> Any:
    """A scalar of YAML 1.1, as the tools of that day read it (`yes` is true, `017` is 15), but for base-60 numbers,
    which nobody means: `22:22` stays text. So do numbers beyond 64 bits. Raises ValueError."""
    if tag in _PLAIN_TAGS or ":" in text:
        return text
    if tag == _TAG + "null":
        return None
    if tag == _TAG + "bool":
        return text.lower() in _TRUE
    plain = text.replace("_", "")
    if tag == _TAG + "float":
        number = float(plain.replace(".inf", "inf").replace(".Inf", "inf").replace(".INF", "inf")) if "n" not in plain.lower() else math.nan
        return number if math.isfinite(number) else text
    if tag == _TAG + "int":
        if len(plain) > 70:
            return text
        octal = re.match(r"^([-+]?)0(\d+)$", plain)
        value = int(octal[1] + octal[2], 8) if octal else int(plain, 0)
        return value if -(1 << 63) <= value < 1 << 64 else text
    return text


class YamlBuilder:
    """Turns composed nodes into plain data, counting every node that aliases multiply."""

    def __init__(self, document: Document) -> None:
        self.document, self.count = document, 0

    def build(self, node: yaml.Node, path: Path, depth: int) -> Any:
        self.count += 1
        if self.count > MAX_NODES:
            raise self._error(node, _TOO_MANY)
        if depth > MAX_DEPTH:
            raise self._error(node, _TOO_DEEP)
        if node.tag.startswith(_TAG) and node.tag not in _NODE_TAGS:
            raise self._error(node, f"the tag !!{node.tag[len(_TAG) : len(_TAG) + 40]} is not allowed in a deployment file")
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path, depth)
        if isinstance(node, yaml.SequenceNode):
            items = []
            for index, child in enumerate(node.value):
                self.document.places[(*path, index)] = (child.start_mark.line + 1, child.start_mark.column + 1)
                items.append(self.build(child, (*path, index), depth + 1))
            return items
        raise self._error(node, "this is neither a value, a list nor a mapping")

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

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        if node.tag == _STR:
            return node.value
        try:
            return _scalar_value(node.tag, node.value)
        except ValueError as error:
            raise self._error(node, f"{node.value[:60]!r} is not a valid {node.tag.rsplit(':', 1)[-1][:20]}") from error

    def _error(self, node: yaml.Node, message: str) -> BlueprintInvalid:
        return invalid(self.document.file, self.document.text, message, node.start_mark.line + 1, node.start_mark.column + 1)


def parse_json(file: str, text: str) -> Document:
    """Parse JSON; comments and trailing commas are read as VS Code reads JSONC. Raises BlueprintInvalid."""
    bounded(file, text)
    return _JsonParser(file, text).document()


_JSON_SPACE = re.compile(r"[ \t\r\n]*")
_JSON_COMMENT = re.compile(r"//[^\n]*|/\*[\s\S]*?\*/")
_JSON_ATOM = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|true|false|null")
"""RFC 8259, sections 3 and 6: no zeros before a number, and no digits but these ten."""


class _JsonParser:
    """Recursive descent over the text; lines are counted along the way."""

    def __init__(self, file: str, text: str) -> None:
        self.file, self.text, self.count = file, text, 0
        self.at = 1 if text.startswith("\ufeff") else 0
        self.line, self.line_start, self.counted = 1, 0, 0
        self.result = Document(file, text, None)

    def document(self) -> Document:
        self._space()
        if self.at < len(self.text):
            self.result.data = self._value((), 0)
            self._space()
            if self.at < len(self.text):
                raise self._error("text after the end of the document")
        return self.result

    def _place(self) -> tuple[int, int]:
        at = min(self.at, len(self.text))
        if at > self.counted:
            self.line += self.text.count("\n", self.counted, at)
            self.line_start = self.text.rfind("\n", self.counted, at) + 1 or self.line_start
            self.counted = at
        return self.line, at - self.line_start + 1

    def _error(self, message: str) -> BlueprintInvalid:
        return invalid(self.file, self.text, message, *self._place())

    def _space(self) -> None:
        self.at = _JSON_SPACE.match(self.text, self.at).end()  # type: ignore[union-attr]
        while self.text.startswith("/", self.at):
            comment = _JSON_COMMENT.match(self.text, self.at)
            if comment is None:
                raise self._error("a comment without end" if self.text.startswith("/*", self.at) else "a value is expected here")
            self.at = _JSON_SPACE.match(self.text, comment.end()).end()  # type: ignore[union-attr]

    def _value(self, path: Path, depth: int) -> Any:
        self.count += 1
        if self.count > MAX_NODES or depth > MAX_DEPTH:
            raise self._error(_TOO_MANY if self.count > MAX_NODES else _TOO_DEEP)
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
        word = match[0]
        if len(word) > 400:
            raise self._error("this number is too large")
        value = json.loads(word)
        if (isinstance(value, int) and not -(1 << 63) <= value < 1 << 64) or (isinstance(value, float) and not math.isfinite(value)):
            raise self._error("this number is too large")
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
            place = self._place()
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
            self.result.places[(*path, len(result))] = self._place()
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
    _guard_toml(file, text)
    try:
        data = _plain(tomllib.loads(text.removeprefix("\ufeff").replace("\r\n", "\n")), 0)
    except RecursionError as error:
        raise invalid(file, text, _TOO_DEEP) from error
    except ValueError as error:
        where = _TOML_WHERE.search(str(error))
        line, column = (int(where[1]), int(where[2])) if where else (0, 0)
        raise invalid(file, text, _TOML_WHERE.sub("", str(error)).strip() or "not valid TOML", line, column) from error
    document = Document(file, text, data)
    _place_toml(document)
    return document


MAX_TOML = 8_000
"""Keys and list items of a TOML file; the parser of the standard library is slow, and real files have below 500."""


def _guard_toml(file: str, text: str) -> None:
    """tomllib takes time that is quadratic in the parts of a dotted key, so these are counted before."""
    bounded(file, text)
    if text.count("=") + text.count(",") + text.count("[") > MAX_TOML:
        raise invalid(file, text, f"more than {MAX_TOML} keys and values")
    for number, line in enumerate(text.split("\n"), 1):
        if line.count(".") > MAX_DEPTH and _TOML_TEXT.sub("", line).count(".") > MAX_DEPTH:
            raise invalid(file, text, f"a key of more than {MAX_DEPTH} parts", number, 1)


_TOML_TEXT = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|\'[^\']*\'|#.*')


def _plain(value: Any, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise ValueError(_TOO_DEEP)
    if isinstance(value, dict):
        return {k: _plain(v, depth + 1) for k, v in value.items()}
    if isinstance(value, list):
        return [_plain(v, depth + 1) for v in value]
    if isinstance(value, int) and not isinstance(value, bool) and not -(1 << 63) <= value < 1 << 63:
        raise ValueError("a whole number beyond 64 bits")
    finite = not isinstance(value, float) or math.isfinite(value)
    return value if finite and isinstance(value, bool | int | float | str) else str(value)


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
    """Refuse what is too large or no text. Raises BlueprintInvalid."""
    if len(text) > MAX_FILE:
        raise invalid(file, "", f"larger than {MAX_FILE >> 20} MiB", fix="A deployment file is rarely past 100 kB; is this the right file?")
    if (at := text.find("\0")) >= 0:
        raise invalid(file, "", "not a text file (it holds a NUL byte)", text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at))
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise invalid(file, "", "not a text file (it holds half of a character)", text.count("\n", 0, error.start) + 1) from error
