"""Framework presets: what kind of service a framework builds, where it leaves its files, and how an entry point is served.

Output folders are the frameworks' own defaults, which Vercel's and Netlify's presets name as well.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Literal

from homeport.blueprints.opening import dependencies, join
from homeport.blueprints.source import SourceTree

Kind = Literal["static", "node", "python", "other"]

STATIC: dict[str, str] = {
    "angular": "dist", "astro": "dist", "brunch": "public", "create-react-app": "build", "docusaurus": "build", "docusaurus-2": "build",
    "dojo": "output/dist", "eleventy": "_site", "ember": "dist", "gatsby": "public", "gridsome": "dist", "hexo": "public", "hugo": "public",
    "ionic-angular": "www", "ionic-react": "build", "jekyll": "_site", "mdbook": "book", "middleman": "build", "mkdocs": "site",
    "parcel": "dist", "pelican": "output", "polymer": "build", "preact": "build", "saber": "public", "sanity": "dist", "sanity-v3": "dist",
    "scully": "dist/static", "stencil": "www", "storybook": "storybook-static", "svelte": "public", "umijs": "dist", "vite": "dist",
    "vitepress": "docs/.vitepress/dist", "vue": "dist", "vuepress": "src/.vuepress/dist", "zola": "public", "static": "",
    "zensical": "site",
}  # fmt: skip
"""Frameworks that leave files only, with the folder they leave them in."""

NODE = frozenset({
    "nextjs", "nuxtjs", "nuxt", "sveltekit", "sveltekit-1", "remix", "react-router", "solidstart", "solidstart-1", "hydrogen", "redwoodjs",
    "blitzjs", "sapper", "tanstack-start", "nitro", "node", "express", "fastify", "hono", "koa", "nestjs", "h3", "elysia", "xmcp", "mastra",
    "analog", "foldkit",
})  # fmt: skip
FRONT_ENDS = frozenset({
    "nextjs", "nuxtjs", "nuxt", "sveltekit", "sveltekit-1", "remix", "react-router", "solidstart", "solidstart-1", "hydrogen", "redwoodjs",
    "blitzjs", "sapper", "tanstack-start", "analog", *STATIC,
})  # fmt: skip
"""Frameworks that know the path they are mounted at by themselves."""
PYTHON = frozenset({"fastapi", "flask", "django", "python", "starlette", "sanic", "litestar", "fasthtml"})
OTHER = frozenset({"go", "gin", "rust", "axum", "ruby", "rails", "php", "docker", "container"})

_PACKAGES: tuple[tuple[str, str], ...] = (
    ("next", "nextjs"), ("nuxt", "nuxtjs"), ("@sveltejs/kit", "sveltekit"), ("@remix-run/dev", "remix"), ("@remix-run/react", "remix"),
    ("@react-router/dev", "react-router"), ("@solidjs/start", "solidstart-1"), ("@tanstack/react-start", "tanstack-start"),
    ("@redwoodjs/core", "redwoodjs"), ("blitz", "blitzjs"), ("astro", "astro"), ("gatsby", "gatsby"), ("@docusaurus/core", "docusaurus-2"),
    ("@11ty/eleventy", "eleventy"), ("vitepress", "vitepress"), ("vuepress", "vuepress"), ("@angular/cli", "angular"),
    ("react-scripts", "create-react-app"), ("@vue/cli-service", "vue"), ("hexo", "hexo"), ("gridsome", "gridsome"), ("ember-cli", "ember"),
    ("@nestjs/core", "nestjs"), ("fastify", "fastify"), ("hono", "hono"), ("express", "express"), ("koa", "koa"), ("elysia", "elysia"),
    ("vite", "vite"), ("parcel", "parcel"),
)  # fmt: skip
"""Package to framework; the first that a package.json asks for decides."""

_FILES: tuple[tuple[str, str], ...] = (
    ("hugo.toml", "hugo"), ("hugo.yaml", "hugo"), ("_config.yml", "jekyll"), ("mkdocs.yml", "mkdocs"), ("book.toml", "mdbook"),
)  # fmt: skip

_WSGI = frozenset({"flask", "django"})
_ASTRO_SERVERS = frozenset({"@astrojs/node", "@astrojs/vercel", "@astrojs/netlify", "@astrojs/cloudflare"})


def kind_of(framework: str) -> Kind | None:
    """What a framework's build is served by; None when nobody knows the name."""
    if framework in STATIC:
        return "static"
    if framework in NODE:
        return "node"
    if framework in PYTHON:
        return "python"
    return "other" if framework in OTHER else None


def detect(tree: SourceTree, folder: str) -> tuple[str, Kind | None]:
    """The framework of a folder and its kind, by package.json and well-known files; `("", None)` when none shows."""
    packages = dependencies(tree, folder)
    for package, framework in _PACKAGES:
        if package in packages:
            server = framework == "astro" and packages & _ASTRO_SERVERS
            return framework, "node" if server else kind_of(framework)
    names = set(tree.list(folder))
    for name, framework in _FILES:
        if name in names:
            return framework, "static"
    return _python(tree, folder, names)


def _python(tree: SourceTree, folder: str, names: set[str]) -> tuple[str, Kind | None]:
    for name in ("requirements.txt", "pyproject.toml", "Pipfile"):
        if name not in names:
            continue
        try:
            text = (tree.text(join(folder, name)) or "").lower()
        except ValueError:
            text = ""
        found = next((f for f in ("django", "fastapi", "flask", "starlette", "litestar", "sanic") if f in text), "python")
        return found, "python"
    return "", None


def start_command(entrypoint: str, framework: str, tree: SourceTree, root: str, *, bun: bool = False) -> str:
    """The command that serves an entry point; empty where detection finds a better one."""
    suffix = PurePosixPath(entrypoint.partition(":")[0]).suffix
    if suffix in (".js", ".mjs", ".cjs"):
        return f"{'bun' if bun else 'node'} {entrypoint}"
    if suffix in (".ts", ".mts", ".cts"):
        return f"bun {entrypoint}" if bun else ""
    match = re.fullmatch(r"([A-Za-z_][\w./]*?)(?:\.py)?(?::([A-Za-z_]\w*))?", entrypoint)
    if not match or not (suffix == ".py" or match[2]):
        return ""
    module, variable = match[1].replace("/", "."), match[2] or "app"
    if framework in _WSGI or (not framework and _imports_flask(tree, join(root, match[1].replace(".", "/") + ".py"))):
        return f"gunicorn --bind 0.0.0.0:$PORT {module}:{variable}"
    return f"uvicorn {module}:{variable} --host 0.0.0.0 --port $PORT"


def _imports_flask(tree: SourceTree, path: str) -> bool:
    try:
        text = tree.text(path) or ""
    except ValueError:
        return False
    return re.search(r"^\s*(?:from|import)\s+(?:flask|django)\b", text, re.MULTILINE) is not None
