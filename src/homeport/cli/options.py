"""Options that many verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Project = Annotated[str | None, typer.Option("--project", "-p", help="Project; default the one of this folder.")]
Environment = Annotated[str, typer.Option("--env", "-e", help="Environment.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]
Folder = Annotated[Path, typer.Argument(help="Folder of the project; default this one.", show_default=False)]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Accept what would be taken away.")]
EdgePort = Annotated[
    int | None, typer.Option("--edge-port", help="Port of the edge, when this starts the control plane.", min=1, max=65535)
]
EnvFile = Annotated[Path | None, typer.Option("--env-file", help="File of KEY=VALUE lines to set first.", exists=True, dir_okay=False)]
Prefer = Annotated[str, typer.Option("--prefer", help="File or dialect to read when there are several.")]
Profile = Annotated[list[str] | None, typer.Option("--profile", help="Profile of services to run as well.")]
Strict = Annotated[bool, typer.Option("--strict", help="Refuse files with keys that nobody knows.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show every line of builds.")]
