"""What Kubernetes and Cloud Run manifests share: streams of YAML documents, quantities, `$(NAME)` in values, probes."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

import yaml

from homeport.blueprints.document import Document, YamlBuilder, guard_yaml, yaml_fault
from homeport.blueprints.view import Ledger, View
from homeport.model.env import EnvValue, PlainValue, Template
from homeport.model.reading import Path
from homeport.model.service import Command, HealthCheck

_PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9_./-]*")
_WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf"})
_SHELL = re.compile(r"[$`|&;<>()*?\[\]~#!{}\\\n]|^\s*\w+=")
_QUANTITY = re.compile(r"([+-]?[0-9.]+(?:[eE][+-]?[0-9]+)?)([numkKMGTPE]i?)?")
_UNITS = {"n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3"), "": Decimal(1), "k": Decimal(1000), "K": Decimal(1000)}
_UNITS |= {letter: Decimal(1000) ** power for power, letter in enumerate("MGTPE", 2)}
_UNITS |= {f"{letter}i": Decimal(1024) ** power for power, letter in enumerate("KMGTPE", 1)}
VARIABLE = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*")
"""Names of variables that every version of Kubernetes takes, and that can be keys of a ConfigMap."""


class _Dumper(yaml.CSafeDumper):
    """YAML without aliases; every text that a reader of YAML 1.1 or 1.2 could take for something else in quotes."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True


def _text(dumper: yaml.CSafeDumper, value: str) -> yaml.Node:
    lines = value.split("\n")
    block = len(lines) > 1 and all(line.isprintable() and line == line.rstrip() for line in lines) and value[:1] not in (" ", "\n")
    plain = _PLAIN.fullmatch(value) is not None and value.lower() not in _WORDS
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if block else None if plain else '"')


_Dumper.add_representer(str, _text)


def dump_manifests(documents: list[dict[str, Any]]) -> str:
    """A stream of YAML documents, parted by `---`. `parse_manifests` reads the same data back."""
    texts = [yaml.dump(one, Dumper=_Dumper, sort_keys=False, width=140, allow_unicode=True, default_flow_style=False) for one in documents]
    return "---\n".join(texts)


def parse_manifests(file: str, text: str) -> Document:
    """Parse a stream of YAML (or JSON) documents: the data is the document itself when there is one, else a list of all.

    Empty documents of a stream are left out. Raises BlueprintInvalid."""
    guard_yaml(file, text)
    loader = yaml.CSafeLoader(text)
    nodes: list[yaml.Node] = []
    try:
        while loader.check_node():
            node = loader.get_node()
            if node is not None and not (isinstance(node, yaml.ScalarNode) and node.tag.endswith(":null")):
                nodes.append(node)
    except yaml.YAMLError as error:
        raise yaml_fault(file, text, error) from error
    finally:
        loader.dispose()
    document = Document(file, text, None)
    builder = YamlBuilder(document)
    if len(nodes) == 1:
        document.data = builder.build(nodes[0], (), 0)
    elif nodes:
        document.data = []
        for index, node in enumerate(nodes):
            document.places[(index,)] = (node.start_mark.line + 1, node.start_mark.column + 1)
            document.data.append(builder.build(node, (index,), 0))
    return document


def objects(ledger: Ledger) -> Iterator[View]:
    """Each object of a stream; the items of a `List` one by one. What is no object is a problem."""
    data = ledger.document.data
    roots: list[tuple[Any, Path]] = [(item, (i,)) for i, item in enumerate(data)] if isinstance(data, list) else [(data, ())]
    for item, path in roots:
        view = View(ledger, item, path)
        if isinstance(item, dict) and str(item.get("kind", "")).endswith("List") and isinstance(item.get("items"), list):
            view.honoured("apiVersion", "kind", "metadata")
            yield from view.views("items")
        else:
            yield view


def quantity(value: Any) -> float | None:
    """A Kubernetes quantity (`500m`, `512Mi`, `1e3`) as a number; None when it is none."""
    match = _QUANTITY.fullmatch(str(value).strip())
    if not match or isinstance(value, bool):
        return None
    try:
        number = Decimal(match[1]) * _UNITS[match[2] or ""]
    except (InvalidOperation, KeyError):
        return None
    return float(number) if math.isfinite(float(number)) and number >= 0 else None


def bytes_of(value: Any) -> int | None:
    """A quantity as whole bytes, rounded up; None when it is none."""
    number = quantity(value)
    return None if number is None else math.ceil(number)


def byte_quantity(value: int) -> str:
    """Bytes as a quantity, exact: `512Mi`, `1Gi`, `1000`."""
    for unit, power in (("Ti", 4), ("Gi", 3), ("Mi", 2), ("Ki", 1)):
        if value and value % 1024**power == 0:
            return f"{value // 1024**power}{unit}"
    return str(value)


