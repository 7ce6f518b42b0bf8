"""What an environment variable may be: a plain value, a secret, a generated value, or a reference."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_serializer

from homeport.model.base import Frozen, Name

ServiceProperty = Literal["host", "port", "hostport", "url", "public-url", "public-host"]
AddOnProperty = Literal[
    "url", "host", "port", "user", "password", "database", "hostport", "private-url", "public-url", "pooled-url", "direct-url"
]


class PlainValue(Frozen):
    """A value written in the file."""

    kind: Literal["value"] = "value"
    value: str
    """The text."""

    @model_serializer(mode="plain")
    def _bare(self) -> str:
        return self.value


class SecretValue(Frozen):
    """A value that lives in the vault and is never written in the file (Render's `sync: false`)."""

    kind: Literal["secret"] = "secret"
    required: bool = True
    """Whether a deploy stops when nobody has set it."""
    description: str = ""
    """Shown when the value is asked for."""
    default: str | None = None
    """Used while nobody has set it; None means no default."""
    name: str = ""
    """Vault name when it differs from the variable's own."""


class GeneratedValue(Frozen):
    """A random value made once per environment and kept for ever."""

    kind: Literal["generated"] = "generated"
    format: Literal["base64", "hex", "uuid", "alphanumeric"] = "base64"
    """How the random bytes are written."""
    bytes: int = Field(default=32, ge=8, le=1024)
    """Bytes of randomness before encoding. Render generates 256 bits."""
    description: str = ""
    """What it is for."""
    scope: str = ""
    """Two variables with the same non-empty scope share one generated value (Coolify's SERVICE_* names)."""


class FromService(Frozen):
    """A property or a variable of another service of the same project."""

    kind: Literal["service"] = "service"
    service: str
    """The other service."""
    property: ServiceProperty | None = "hostport"
    """What of it."""
    variable: str | None = None
    """Copy this variable of that service instead of a property."""


class FromAddOn(Frozen):
    """A property of an add-on, known once it is provisioned."""

    kind: Literal["addon"] = "addon"
    addon: str
    """The add-on."""
    property: AddOnProperty = "url"
    """What of it."""


class FromGroup(Frozen):
    """One key of an env group, possibly under another name."""

    kind: Literal["group"] = "group"
    group: str
    """The group."""
    key: str
    """Its key there."""


class Template(Frozen):
    """Text with references in it: the parts are joined after each is resolved."""

    kind: Literal["template"] = "template"
    parts: tuple[EnvValue, ...]
    """Texts and references, in order."""


class HostValue(Frozen):
    """A variable the file passes through from whoever deploys (`environment: [KEY]` in Compose)."""

    kind: Literal["host"] = "host"
    name: str
    """The variable's name there."""
    default: str | None = None
    """Used when nobody gives one."""


class ExternalValue(Frozen):
    """A value that an outside secret store keeps. A deploy fetches it, and the release pins what it saw, sealed in the vault."""

    kind: Literal["external"] = "external"
    store: Name
    """The store's name here: `homeport stores`."""
    path: str = Field(min_length=1, max_length=500)
    """Where in the store: a secret's path or name, or a file of the source."""
    key: str = Field(default="", max_length=200)
    """Which field of the secret; empty where a secret is one value."""
    version: str = Field(default="", max_length=100)
    """Which version; empty is the newest at the time of the deploy."""
    description: str = ""
    """What it is for."""


def _shorthand(value: Any) -> Any:
    if isinstance(value, bool):
        return {"kind": "value", "value": "true" if value else "false"}
    if isinstance(value, str | int | float):
        return {"kind": "value", "value": str(value)}
    return value


EnvValue = Annotated[
    PlainValue | SecretValue | GeneratedValue | FromService | FromAddOn | FromGroup | Template | HostValue | ExternalValue,
    Field(discriminator="kind"),
    BeforeValidator(_shorthand),
]
"""A bare scalar is shorthand for `{kind: value, value: …}`."""

Env = dict[str, EnvValue]

Template.model_rebuild()


class EnvGroup(Frozen):
    """Variables shared by the services that name the group."""

    env: Env = {}
    """Its variables."""
    description: str = ""
    """What it is for."""


class EnvFile(Frozen):
    """A dotenv file of the source tree whose variables a service gets, below its own."""

    path: str
    """Path in the source."""
    required: bool = True
    """Whether it must be there."""
    format: Literal["dotenv", "raw"] = "dotenv"
    """`raw` takes values as they stand; `dotenv` knows quotes and `$NAME`."""
