"""Dotenv files as Compose reads them: quotes, comments, `export`, YAML-style `KEY: value`, variables.

Grammar: compose-spec `05-services.md` (env_file format); where it is silent, the behaviour of compose-go `dotenv`.
"""

from __future__ import annotations

import re
from collections import ChainMap
from collections.abc import Mapping, MutableMapping

from homeport.blueprints.compose.interpolation import InvalidTemplate, MissingVariable, Unset, interpolate

_STATEMENT = re.compile(r"[^\S\n]*(?:export[^\S\n]+)?(?P<key>[^=:\n]*?)[^\S\n]*(?P<mark>[=:]|\n|\Z)[^\S\n]*")
_KEY = re.compile(r"[\w.\-\[\]]*\Z")
_COMMENT = re.compile(r"\s#|^#")
_ESCAPE = re.compile(r"\\(0[0-7]{0,3}|[abfnrtv\\\"$]|.)", re.DOTALL)
_PLAIN = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\", '"': '"', "$": "$$"}


class DotenvInvalid(ValueError):
    """A dotenv file that cannot be read; `line` counts from 1."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


def parse_dotenv(text: str, values: Mapping[str, str] | None = None, *, strict: bool = False) -> dict[str, str]:
    """Variables of a dotenv file, in order. `values` win over the file's own in `${…}`, and give a value to a bare `KEY`.

    Keys that start with a digit are dropped, as Compose does. With `strict` a variable without a value is an error, not empty text: a
    password with a `$` in it is not cut. Raises DotenvInvalid, which never repeats a value.
    """
    outer = dict(values or {})
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    result: dict[str, str] = {}
    at = 0
    while at < len(text):
        if text[at].isspace():
            at += 1
            continue
        if text[at] == "#":
            at = _line_end(text, at)
            continue
        at = _statement(text, at, outer, result, strict)
    return {key: value for key, value in result.items() if not key[:1].isdigit()}


def parse_raw(text: str) -> dict[str, str]:
    """`format: raw`: each line is `KEY=value` as it stands, no quotes, no variables, no inline comments."""
    pairs = (line.partition("=") for line in text.removeprefix("\ufeff").splitlines() if line.strip() and not line.lstrip().startswith("#"))
    return {key.strip(): value for key, mark, value in pairs if mark}


def _line_end(text: str, at: int) -> int:
    end = text.find("\n", at)
    return len(text) if end < 0 else end


def _statement(text: str, at: int, outer: MutableMapping[str, str], result: dict[str, str], strict: bool) -> int:
    match = _STATEMENT.match(text, at)
    line = text.count("\n", 0, at) + 1
    if match is None or not _KEY.match(match["key"]):
        raise DotenvInvalid(line, _no_name(match["key"] if match and match["mark"] in ("=", ":") else ""))
    key, start = match["key"], match.end()
    unset: list[str] = []
    if match["mark"] not in ("=", ":"):
        if key in outer:
            result[key] = outer[key]
        return start
    try:
        result[key], end = _value(text, start, line, ChainMap(outer, result), unset.append)
    except InvalidTemplate:
        raise DotenvInvalid(line, f"the value of {key} has a `${{` that begins no variable; write `$$` for a plain `$`") from None
    except MissingVariable as error:
        raise DotenvInvalid(line, str(error)) from error
    if strict and unset:
        text = f"the value of {key} uses a variable (`$…`) that nothing sets; put the value in single quotes, or write `$$` for a plain `$`"
        raise DotenvInvalid(line, text)
    return end


def _no_name(key: str) -> str:
    """What is wrong with a name. One that may be a line of a value is not repeated."""
    if not re.fullmatch(r"[\w.\- ]{1,60}", key):
        return "there is no variable name before the `=`; a value of several lines needs quotes"
    return f"{key!r} is not a variable name" + ("; it cannot hold a space" if " " in key else "")


def _value(text: str, start: int, line: int, known: Mapping[str, str], unset: Unset) -> tuple[str, int]:
    quote = text[start : start + 1]
    if quote in ("'", '"') and quote:
        end = start + 1
        while end < len(text) and text[end] != quote:
            end += 2 if text[end] == "\\" else 1
        if end >= len(text):
            raise DotenvInvalid(line, "a quoted value does not end")
        inner = text[start + 1 : end]
        if quote == "'":
            return inner.replace("\\'", "'"), _line_end(text, end)
        return interpolate(_ESCAPE.sub(_unescape, inner), known, unset), _line_end(text, end)
    end = _line_end(text, start)
    raw = text[start:end]
    if comment := _COMMENT.search(raw):
        raw = raw[: comment.start()]
    return interpolate(raw.strip(), known, unset), end


def _unescape(match: re.Match[str]) -> str:
    code = match[1]
    if code[0] == "0" and len(code) > 1:
        return chr(int(code, 8) & 0xFF)
    return _PLAIN.get(code, match[0])
