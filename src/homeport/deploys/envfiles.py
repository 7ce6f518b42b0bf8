"""Env files that a blueprint names become part of the release's spec: a release holds all its configuration."""

from __future__ import annotations

from homeport.blueprints.compose.dotenv import DotenvInvalid, parse_dotenv, parse_raw
from homeport.blueprints.source import SourceTree
from homeport.model.env import Env, PlainValue
from homeport.model.errors import BlueprintInvalid, Problem
from homeport.model.service import Service
from homeport.model.spec import Spec


def fold_env_files(spec: Spec, tree: SourceTree) -> Spec:
    """The spec with every env file's variables below the service's own. Raises BlueprintInvalid naming file and line."""
    services: dict[str, Service] = {}
    for name, service in spec.services.items():
        env: Env = {}
        for file in service.env_files:
            text = tree.text(file.path)
            if text is None:
                if file.required:
                    raise _invalid(file.path, f"services.{name} needs this env file, and it is not in the source", 0)
                continue
            try:
                found = parse_raw(text) if file.format == "raw" else parse_dotenv(text)
            except DotenvInvalid as error:
                raise _invalid(file.path, str(error), error.line) from error
            env |= {key: PlainValue(value=value) for key, value in found.items()}
        services[name] = service.model_copy(update={"env": {**env, **service.env}, "env_files": ()}) if service.env_files else service
    return spec.model_copy(update={"services": services})


def _invalid(file: str, message: str, line: int) -> BlueprintInvalid:
    return BlueprintInvalid(file=file, problems=[Problem(message, line=line, column=1 if line else 0)])
