"""Environment values: which variables become secrets, generated values or references, and how they are written again."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from homeport.blueprints.compose.interpolation import InvalidTemplate, Part, Variable, parse_template, resolve
from homeport.model.addon import AddOn
from homeport.model.env import (
    Env,
    EnvValue,
    ExternalValue,
    FromAddOn,
    FromService,
    GeneratedValue,
    HostValue,
    PlainValue,
    SecretValue,
    Template,
)

_SECRET = re.compile(
    r"PASSWORD|PASSWD|SECRET|TOKEN|API_?KEY|PRIVATE_?KEY|ACCESS_?KEY|CREDENTIAL|_KEY$|_PASS$|_PW$|_SALT$|_DSN$", re.IGNORECASE
)
_MAGIC = re.compile(
    r"SERVICE_(?P<kind>PASSWORDWITHSYMBOLS|PASSWORD|USER|REALBASE64|BASE64|HEX|FQDN|URL|NAME)(?:_(?P<size>32|64|128)(?=_))?_(?P<of>[A-Z0-9_-]+)\Z"
)
_PORT = re.compile(r"[_-](\d{2,5})\Z")
_HOST_KEY = re.compile(r"HOST|SERVER|ADDR|ENDPOINT", re.IGNORECASE)
_PORT_KEY = re.compile(r"PORT\Z", re.IGNORECASE)
_URL_KEY = re.compile(r"URL|URI|ORIGIN|ENDPOINT|BASE|LINK", re.IGNORECASE)


_HOST = re.compile(
    r"(?:(?<=//)|(?<=@)|(?<=\())(?P<url>[\w.-]+)(?::(?P<port>\d+))?(?=[/?)#,;]|:?$)"
    r"|(?i:(?<=host=)|(?<=server=))(?P<pair>[\w.-]+)(?=[;\s]|$)"
)
"""The host in a URL or a data source name."""


def looks_secret(name: str) -> bool:
    """Whether a variable's name says that its value must not be shown."""
    return bool(_SECRET.search(name))


def _upper(name: str) -> str:
    return re.sub(r"[^A-Z0-9]", "_", name.upper())


@dataclass(frozen=True)
class Magic:
    """One of Coolify's `SERVICE_*` names, taken apart."""

    kind: str
    size: int
    of: str
    port: int | None


def magic(name: str) -> Magic | None:
    """What a Coolify name asks for; None when it is no such name."""
    match = _MAGIC.match(name)
    if match is None:
        return None
    of, port = match["of"], None
    if match["kind"] in ("FQDN", "URL") and (found := _PORT.search(of)):
        of, port = of[: found.start()], int(found[1])
    return Magic(match["kind"], int(match["size"] or 0), of, port)


_ALPHANUMERIC = {"PASSWORD": 32, "PASSWORDWITHSYMBOLS": 32, "USER": 16, "BASE64": 32}
"""Length in characters that Coolify gives each kind by default."""