def cpu_quantity(cores: float) -> str:
    """Cores as a quantity; a thousandth of a core is the smallest there is."""
    thousandths = max(1, math.ceil(round(cores * 1000, 6)))
    return str(thousandths // 1000) if thousandths % 1000 == 0 else f"{thousandths}m"


def escape(text: str, *, joined: bool = False) -> str:
    """Text for a field in which `$(NAME)` is replaced and `$$` means `$` (Kubernetes' third_party/forked/golang/expansion).
    When more is `joined` behind it, a dollar at its end is escaped as well."""
    return re.sub(r"\$(?=[$(]|\Z)" if joined else r"\$(?=[$(])", "$$", text)


def expand(text: str, known: Mapping[str, EnvValue]) -> EnvValue:
    """The value of such a field: plain text, or a template when it names known variables. A name nobody knows stays as it is."""
    parts: list[EnvValue] = []
    plain = ""
    at = 0
    while at < len(text):
        if text[at] == "$" and text[at + 1 : at + 2] == "$":
            plain, at = plain + "$", at + 2
        elif text[at] == "$" and text[at + 1 : at + 2] == "(" and (end := text.find(")", at)) > 0:
            value = known.get(text[at + 2 : end])
            if value is None or isinstance(value, PlainValue):
                plain += text[at : end + 1] if value is None else value.value
            else:
                parts += [PlainValue(value=plain), value] if plain else [value]
                plain = ""
            at = end + 1
        else:
            plain, at = plain + text[at], at + 1
    if not parts:
        return PlainValue(value=plain)
    return Template(parts=(*parts, PlainValue(value=plain)) if plain else tuple(parts))


def plain_text(text: str) -> str:
    """Such a field without looking anything up."""
    value = expand(text, {})
    return value.value if isinstance(value, PlainValue) else text


def argv(command: Command) -> list[str]:
    """A command as an argv list: a line with shell syntax is given to a shell."""
    if not isinstance(command, str):
        return list(command)
    try:
        found = [] if _SHELL.search(command) else shlex.split(command)
    except ValueError:
        found = []
    return found or ["sh", "-c", command]


def words(command: Command) -> list[str]:
    """The same for a field in which Kubernetes replaces `$(NAME)`."""
    return [escape(word) for word in argv(command)]


def command_of(words: Sequence[str]) -> Command:
    """An argv list as a command: `sh -c LINE` is the line, and so are words that a line is split into; else the list."""
    if len(words) == 3 and tuple(words[:2]) == ("sh", "-c"):
        return words[2]
    line = shlex.join(words)
    return line if argv(line) == list(words) else tuple(words)


def seconds(value: timedelta | None) -> int | None:
    """Whole seconds, rounded up; None stays None."""
    return None if value is None else math.ceil(value / timedelta(seconds=1))


def probe(check: HealthCheck, main_port: int | str | None, ports: bool = True) -> dict[str, Any] | None:
    """A check as a probe; None when no probe can be made of it. `main_port` stands for the service's own port;
    without `ports` only that one can be probed."""
    port: int | str | None = (int(check.port) if check.port.isdecimal() else check.port) if check.port and ports else main_port
    found: dict[str, Any] = {}
    if check.kind == "command" and check.command:
        found["exec"] = {"command": ["sh", "-c", check.command] if isinstance(check.command, str) else list(check.command)}
    elif check.kind == "tcp" and port is not None:
        found["tcpSocket"] = {"port": port}
    elif check.kind == "http" and port is not None:
        headers = [{"name": name, "value": value} for name, value in check.headers.items()]
        found["httpGet"] = {"path": check.path, "port": port} | ({"scheme": "HTTPS"} if check.tls else {})
        found["httpGet"] |= {"httpHeaders": headers} if headers else {}
    else:
        return None
    timing = {"periodSeconds": check.interval, "timeoutSeconds": check.timeout}
    found |= {key: max(1, seconds(value) or 0) for key, value in timing.items() if value is not None}
    if check.retries and check.retries > 0:
        found["failureThreshold"] = check.retries
    return found


def read_probe(view: View, main_port: int | str | None, port_names: Mapping[str, int]) -> HealthCheck | None:
    """A probe as a check; None when it is of no kind that is known. Notes the fate of each key."""
    found: dict[str, Any] = {}
    if "httpGet" in view:
        inner = view.view("httpGet")
        found = {"kind": "http", "path": inner.text("path") or "/", "tls": inner.text("scheme").upper() == "HTTPS"}
        found["headers"] = {item.text("name"): item.text("value") for item in inner.views("httpHeaders")}
        inner.approximated("host", reason="checks go to the instance itself; set the `Host` header instead")
    elif "exec" in view:
        inner = view.view("exec")
        argv = inner.texts("command")
        found = {"kind": "command", "command": argv[2] if len(argv) == 3 and argv[:2] == ("sh", "-c") else argv}
    elif "tcpSocket" in view or "grpc" in view:
        key = "tcpSocket" if "tcpSocket" in view else "grpc"
        inner = view.view(key)
        found = {"kind": "tcp"}
        if key == "grpc":
            inner.approximated("service", "port", reason="a gRPC check becomes a check that the port is open")
        inner.ignored("host", reason="checks go to the instance itself")
    else:
        return None
    port = inner.raw("port") if found["kind"] != "command" else None
    if "port" in inner and "grpc" not in view:
        inner.honoured("port")
    own = port is None or port == main_port or port_names.get(str(port)) == main_port
    found["port"] = "" if own else str(port_names.get(str(port), port))
    found["interval"] = view.number("periodSeconds")
    found["timeout"] = view.number("timeoutSeconds")
    found["retries"] = view.integer("failureThreshold", low=1)
    found["start_period"] = view.number("initialDelaySeconds")
    view.ignored("successThreshold", reason="one good answer is enough")
    view.ignored("terminationGracePeriodSeconds", reason="the service has one grace period")
    return HealthCheck.model_validate({k: v for k, v in found.items() if v is not None})
