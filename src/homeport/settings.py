"""Server settings: the only reader of the process environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from pydantic import Field

from homeport.model.base import Frozen


class Settings(Frozen):
    """Where this home lies and which ports it uses. Each field is read from the variable named in its docstring."""

    home: Path
    """`HOMEPORT_HOME`: all state. Default `~/.homeport`."""
    edge_port: int = Field(default=8080, ge=1, le=65535)
    """`HOMEPORT_EDGE_PORT`: TCP port of the edge."""
    edge_address: str = "127.0.0.1"
    """`HOMEPORT_EDGE_ADDRESS`: address the edge binds; `0.0.0.0` on a server that the public reaches."""
    api_port: int = Field(default=8090, ge=1, le=65535)
    """`HOMEPORT_API_PORT`: TCP port of the API, bound on 127.0.0.1 unless `api_address` says otherwise."""
    api_address: str = "127.0.0.1"
    """`HOMEPORT_API_ADDRESS`."""
    database_url: str = Field(default="", repr=False)
    """`HOMEPORT_DATABASE_URL`: `postgresql://…` for the control plane's own store. Empty: SQLite in the home."""
    nginx: str = ""
    """`HOMEPORT_NGINX`: path of an nginx to use instead of the bundled one."""
    log_level: str = "info"
    """`HOMEPORT_LOG_LEVEL`: debug, info, warning or error."""
    fault: str = ""
    """`HOMEPORT_FAULT`: `<step>:<point>` at which the control plane kills itself; see `durable/faults.py`."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Settings:
        """Read `HOMEPORT_*`. Raises pydantic.ValidationError naming the variable that is wrong."""
        given = os.environ if environment is None else environment
        values: dict[str, str] = {
            field: given[name]
            for field in cls.model_fields
            if field != "home" and (name := f"HOMEPORT_{field.upper()}") in given and given[name]
        }
        home = Path(given.get("HOMEPORT_HOME") or Path(given.get("HOME") or "~").expanduser() / ".homeport").expanduser().absolute()
        return cls.model_validate({"home": home, **values})
