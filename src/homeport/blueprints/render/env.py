"""Variables of a render.yaml: plain, secret, generated, or taken from a database, a service or a group."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from homeport.blueprints.naming import Names
from homeport.blueprints.view import View, scalar_text
from homeport.model.addon import AddOn
from homeport.model.env import Env, EnvGroup, EnvValue, FromAddOn, FromService, GeneratedValue, PlainValue, SecretValue
from homeport.model.reading import Fate
from homeport.model.route import Route
from homeport.model.service import Service

ADDON_PROPERTIES = {
    "connectionString": "url",
    "connectionPoolString": "pooled-url",
    "internalConnectionString": "private-url",
    "externalConnectionString": "public-url",
    "host": "host",
    "port": "port",
    "hostport": "hostport",
    "user": "user",
    "username": "user",
    "password": "password",
    "database": "database",
    "databaseName": "database",
}
SERVICE_PROPERTIES = {"host": "host", "port": "port", "hostport": "hostport", "connectionString": "url"}
RENDER_VARIABLES = {"RENDER_EXTERNAL_URL": "public-url", "RENDER_EXTERNAL_HOSTNAME": "public-host", "PORT": "port"}
"""Variables that Render itself sets for every web service, which another service may ask for."""

_KEY = re.compile(r"^[A-Za-z_][A-Za-z0-9_.\-]*$")


@dataclass
class Resources:
    """What one environment of the file holds."""

    services: dict[str, Service] = field(default_factory=dict)
    addons: dict[str, AddOn] = field(default_factory=dict)
    groups: dict[str, EnvGroup] = field(default_factory=dict)
    routes: list[Route] = field(default_factory=list)
    preview: dict[str, Any] = field(default_factory=dict)
    """Merge patch of the preview environment."""

    def in_preview(self, *path: str, value: Any) -> None:
        """Set a value for previews."""
        at = self.preview
        for key in path[:-1]:
            at = at.setdefault(key, {})
        at[path[-1]] = value


@dataclass
class Context:
    """What the readers of one file share."""

    services: Names = field(default_factory=Names)
    addons: Names = field(default_factory=Names)
    groups: set[str] = field(default_factory=set)
    warnings: list[str] = field(default_factory=list)


@dataclass
class Variables:
    """The variables of one service or group."""

    env: Env = field(default_factory=dict)
    groups: tuple[str, ...] = ()
    previews: dict[str, str] = field(default_factory=dict)
    places: dict[str, View] = field(default_factory=dict)


def read_variables(owner: View, context: Context, key: str = "envVars") -> Variables:
    """The list under `envVars`; a mapping, which some files write, is read as what it means."""
    found = Variables()
    raw = owner.raw(key)
    if isinstance(raw, dict):
        owner.approximated(key, reason="Render wants a list of key and value here; the mapping is read as one")
        for name, value in raw.items():
            if not isinstance(value, dict | list):
                found.env[str(name)] = PlainValue(value=scalar_text(value))
        return found
    for item in owner.views(key):
        if "fromGroup" in item:
            group = item.text("fromGroup")
            if group and group not in context.groups:
                item.approximated(
                    "fromGroup", reason=f"the group {group!r} is not in this file; its variables are asked for when one is made"
                )
            elif group:
                found.groups = (*found.groups, group)
            item.ignored("key", reason="a group brings all of its keys under their own names")
            continue
        name = item.text("key")
        if not name:
            item.problem(None, "a variable needs a `key` (or `fromGroup`)")
            continue
        if not _KEY.match(name):
            item.problem("key", f"{name[:60]!r} cannot be the name of a variable")
            continue
        if name in found.places:
            earlier = found.places[name]
            for said in earlier.data:
                earlier.ledger.note(earlier.at(said), Fate.IGNORED, f"{name} is said again further down, and the last one counts")
        found.places[name] = item
        found.env[name] = _value(item, name, context, found)
    return found


def _value(item: View, name: str, context: Context, found: Variables) -> EnvValue:
    description = item.text("description") or item.text("displayName")
    item.honoured("description", "displayName", reason="shown when the value is asked for")
    item.honoured("sensitive", reason="secrets are always sealed and never shown")
    if item.raw("previewValue") is not None:
        found.previews[name] = item.text("previewValue", reason="set in previews")
    if isinstance(item.raw("fromDatabase"), dict):
        return _from_database(item.view("fromDatabase"), context, name)
    if isinstance(item.raw("fromService"), dict):
        return _from_service(item.view("fromService"), context, name)
    generate, sync = item.flag("generateValue", False), item.flag("sync", True)
    value = item.raw("value")
    if "value" in item and isinstance(value, dict | list):
        item.problem("value", "a value is text or a number")
        return PlainValue(value="")
    text = item.text("value") if value is not None else None
    item.honoured("value")
    if generate:
        if text:
            item.ignored("value", reason="generateValue makes the value")
        return GeneratedValue(description=description)
    if sync is False:
        if text:
            item.honoured("value", reason="used until somebody sets the secret")
        return SecretValue(description=description, default=text or None)
    if text is None and "value" not in item:
        return SecretValue(required=False, description=description)
    return PlainValue(value=text or "")


def _from_database(view: View, context: Context, name: str) -> EnvValue:
    title, wanted = view.text("name"), view.text("property", "connectionString")
    view.honoured("type")
    addon = context.addons.find(title)
    if addon is None:
        return _outside(view, title, wanted, name)
    if wanted not in ADDON_PROPERTIES:
        return _no_such_property(view, "property", wanted, ADDON_PROPERTIES, name)
    return FromAddOn(addon=addon, property=ADDON_PROPERTIES[wanted])


def _from_service(view: View, context: Context, name: str) -> EnvValue:
    title, kind = view.text("name"), view.text("type")
    wanted, variable = view.text("property"), view.text("envVarKey")
    addon, service = context.addons.find(title), context.services.find(title)
    if addon is not None and (service is None or kind in ("redis", "keyvalue", "dpg")):
        wanted = wanted or "connectionString"
        if wanted not in ADDON_PROPERTIES:
            return _no_such_property(view, "property", wanted, ADDON_PROPERTIES, name)
        return FromAddOn(addon=addon, property=ADDON_PROPERTIES[wanted])
    if service is None:
        return _outside(view, title, variable or wanted, name)
    if variable in RENDER_VARIABLES:
        return FromService(service=service, property=RENDER_VARIABLES[variable])
    if variable:
        return FromService(service=service, property=None, variable=variable)
    wanted = wanted or "hostport"
    if wanted not in SERVICE_PROPERTIES:
        return _no_such_property(view, "property", wanted, SERVICE_PROPERTIES, name)
    return FromService(service=service, property=SERVICE_PROPERTIES[wanted])


def _outside(view: View, title: str, wanted: str, name: str) -> EnvValue:
    reason = f"{title or 'nothing'} is not in this file: {name} is asked for like a secret"
    view.approximated("name", "type", "property", "envVarKey", reason=reason)
    return SecretValue(description=f"{wanted or 'address'} of {title}, which is not in the blueprint")


def _no_such_property(view: View, key: str, wanted: str, known: dict[str, str], name: str) -> EnvValue:
    view.ignored(
        key, reason=f"there is no property {wanted[:40]!r} here (known: {', '.join(sorted(known))}); {name} is asked for like a secret"
    )
    return SecretValue(description=wanted)
