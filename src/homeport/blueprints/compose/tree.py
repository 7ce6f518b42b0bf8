"""A Compose file as data: YAML as Compose's own loader reads it, with the place of each value and the merge tags.

Compose follows YAML 1.2 where PyYAML follows 1.1: `22:22`, `yes` and `012` are no base-60 numbers, booleans or surprises here.
Merge keys and aliases are resolved; `!reset` and `!override` are remembered by path.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from homeport.blueprints.document import MAX_DEPTH, MAX_NODES, Document, invalid
from homeport.blueprints.source import MAX_FILE
from homeport.model.errors import BlueprintInvalid, Problem
from homeport.model.reading import Path, show_path

_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9_]*)\Z")
_BASED = re.compile(r"[-+]?(?:0x[0-9a-fA-F_]+|0o[0-7_]+|0b[01_]+|0[0-7_]+)\Z")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9]+)?\Z")
_WORDS: dict[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_FIRST = frozenset("0123456789+-.")
TAGS = {"!reset": "reset", "!override": "override"}


@dataclass
class ComposeFile(Document):
    """One YAML document of a Compose file."""

    tags: dict[Path, str] = field(default_factory=dict)
    """`reset` or `override` by path."""
    odd_keys: list[Path] = field(default_factory=list)
    """Places of keys that are no text (`123:`), which Compose refuses."""

    def problem(self, path: Path, message: str, fix: str = "") -> Problem:
        """A fault at a path, located."""
        line, column = self.place(path)
        return Problem(message, show_path(path), line or 1, column or 1, fix)


def parse_compose(file: str, text: str) -> list[ComposeFile]:
    """Every document of a file; an empty one is None as data. Raises BlueprintInvalid."""
    if len(text) > MAX_FILE:
        raise invalid(file, "", f"larger than {MAX_FILE >> 20} MiB", fix="A deployment file is rarely past 100 kB; is this the right file?")
    if "\0" in text:
        before = text[: text.index("\0")]
        place = (before.count("\n") + 1, len(before) - before.rfind("\n"))
        raise invalid(file, "", "not a text file (it holds a NUL byte)", *place)
    if len(text) > LARGE:
        _count_events(file, text)
    nodes = _compose_nodes(file, text)
    builder = _Builder(file, text)
    return [builder.document(node) for node in nodes]


LARGE = 20_000
"""Characters from which a file is counted before nodes are made of it."""


def _count_events(file: str, text: str) -> None:
    """Refuse a file of too many or too deep values before they cost memory. Raises BlueprintInvalid."""
    loader = yaml.CSafeLoader(text)
    count = depth = 0
    try:
        while loader.check_event():
            event: Any = loader.get_event()
            count += 1
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH or count > 2 * MAX_NODES:
                message = f"nested deeper than {MAX_DEPTH} levels" if depth > MAX_DEPTH else f"more than {MAX_NODES} values"
                raise invalid(file, text, message, event.start_mark.line + 1, event.start_mark.column + 1)
    except yaml.YAMLError:
        return
    finally:
        loader.dispose()


def _compose_nodes(file: str, text: str) -> list[yaml.Node]:
    loader: Any = None
    nodes = []
    try:
        loader = yaml.CSafeLoader(text)
        while loader.check_node():
            nodes.append(loader.get_node())
            if len(nodes) > 50:
                raise invalid(file, text, "more than 50 YAML documents in one file")
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
        raise invalid(file, text, f"not valid YAML: {error.problem or error.context}", line, column) from error
    except (yaml.YAMLError, RecursionError, UnicodeEncodeError) as error:
        raise invalid(file, text, f"not valid YAML: {error}".splitlines()[0]) from error
    finally:
        if loader is not None:
            loader.dispose()
    return nodes


def scalar(node: yaml.ScalarNode) -> Any:
    """A scalar as Compose types it: plain numbers, booleans and nulls of YAML 1.2 and Go's octals; anything else is text."""
    text: str = node.value
    tag = node.tag
    if tag == "tag:yaml.org,2002:str":
        return _plain(text) if not node.style and text[:1] in _FIRST else text
    return _plain(text) if not node.style or tag != "tag:yaml.org,2002:str" else text


