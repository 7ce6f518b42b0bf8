"""Coverage-guided fuzzing of parsers and readers with atheris.

    python tests/fuzz/fuzz_blueprints.py TARGET [-runs=100000] [corpus folder]

TARGET is `yaml`, `json`, `toml`, `procfile`, or the name of any dialect. A finding is any exception but BlueprintInvalid.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from homeport.blueprints.document import parse_json, parse_toml, parse_yaml
from homeport.blueprints.procfile import parse_procfile
from homeport.blueprints.registry import DIALECTS, reader
from homeport.blueprints.source import MemoryTree, decode
from homeport.model.errors import BlueprintInvalid
from homeport.model.reading import leaves
from homeport.model.spec import Spec

PARSERS = {"yaml": parse_yaml, "json": parse_json, "toml": parse_toml, "procfile": parse_procfile}
NAMES = {
    "render": "render.yaml",
    "homeport": "homeport.yaml",
    "compose": "compose.yaml",
    "railway": "railway.toml",
    "fly": "fly.toml",
    "netlify": "netlify.toml",
    "vercel": "vercel.json",
    "appjson": "app.json",
    "wrangler": "wrangler.jsonc",
    "cloudflared": "config.yml",
    "cloudbuild": "cloudbuild.yaml",
    "ghworkflow": ".github/workflows/ci.yml",
    "cloudrun": "service.yaml",
    "kubernetes": "kubernetes.yaml",
}
TARGETS = (*PARSERS, *(name for name in NAMES if name in DIALECTS and DIALECTS[name].reader))


def target(name: str) -> Callable[[bytes], None]:
    """What is called with each input."""

    def parse(data: bytes) -> None:
        try:
            leaves(PARSERS[name]("file", decode(data)).data)
        except BlueprintInvalid as error:
            error.render()

    def read(data: bytes) -> None:
        one = reader(name)
        if one is None:
            return
        path = NAMES[name]
        try:
            reading = one.read(MemoryTree({path: decode(data)}, "app"), path)
        except BlueprintInvalid as error:
            error.render()
        else:
            Spec.model_validate(reading.spec.canonical())

    return parse if name in PARSERS else read


def main(arguments: list[str]) -> None:
    import atheris

    if len(arguments) < 2 or arguments[1] not in TARGETS:
        raise SystemExit(f"usage: {arguments[0]} TARGET [libFuzzer options]; targets: {', '.join(TARGETS)}")
    called = target(arguments[1])
    atheris.instrument_all()
    atheris.Setup([arguments[0], *arguments[2:]], called)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv)
