"""Ports and volumes: the short forms taken apart, ranges spread out."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

_RANGE = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?\Z")
_WINDOWS = re.compile(r"[A-Za-z]:[\\/]")
MAX_RANGE = 1_000
"""Ports of one range that are spread out; a real one is rarely past 100."""


class BadPort(ValueError):
    """A `ports` entry that names no port."""


@dataclass(frozen=True)
class PortEntry:
    """One port as the file means it. `published` is `""` for none, `"0"` for any free one."""

    target: int
    published: str = ""
    host_ip: str = ""
    protocol: str = "tcp"


def parse_port(value: str | int) -> list[PortEntry]:
    """`[[IP:][HOST]:]TARGET[/PROTOCOL]`, each of HOST and TARGET a port or a range. Raises BadPort."""
    text = str(value).strip()
    text, _, protocol = text.partition("/")
    host_ip, host, target = _split(text)
    targets = _range(target, value)
    if host == "":
        return [PortEntry(t, "0", host_ip, protocol or "tcp") for t in targets]
    hosts = _range(host, value)
    if len(targets) == 1 and len(hosts) > 1:
        return [PortEntry(targets[0], host, host_ip, protocol or "tcp")]
    if len(hosts) != len(targets):
        raise BadPort(f"{str(value)[:40]!r} has ranges of different length")
    return [PortEntry(t, str(h), host_ip, protocol or "tcp") for h, t in zip(hosts, targets, strict=True)]


def _split(text: str) -> tuple[str, str, str]:
    if text.startswith("["):
        ip, _, rest = text[1:].partition("]")
        host, _, target = rest.removeprefix(":").rpartition(":")
        return ip, host, target
    rest, _, target = text.rpartition(":")
    ip, _, host = rest.rpartition(":")
    return ip, host, target


def _range(text: str, value: Any) -> list[int]:
    match = _RANGE.match(text)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1 <= first <= last <= 65535 and not (match and match[2] is None and first == 0):
        raise BadPort(f"{str(value)[:40]!r} names no port: write it like `8080:80`, `80` or `127.0.0.1:53:53/udp`")
    if last - first >= MAX_RANGE:
        raise BadPort(f"{str(value)[:40]!r} spans more than {MAX_RANGE} ports")
    return list(range(first, last + 1))


def port_key(item: Any) -> str:
    """What makes two `ports` entries the same one when files are merged."""
    if isinstance(item, dict):
        published, protocol = item.get("published", ""), item.get("protocol") or "tcp"
        return f"{item.get('host_ip') or ''}:{published}:{item.get('target')}/{protocol}"
    try:
        entries = parse_port(item)
    except BadPort:
        return str(item)
    first, last = entries[0], entries[-1]
    span = f"{first.target}-{last.target}" if len(entries) > 1 else str(first.target)
    return f"{first.host_ip}:{'' if first.published == '0' else first.published}:{span}/{first.protocol}"


def split_volume(text: str) -> list[str]:
    """`SOURCE:TARGET[:MODE]` taken apart; a Windows drive and a `${VAR:-x}` keep their colons."""
    pieces, start, depth, at = [], 0, 0, 0
    while at < len(text):
        char = text[at]
        if char == "{" and text[at - 1 : at] == "$":
            depth += 1
        elif char == "}" and depth:
            depth -= 1
        elif char == ":" and not depth and not (at == start + 1 and _WINDOWS.match(text, start)):
            pieces.append(text[start:at])
            start = at + 1
        at += 1
    pieces.append(text[start:])
    return pieces


@dataclass(frozen=True)
class Mount:
    """One short `volumes` entry."""

    source: str
    target: str
    modes: tuple[str, ...] = ()

    @classmethod
    def of(cls, pieces: list[str]) -> Mount:
        """From the pieces of `split_volume`."""
        if len(pieces) == 1:
            return cls("", pieces[0])
        return cls(pieces[0], pieces[1], tuple(m for m in ",".join(pieces[2:]).split(",") if m))

    @property
    def is_path(self) -> bool:
        """Whether the source is a path of the host, not the name of a volume."""
        return self.source.startswith((".", "/", "~", "\\")) or bool(_WINDOWS.match(self.source)) or "/" in self.source