def _plain(text: str) -> Any:
    if text in _WORDS:
        return _WORDS[text]
    if text[:1] not in _FIRST:
        return text
    try:
        if _INTEGER.match(text):
            return int(text)
        if _BASED.match(text):
            digits = text.replace("_", "").lower()
            return int(re.sub(r"^([-+]?)0(?=[0-7])", r"\g<1>0o", digits), 0)
        if _FLOAT.match(text) and any(c.isdigit() for c in text):
            return float(text.replace("_", ""))
    except (ValueError, OverflowError):
        return text
    return text


class _Builder:
    """Turns composed nodes into plain data; every use of an alias counts."""

    def __init__(self, file: str, text: str) -> None:
        self.file, self.text, self.count = file, text, 0
        self.places: dict[Path, tuple[int, int]] = {}
        self.tags: dict[Path, str] = {}
        self.odd_keys: list[Path] = []
        self.open: set[int] = set()

    def document(self, node: yaml.Node) -> ComposeFile:
        self.places, self.tags, self.odd_keys = {}, {}, []
        data = self.build(node, ())
        return ComposeFile(self.file, self.text, data, self.places, self.tags, self.odd_keys)

    def build(self, node: yaml.Node, path: Path) -> Any:
        self.count += 1
        if self.count > MAX_NODES:
            raise self.error(node, f"excessive aliasing: more than {MAX_NODES} values, aliases counted as often as they are used")
        if node.tag in TAGS:
            self.tags[path] = TAGS[node.tag]
        if isinstance(node, yaml.ScalarNode):
            return scalar(node)
        if len(path) > MAX_DEPTH:
            raise self.error(node, f"nested deeper than {MAX_DEPTH} levels")
        if id(node) in self.open:
            raise self.error(node, f"cycle detected at path: {show_path(path)}; an alias cannot stand inside what it names")
        self.open.add(id(node))
        result = self.mapping(node, path) if isinstance(node, yaml.MappingNode) else self.sequence(node, path)
        self.open.discard(id(node))
        return result

    def sequence(self, node: yaml.Node, path: Path) -> list[Any]:
        items = []
        places, build = self.places, self.build
        for index, child in enumerate(node.value):
            where = (*path, index)
            mark = child.start_mark
            places[where] = (mark.line + 1, mark.column + 1)
            items.append(build(child, where))
        return items

    def mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        result: dict[str, Any] = {}
        merges = []
        places, build = self.places, self.build
        for key_node, value_node in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                merges.append(value_node)
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                raise self.error(key_node, "a key must be plain text")
            key = key_node.value
            where = (*path, key)
            if not key_node.style and key[:1] in _FIRST and not isinstance(_plain(key), str):
                self.odd_keys.append(where)
            if key in result:
                raise self.error(key_node, f"the key {key[:60]!r} stands twice in one mapping")
            mark = key_node.start_mark
            places[where] = (mark.line + 1, mark.column + 1)
            result[key] = build(value_node, where)
        return self.merged(result, merges, path) if merges else result

    def merged(self, own: dict[str, Any], merges: list[yaml.Node], path: Path) -> dict[str, Any]:
        """Merge keys: what stands in the mapping itself wins, then the first source that has the key."""
        result: dict[str, Any] = {}
        for node in merges:
            for source in node.value if isinstance(node, yaml.SequenceNode) else [node]:
                if not isinstance(source, yaml.MappingNode):
                    raise self.error(source, "map merge requires map or sequence of maps as the value")
                if id(source) in self.open:
                    raise self.error(source, f"cycle detected at path: {show_path(path)}; an alias cannot stand inside what it names")
                self.open.add(id(source))
                part = self.hidden(source, path, {*own, *result})
                self.open.discard(id(source))
                result = {**result, **{key: value for key, value in part.items() if key not in result}}
        return {**{key: value for key, value in result.items() if key not in own}, **own}

    def hidden(self, source: yaml.MappingNode, path: Path, known: set[str]) -> dict[str, Any]:
        """The data of a merge source, without overwriting the places and tags of keys already known."""
        outer = self.places, self.tags, self.odd_keys
        self.places, self.tags, self.odd_keys = {}, {}, []
        data = self.mapping(source, path)
        depth = len(path)
        new = [where for where in {**self.places, **self.tags} if len(where) > depth and where[depth] not in known]
        outer[0].update({where: self.places[where] for where in new if where in self.places})
        outer[1].update({where: self.tags[where] for where in new if where in self.tags})
        self.places, self.tags, self.odd_keys = outer
        return data

    def error(self, node: yaml.Node, message: str) -> BlueprintInvalid:
        return invalid(self.file, self.text, message, node.start_mark.line + 1, node.start_mark.column + 1)
