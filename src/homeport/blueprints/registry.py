"""The table of all dialects. Explicit, and lazy: a dialect's module is imported when it is asked for."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

from homeport.blueprints.dialect import Reader, Writer


@dataclass(frozen=True)
class Entry:
    """Where a dialect's classes are, and what people call it."""

    module: str
    """Module below `homeport.blueprints`."""
    reader: str = ""
    """Class name; empty when the dialect is only written."""
    writer: str = ""
    """Class name; empty when the dialect is only read."""
    title: str = ""
    """The platform's or format's own name."""
    names: tuple[str, ...] = ()
    """Shell patterns of names in a project's folder that make it worth asking the reader; folders end with `/`."""


DIALECTS: dict[str, Entry] = {
    "homeport": Entry("homeport", "HomeportReader", "HomeportWriter", "Homeport (`homeport.yaml`)", ("homeport.y*ml", "homeport.json")),
    "render": Entry("render", "RenderReader", "RenderWriter", "Render (`render.yaml`)", ("render.y*ml",)),
    "railway": Entry(
        "railway",
        "RailwayReader",
        "RailwayWriter",
        "Railway (`railway.json`, `railway.toml`)",
        ("railway.json", "railway.toml", "railway.jsonc"),
    ),
    "fly": Entry("fly", "FlyReader", "FlyWriter", "Fly (`fly.toml`)", ("fly.toml", "fly.*.toml", "fly.json")),
    "vercel": Entry("vercel", "VercelReader", "", "Vercel (`vercel.json`)", ("vercel.json", "vercel.jsonc", "now.json")),
    "netlify": Entry(
        "netlify", "NetlifyReader", "", "Netlify (`netlify.toml`, `_headers`, `_redirects`)", ("netlify.toml", "_redirects", "_headers")
    ),
    "wrangler": Entry(
        "wrangler",
        "WranglerReader",
        "",
        "Cloudflare Workers (`wrangler.toml`, `.json`, `.jsonc`)",
        ("wrangler.toml", "wrangler.json", "wrangler.jsonc"),
    ),
    "cloudflared": Entry(
        "cloudflared", "CloudflaredReader", "", "Cloudflare Tunnel (`config.yml`)", ("config.y*ml", "cloudflared*", ".cloudflared/")
    ),
    "appjson": Entry("appjson", "AppJsonReader", "AppJsonWriter", "Heroku (`app.json`)", ("app.json",)),
    "compose": Entry("compose", "ComposeReader", "ComposeWriter", "Compose (`compose.yaml`, `docker-compose.yml`)", ("*compose*.y*ml",)),
    "procfile": Entry("procfile", "ProcfileReader", "ProcfileWriter", "Heroku (`Procfile`)", ("Procfile*",)),
    "kubernetes": Entry("kubernetes", "KubernetesReader", "KubernetesWriter", "Kubernetes manifests", ("kubernetes.y*ml", "k8s.y*ml")),
    "cloudrun": Entry(
        "cloudrun", "CloudRunReader", "CloudRunWriter", "Cloud Run (Knative `service.yaml`)", ("service*.y*ml", "*cloudrun*", "*cloud-run*")
    ),
    "terraform": Entry("terraform", "", "TerraformWriter", "Terraform for Google Cloud"),
    "cloudbuild": Entry("cloudbuild", "CloudBuildReader", "", "Cloud Build (`cloudbuild.yaml`)", ("*cloudbuild*",)),
    "ghworkflow": Entry("ghworkflow", "GitHubWorkflowReader", "", "GitHub workflows (`.github/workflows/*.yml`)", (".github/",)),
    "detect": Entry("detect", "DetectReader", "", "No file: the source itself"),
}
"""In the order of precedence among dialects that have the same number."""

PIPELINES = frozenset({"cloudbuild", "ghworkflow"})
"""Dialects that say how code is checked, not what runs."""


def _load(entry: Entry, name: str) -> Any:
    return getattr(importlib.import_module(f"homeport.blueprints.{entry.module}"), name)()


@cache
def reader(dialect: str) -> Reader | None:
    """The reader of a dialect; None when it is only written. Raises KeyError for a dialect nobody knows."""
    entry = DIALECTS[dialect]
    return cast("Reader | None", _load(entry, entry.reader) if entry.reader else None)


@cache
def writer(dialect: str) -> Writer | None:
    """The writer of a dialect; None when it is only read. Raises KeyError for a dialect nobody knows."""
    entry = DIALECTS[dialect]
    return cast("Writer | None", _load(entry, entry.writer) if entry.writer else None)


def writers() -> tuple[Writer, ...]:
    """Every writer, in the table's order."""
    return tuple(found for name in DIALECTS if (found := writer(name)) is not None)
