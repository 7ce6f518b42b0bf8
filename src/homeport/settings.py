"""Server settings: the only reader of the process environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

from pydantic import Field

from homeport.home import home_of
from homeport.model.base import Duration, Frozen

_NETWORK = (
    "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "PIP_CERT", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX",
    "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS", "NPM_CONFIG_REGISTRY", "NPM_CONFIG_CAFILE", "YARN_NPM_REGISTRY_SERVER",
)  # fmt: skip
"""Variables of the host that say how package registries and git hosts are reached."""


class Settings(Frozen):
    """Where this home lies and which ports it uses. Each field is read from the variable named in its docstring."""

    home: Path
    """`HOMEPORT_HOME`: all state. Default `/var/lib/homeport` for root, `~/.homeport` for others."""
    edge_port: int = Field(default=8080, ge=1, le=65535)
    """`HOMEPORT_EDGE_PORT`: TCP port of the edge."""
    edge_address: str = "127.0.0.1"
    """`HOMEPORT_EDGE_ADDRESS`: address the edge binds; `0.0.0.0` on a server that the public reaches."""
    api_port: int = Field(default=8090, ge=1, le=65535)
    """`HOMEPORT_API_PORT`: TCP port of the API, bound on `HOMEPORT_API_ADDRESS`."""
    api_address: str = "127.0.0.1"
    """`HOMEPORT_API_ADDRESS`: address the API binds. Whoever reaches it needs a key; put TLS in front before others do."""
    database_url: str = Field(default="", repr=False)
    """`HOMEPORT_DATABASE_URL`: `postgresql://…` for the control plane's own store. Empty: SQLite in the home."""
    vault_key: str = Field(default="", repr=False)
    """`HOMEPORT_VAULT_KEY`: the vault's key as base64 or hex, when it is not kept in `vault.key`. Two, separated by a space, while it
    is changed."""
    vault_key_command: str = Field(default="", repr=False)
    """`HOMEPORT_VAULT_KEY_COMMAND`: a command that prints the vault's key; split into words, run without a shell, ended after 30 s."""
    vault_key_environment: dict[str, str] = Field(default={}, repr=False)
    """What that command inherits: this process's variables without those of Homeport itself. Empty when there is no command."""
    nginx: str = ""
    """`HOMEPORT_NGINX`: path of an nginx to use instead of the bundled one."""
    log_level: str = "info"
    """`HOMEPORT_LOG_LEVEL`: how much the control plane writes to `serve.log`: debug, info, warning or error."""
    network: dict[str, str] = Field(default={}, repr=False)
    """Proxies, certificates and mirrors as the host's own variables name them (`HTTPS_PROXY`, `SSL_CERT_FILE`, …): passed on to
    builds, installers and git, which inherit nothing else."""
    build_time: Duration = timedelta(minutes=15)
    """`HOMEPORT_BUILD_TIME`: how long the build of one service may take, such as `30m`; then it is ended."""
    fault: str = ""
    """`HOMEPORT_FAULT`: `<step>:<point>` at which the control plane kills itself, for the fault suite."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Settings:
        """Read `HOMEPORT_*`. Raises pydantic.ValidationError naming the variable that is wrong."""
        given = os.environ if environment is None else environment
        values: dict[str, str] = {
            field: given[name]
            for field in cls.model_fields
            if field not in {"home", "network", "vault_key_environment"} and (name := f"HOMEPORT_{field.upper()}") in given and given[name]
        }
        home = home_of(given)
        network = {name: given[name] for upper in _NETWORK for name in (upper, upper.lower()) if given.get(name)}
        command = {k: v for k, v in given.items() if not k.startswith("HOMEPORT_")} if values.get("vault_key_command") else {}
        return cls.model_validate({"home": home, "network": network, "vault_key_environment": command, **values})
