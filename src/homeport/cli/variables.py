"""Reading files of KEY=VALUE lines for the verbs that set variables."""

from __future__ import annotations

from pathlib import Path

from homeport.cli.errors import usage


def read_variables(text: str, place: str) -> dict[str, str]:
    """The variables of KEY=VALUE lines. Raises CliError naming the line; a value is never repeated."""
    from homeport.blueprints.compose.dotenv import DotenvInvalid, parse_dotenv

    try:
        found = parse_dotenv(text.replace("${{", "$${{"), strict=True)  # a reference of Railway's is no variable
    except DotenvInvalid as error:
        raise usage(f"{place}:{error.line}: {error}", "Write one KEY=VALUE a line.") from error
    if text.strip() and not found and any(not line.startswith("#") for line in text.split("\n") if line.strip()):
        raise usage(f"{place} holds no KEY=VALUE line.", "Write one KEY=VALUE a line, or a JSON object of names and texts.")
    return found


def read_env_file(path: Path) -> dict[str, str]:
    """The variables of a file. Raises CliError."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise usage(f"{path} is not text (UTF-8).", "Write one KEY=VALUE a line.") from error
    return read_variables(text, str(path))