def generated(name: str, what: Magic) -> GeneratedValue:
    """The generated value behind a name: one per name and environment."""
    if what.kind == "HEX":
        return GeneratedValue(format="hex", bytes=what.size or 32, scope=name)
    if what.kind == "REALBASE64":
        return GeneratedValue(format="base64", bytes=what.size or 32, scope=name)
    characters = what.size or _ALPHANUMERIC[what.kind]
    return GeneratedValue(format="alphanumeric", bytes=characters * 3 // 4, scope=name)


@dataclass(frozen=True)
class Credential:
    """A credential of an add-on, and what it is when nobody says otherwise."""

    reference: FromAddOn
    text: str


@dataclass
class Links:
    """What values may refer to: services and add-ons of the project by the names the file uses."""

    services: dict[str, str] = field(default_factory=dict)
    """Spec name by title and alias."""
    addons: dict[str, str] = field(default_factory=dict)
    """Add-on name by title and alias."""
    ports: dict[str, int] = field(default_factory=dict)
    """Usual port by add-on name."""
    credentials: dict[str, Credential] = field(default_factory=dict)
    """Variables that hold a credential of one add-on."""

    def __post_init__(self) -> None:
        self._magic: dict[str, str] = {}

    def by_magic(self, of: str) -> str | None:
        """The service that `SERVICE_URL_<of>` means."""
        if not self._magic:
            self._magic = {_upper(title): name for title, name in self.services.items()}
        wanted = _upper(of)
        return (
            self._magic.get(wanted)
            or self._magic.get(wanted.replace("_", ""))
            or next((name for upper, name in self._magic.items() if upper.replace("_", "") == wanted.replace("_", "")), None)
        )


class Values:
    """Turns environment entries of one project into the spec's values."""

    def __init__(self, known: dict[str, str], links: Links) -> None:
        self.known, self.links = known, links

    def env(self, entries: Any) -> Env:
        """A mapping of raw texts; None passes the variable on."""
        result: Env = {}
        for key, raw in entries.items() if isinstance(entries, dict) else ():
            if key and not isinstance(raw, dict | list):
                result[key] = self.entry(key, raw)
        return self._ports(result)

    def entry(self, key: str, raw: str | None) -> EnvValue:
        """One entry."""
        if raw is None:
            found = magic(key)
            special = self._special(key, found, key) if found else None
            return special or HostValue(name=key)
        return self.value(key, raw)

    def value(self, key: str, raw: str) -> EnvValue:
        """A raw text as a value."""
        try:
            parts = parse_template(raw)
        except InvalidTemplate:
            return PlainValue(value=raw)
        if len(parts) == 1 and isinstance(parts[0], Variable):
            return self._wired(key, self._variable(parts[0], key))
        found = magic(key)
        if found and found.kind in ("FQDN", "URL") and raw.startswith("/") and (url := self._special(key, found, key)):
            return Template(parts=(url, PlainValue(value=raw)))
        return self._joined(key, self._hosts(self._parts(parts)))

    def _parts(self, parts: tuple[Part, ...]) -> list[EnvValue]:
        result: list[EnvValue] = []
        for part in parts:
            if isinstance(part, str):
                result.append(PlainValue(value=part))
                continue
            before = result[-1].value if result and isinstance(result[-1], PlainValue) else ""
            result.append(self._variable(part, "", before=before))
        return result

    def _joined(self, key: str, parts: list[EnvValue]) -> EnvValue:
        merged: list[EnvValue] = []
        for part in parts:
            last = merged[-1] if merged else None
            if isinstance(part, PlainValue) and isinstance(last, PlainValue):
                merged[-1] = PlainValue(value=last.value + part.value)
            elif not isinstance(part, PlainValue) or part.value:
                merged.append(part)
        if not merged:
            return PlainValue(value="")
        return self._wired(key, merged[0]) if len(merged) == 1 else Template(parts=tuple(merged))

    # One variable

    def _variable(self, variable: Variable, key: str, before: str = "") -> EnvValue:
        name, operator = variable.name, variable.operator
        credential = None if operator.endswith("+") else self.links.credentials.get(name)
        if credential and (not operator.endswith("-") or resolve((variable,), self.known, lenient=True) == credential.text):
            return credential.reference
        found = None if name in self.known else magic(name)
        if found and (special := self._special(name, found, key, before)):
            return special
        if operator.endswith("+"):
            return PlainValue(value=resolve((variable,), self.known, lenient=True))
        own = "" if name == key else name
        known = self.known.get(name)
        if known is not None and (known or not operator.startswith(":")):
            return SecretValue(required=False, default=known, name=own) if looks_secret(name) else HostValue(name=name, default=known)
        if operator.endswith("?"):
            return SecretValue(required=True, description=resolve(variable.rest, self.known, lenient=True), name=own)
        if operator.endswith("-"):
            if len(variable.rest) == 1 and isinstance(inner := variable.rest[0], Variable) and inner.name not in self.known:
                special = self._special(inner.name, magic(inner.name), key, before)
                if special is not None:
                    return special
            default = resolve(variable.rest, self.known, lenient=True)
            return SecretValue(required=False, default=default, name=own) if looks_secret(name) else HostValue(name=name, default=default)
        return SecretValue(required=False, name=own) if looks_secret(name) else HostValue(name=name, default="")

    def _special(self, name: str, found: Magic | None, key: str, before: str = "") -> EnvValue | None:
        if found is None:
            return None
        if found.kind not in ("FQDN", "URL", "NAME"):
            return generated(name, found)
        service = self.links.by_magic(found.of)
        if service is None:
            return None
        if found.kind == "NAME":
            return FromService(service=service, property="host")
        bare = found.kind == "FQDN" and (before.endswith("://") or not (_URL_KEY.search(key) and not key.startswith("SERVICE_FQDN")))
        return FromService(service=service, property="public-host" if bare else "public-url")

    # References to add-ons

    def _hosts(self, parts: list[EnvValue]) -> list[EnvValue]:
        """Add-on hosts found in a text of several parts."""
        if not self.links.addons:
            return parts
        result: list[EnvValue] = []
        for part in parts:
            if isinstance(part, PlainValue):
                result.extend(self._split(part.value))
            elif isinstance(part, HostValue) and part.default in self.links.addons and self._at_host(result):
                result.append(FromAddOn(addon=self.links.addons[part.default], property="host"))
            elif isinstance(part, HostValue) and self._after_host(result) and part.default == self._port_of(result[-2]):
                result.append(FromAddOn(addon=_addon(result[-2]), property="port"))
            else:
                result.append(part)
        return result

    def _at_host(self, before: list[EnvValue]) -> bool:
        return bool(before) and isinstance(last := before[-1], PlainValue) and last.value.endswith(("//", "@", "("))

    def _after_host(self, before: list[EnvValue]) -> bool:
        return len(before) > 1 and isinstance(last := before[-1], PlainValue) and last.value == ":" and isinstance(before[-2], FromAddOn)

    def _port_of(self, value: EnvValue) -> str:
        return str(self.links.ports.get(_addon(value), ""))

    def _split(self, text: str) -> list[EnvValue]:
        result: list[EnvValue] = []
        at = 0
        for match in _HOST.finditer(text):
            name = self.links.addons.get(match["url"] or match["pair"], "")
            port = match["port"]
            if not name:
                continue
            if port is not None and int(port) != self.links.ports.get(name):
                continue
            result.append(PlainValue(value=text[at : match.start()]))
            with_port = match["url"] is not None and (port is not None or not text.startswith(":", match.end()))
            result.append(FromAddOn(addon=name, property="hostport" if with_port else "host"))
            at = match.end()
        result.append(PlainValue(value=text[at:]))
        return [part for part in result if not isinstance(part, PlainValue) or part.value]

    def _wired(self, key: str, value: EnvValue) -> EnvValue:
        """A whole value that is an add-on's host or address."""
        text = (
            value.value
            if isinstance(value, PlainValue)
            else value.default
            if isinstance(value, HostValue) and value.name not in self.known
            else None
        )
        if not text:
            return value
        if text in self.links.addons and _HOST_KEY.search(key):
            return FromAddOn(addon=self.links.addons[text], property="host")
        host, mark, port = text.rpartition(":")
        if mark and host in self.links.addons and port == str(self.links.ports.get(self.links.addons[host])):
            return FromAddOn(addon=self.links.addons[host], property="hostport")
        if isinstance(value, HostValue):
            parts = self._split(text)
            return (
                value
                if len(parts) == 1 and isinstance(parts[0], PlainValue)
                else Template(parts=tuple(parts))
                if len(parts) > 1
                else parts[0]
            )
        return value

    def _ports(self, env: Env) -> Env:
        """`DB_PORT: 5432` beside `DB_HOST: db` is the add-on's port."""
        hosts = {
            _HOST_KEY.split(key)[0]: value.addon for key, value in env.items() if isinstance(value, FromAddOn) and value.property == "host"
        }
        for key, value in env.items() if hosts else ():
            text = value.value if isinstance(value, PlainValue) else value.default if isinstance(value, HostValue) else None
            if not (_PORT_KEY.search(key) and text):
                continue
            addon = hosts.get(_PORT_KEY.sub("", key))
            if addon and text == str(self.links.ports.get(addon)):
                env[key] = FromAddOn(addon=addon, property="port")
        return env


def _addon(value: EnvValue) -> str:
    return value.addon if isinstance(value, FromAddOn) else ""


# Writing


def escape(text: str) -> str:
    """Text in which Compose finds no variable."""
    return text.replace("$", "$$")


def escaped(value: Any) -> Any:
    """Data in which every text is free of variables."""
    if isinstance(value, str):
        return escape(value)
    if isinstance(value, dict):
        return {key: escaped(item) for key, item in value.items()}
    return [escaped(item) for item in value] if isinstance(value, list | tuple) else value


def default_text(text: str) -> str:
    """Text that can stand as a default inside `${…}`; unbalanced braces cannot be written and are left out."""
    return escape(text)


def writable_default(text: str) -> bool:
    """Whether a default survives being written between braces."""
    level = 0
    for char in text:
        level += (char == "{") - (char == "}")
        if level < 0:
            return False
    return level == 0


def public_name(key: str, value: FromService) -> bool:
    """Whether a Coolify variable's own name says what its value is (`SERVICE_URL_WEB_3000`), so that none need be written."""
    found = magic(key)
    wanted = {"public-url": "URL", "public-host": "FQDN"}.get(value.property or "")
    return found is not None and found.kind == wanted and _upper(found.of).replace("_", "") == _upper(value.service).replace("_", "")


class Writer:
    """Writes values as Compose text."""

    def __init__(self, services: dict[str, tuple[str, int | None]], addons: dict[str, tuple[str, int, AddOn]]) -> None:
        """Service and add-on by spec name: the name to write, and the port."""
        self.services, self.addons = services, addons

    def text(self, key: str, value: EnvValue) -> str | None:
        """The text; None passes the variable on."""
        if isinstance(value, PlainValue):
            return escape(value.value)
        if isinstance(value, HostValue):
            if value.default is None:
                return None if value.name == key else f"${{{value.name}}}"
            return self._with_default(value.name, value.default)
        if isinstance(value, SecretValue):
            return self._secret(value.name or key, value)
        if isinstance(value, GeneratedValue):
            return f"${{{value.scope}}}" if magic(value.scope) else f"${{{key}:?a random value that nobody knows}}"
        if isinstance(value, Template):
            return "".join(self.text("", part) or "" for part in value.parts)
        if isinstance(value, FromService):
            return None if public_name(key, value) else self._service(value)
        if isinstance(value, FromAddOn):
            return self._addon(value)
        if isinstance(value, ExternalValue):
            return f"${{{key}:?kept in the secret store {value.store}}}"
        return f"${{{value.key}:?kept in the env group {value.group}}}"

    def _with_default(self, name: str, default: str) -> str:
        if not default:
            return f"${{{name}}}"
        return f"${{{name}:-{default_text(default)}}}" if writable_default(default) else f"${{{name}}}"

    def _secret(self, name: str, value: SecretValue) -> str:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            name = re.sub(r"\W", "_", name) or "SECRET"
        if value.default is not None:
            return f"${{{name}:-{default_text(value.default)}}}" if writable_default(value.default) else f"${{{name}}}"
        if not value.required:
            return f"${{{name}}}"
        return f"${{{name}:?{default_text(value.description)}}}" if writable_default(value.description) else f"${{{name}:?}}"

    def _service(self, value: FromService) -> str:
        title, port = self.services.get(value.service, (value.service, None))
        at = f":{port}" if port else ""
        if value.variable:
            return f"${{{value.variable}}}"
        if value.property in ("public-url", "public-host"):
            return f"${{SERVICE_{'URL' if value.property == 'public-url' else 'FQDN'}_{_upper(title)}}}"
        return {"host": title, "port": str(port or ""), "hostport": title + at, "url": f"http://{title}{at}"}[value.property or "host"]

    def _addon(self, value: FromAddOn) -> str:
        if value.addon not in self.addons:
            return ""
        title, port, addon = self.addons[value.addon]
        if value.property == "host":
            return title
        if value.property == "port":
            return str(port)
        if value.property == "hostport":
            return f"{title}:{port}"
        return self._credentials(value, title, port, addon)

    def _credentials(self, value: FromAddOn, title: str, port: int, addon: AddOn) -> str:
        user, database = str(getattr(addon, "user", "") or ""), str(getattr(addon, "database", "") or "")
        password: EnvValue | None = getattr(addon, "password", None)
        variable = password_variable(value.addon)
        secret = f"${{{variable}}}"
        if password is not None and not isinstance(password, FromAddOn | Template):
            secret = self.text(variable, password) or ""
        if value.property == "password":
            return secret
        if value.property in ("user", "database"):
            held = _VARIABLES[value.property].intersection(addon.env)
            if held:
                key = next(iter(held))
                return self.text(key, addon.env[key]) or ""
            return escape(user if value.property == "user" else database or user)
        scheme = {"postgres": "postgresql", "redis": "redis", "mariadb": "mysql"}.get(addon.kind, "tcp")
        if addon.kind == "redis":
            return f"redis://:{secret}@{title}:{port}" if password is not None else f"redis://{title}:{port}"
        if addon.kind in ("postgres", "mariadb"):
            user = user or ("postgres" if addon.kind == "postgres" else "app")
            return f"{scheme}://{escape(user)}:{secret}@{title}:{port}/{escape(database or user)}"
        return f"{title}:{port}"


_VARIABLES = {
    "user": frozenset({"POSTGRES_USER", "POSTGRESQL_USERNAME", "MYSQL_USER", "MARIADB_USER"}),
    "database": frozenset({"POSTGRES_DB", "POSTGRESQL_DATABASE", "MYSQL_DATABASE", "MARIADB_DATABASE"}),
}
"""Variables of the images that hold a credential whose text comes from a variable."""


def password_variable(addon: str) -> str:
    """The variable that holds an add-on's password in a written file."""
    return f"{_upper(addon)}_PASSWORD"
