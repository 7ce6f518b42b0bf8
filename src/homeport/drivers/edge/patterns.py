"""Patterns of users made safe for nginx: literal text, regular expressions with named captures, and templates over them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote as percent

from homeport.drivers.edge.base import EdgeRefused
from homeport.drivers.edge.syntax import check, plain

_GROUP = re.compile(r"\(\?P?<([A-Za-z_][A-Za-z0-9_]*)>")
_FORBIDDEN = re.compile(r"\(\*|\(\?(?:R|C|&|P[>=]|\(|[+-]?\d|[a-zA-Z]*x)|\\[gkK]")
_REFERENCE = re.compile(r"\$(?:(\$)|\{(\w+)\}|(\w+))")
_URL_SAFE = "/%:@!&'()*+,;=~-._?#[]"


def literal(text: str) -> str:
    """A regular expression that matches exactly this text."""
    return re.sub(r"([^A-Za-z0-9/_\x80-\U0010ffff-])", r"\\\1", text)


@dataclass(frozen=True)
class Pattern:
    """A user's regular expression: `bare` has no names, `named` calls group N `homeport_cN`."""

    bare: str
    named: str
    groups: dict[str, int]

    @classmethod
    def of(cls, source: str, what: str) -> Pattern:
        """Read a PCRE pattern. Raises EdgeRefused on verbs, recursion, callouts, conditionals and patterns that do not balance."""
        check(source, what)
        if _FORBIDDEN.search(re.sub(r"\\\\", "", source)):
            raise EdgeRefused.of(what, "it uses recursion, verbs, callouts, extended mode or references to groups")
        bare, named, groups, count, place, depth = [], [], {}, 0, 0, 0
        while place < len(source):
            if source[place] == "\\":
                piece = source[place : place + 2]
            elif source[place] == "[":
                piece = _char_class(source, place, what)
            elif source[place] == "(":
                depth += 1
                match = _GROUP.match(source, place)
                if match or not source.startswith("(?", place):
                    count += 1
                    groups[str(count)] = count
                    if match:
                        groups[match[1]] = count
                    bare.append("(")
                    named.append(f"(?<homeport_c{count}>")
                    place += len(match[0]) if match else 1
                    continue
                piece = "("
            else:
                depth -= source[place] == ")"
                piece = source[place]
            bare.append(piece)
            named.append(piece)
            place += len(piece)
        if depth or (source.endswith("\\") and not source.endswith("\\\\")):
            raise EdgeRefused.of(what, "its parentheses do not balance")
        return cls("".join(bare), "".join(named), groups)


def _char_class(source: str, start: int, what: str) -> str:
    """The bracket expression that begins at `start`."""
    place = start + 1
    if source.startswith("^", place):
        place += 1
    if source.startswith("]", place):
        place += 1
    while place < len(source):
        if source[place] == "\\":
            place += 2
        elif source.startswith("[:", place) and ":]" in source[place:]:
            place = source.index(":]", place) + 2
        elif source[place] == "]":
            return source[start : place + 1]
        else:
            place += 1
    raise EdgeRefused.of(what, "a bracket is not closed")


@dataclass(frozen=True)
class Template:
    """A destination: `text` is ready for nginx, `captures` says whether it holds any, `first` the capture right after a leading `/`."""

    text: str
    captures: bool
    first: int = 0

    @classmethod
    def of(cls, source: str, groups: dict[str, int], what: str) -> Template:
        """Fill `$1`, `$name`, `${name}` with captures; percent-encode other text where needed. Raises EdgeRefused on unknown names."""
        check(source, what)
        parts, place, captured, first = [], 0, False, 0
        for match in _REFERENCE.finditer(source):
            parts.append(_encoded(source[place : match.start()]))
            place = match.end()
            if match[1]:
                parts.append(plain("$"))
                continue
            name = match[2] or match[3]
            if name not in groups:
                raise EdgeRefused.of(what, f"${name} is not a capture of the route's pattern")
            captured = True
            first = first or (groups[name] if source[: match.start()] == "/" else 0)
            parts.append(f"${{homeport_c{groups[name]}}}")
        parts.append(_encoded(source[place:]))
        return cls("".join(parts), captured, first)


def _encoded(text: str) -> str:
    return plain(percent(text, safe=_URL_SAFE + "$"))


def joined_query(target: str) -> str:
    """Append the request's query to a destination that may have one."""
    return target + ("$homeport_more_args" if "?" in target else "$is_args$args")


def either(words: Sequence[str]) -> str:
    """A regular expression for one of these words, whole."""
    return rf"^(?:{'|'.join(map(literal, words))})\z"
