"""Dockerfiles played without a container engine."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeport.blueprints.source import MemoryTree
from homeport.drivers.builders.dockerfile import recipe_from_dockerfile
from homeport.drivers.builders.dockerfile_text import parse
from homeport.drivers.builders.errors import UnknownLanguage
from homeport.drivers.builders.recipe import Command, Recipe
from homeport.model.service import Build, StaticService, WebService


def recipe(text: str, files: dict[str, str] | None = None, **build: Any) -> Recipe:
    tree = MemoryTree({"Dockerfile": text, **(files or {})})
    return recipe_from_dockerfile(tree, WebService(build=Build(builder="dockerfile", **build)), "web", {})


def texts(found: Recipe) -> list[str]:
    return [(step.text if isinstance(step, Command) else step.line) + (f" @{step.folder}" if step.folder else "") for step in found.steps]


PYTHON = """
# syntax=docker/dockerfile:1
ARG VERSION=3.11
FROM python:${VERSION}-slim AS base
ENV PYTHONUNBUFFERED=1 \\
    PATH="/opt/venv/bin:$PATH"
WORKDIR /app
RUN apt-get update && apt-get install -y --no-install-recommends \\
      # for psycopg
      libpq-dev gcc=12.* \\
    && rm -rf /var/lib/apt/lists/*
RUN python -m venv /opt/venv
COPY requirements.txt .
RUN --mount=type=cache,target=/root/.cache pip install --no-cache-dir -r requirements.txt
COPY . .
RUN useradd -m app && chown -R app /app
USER app
EXPOSE 8000
HEALTHCHECK CMD curl -f http://localhost:8000/health
CMD ["uvicorn", "app.main:app", "--host", "0.0.0.0", "--port", "8000"]
"""


def test_a_python_dockerfile_becomes_an_install_and_a_command() -> None:
    """Requirements are a layer, packages of the system become a note, the fixed port becomes PORT."""
    found = recipe(PYTHON)
    assert texts(found) == ["pip install --no-cache-dir -r requirements.txt"]
    assert found.python == "3.11"
    assert found.env == {"PYTHONUNBUFFERED": "1"}
    assert found.command == "uvicorn app.main:app --host 0.0.0.0 --port $PORT"
    assert found.port is None
    assert any("libpq-dev, gcc" in note for note in found.notes)


def test_stages_of_a_node_build_are_played_in_one_folder() -> None:
    """What one stage copies from another at the same place needs no copy."""
    found = recipe(
        "FROM node:20-alpine AS deps\nWORKDIR /app\nCOPY package*.json ./\nRUN npm ci\n"
        "FROM node:20-alpine AS build\nWORKDIR /app\nCOPY --from=deps /app/node_modules ./node_modules\nCOPY . .\nRUN npm run build\n"
        "FROM node:20-alpine\nWORKDIR /app\nENV NODE_ENV production\nCOPY --from=build /app/dist ./dist\n"
        'COPY --from=build /app/node_modules ./node_modules\nEXPOSE 3000\nCMD ["node", "/app/dist/index.js"]\n'
    )
    assert texts(found) == ["npm ci", "npm run build"]
    assert found.node == "20"
    assert found.command == ("node", "./dist/index.js")
    assert found.port == 3000
    assert found.env == {"NODE_ENV": "production"}


def test_a_program_that_reads_port_is_not_held_to_the_exposed_one() -> None:
    """The source decides whether EXPOSE is a wish or a fact."""
    text = "FROM node:20\nWORKDIR /app\nCOPY . .\nEXPOSE 3000\nCMD node index.js\n"
    assert recipe(text, {"index.js": "listen(process.env.PORT || 3000)"}).port is None
    assert recipe(text, {"index.js": "listen(3000)"}).port == 3000


def test_only_the_stages_that_are_needed_are_played() -> None:
    """A stage nobody copies from, and everything after the wanted target, is left out."""
    text = "FROM golang AS other\nRUN go build\nFROM node:20 AS web\nRUN npm ci\nFROM web AS test\nRUN npm test\n"
    assert texts(recipe(text, target="web")) == ["npm ci"]


def test_a_site_behind_a_web_server_image_is_published() -> None:
    """Files copied into nginx's folder are what is served; its configuration is not."""
    found = recipe(
        "FROM node:18 AS b\nWORKDIR /src\nCOPY . .\nRUN npm install && npm run build\n"
        "FROM nginx:alpine\nCOPY --from=b /src/build /usr/share/nginx/html\nCOPY nginx.conf /etc/nginx/conf.d/default.conf\n"
    )
    assert found.publish == "build"
    assert found.command == ""
    assert texts(found) == ["npm install", "npm run build"]


def test_a_subfolder_that_is_copied_to_the_working_folder_is_the_working_folder() -> None:
    """Paths of the image are mapped back to the paths they came from."""
    found = recipe(
        "FROM python:3.12\nWORKDIR /code\nCOPY backend/requirements.txt /code/requirements.txt\nRUN pip install -r /code/requirements.txt\n"
        "COPY ./backend /code\nCMD gunicorn -b 0.0.0.0:$PORT app:app\n"
    )
    assert found.folder == "backend"
    assert texts(found) == ["pip install -r ./requirements.txt @backend"]


def test_the_official_next_dockerfile_is_understood() -> None:
    """The choice of package manager by lock file and the standalone output are known patterns."""
    found = recipe(
        "FROM node:20-alpine AS base\nFROM base AS deps\nRUN apk add --no-cache libc6-compat\nWORKDIR /app\n"
        "COPY package.json yarn.lock* package-lock.json* ./\n"
        "RUN \\\n  if [ -f yarn.lock ]; then yarn --frozen-lockfile; \\\n"
        "  elif [ -f package-lock.json ]; then npm ci; \\\n  else exit 1; \\\n  fi\n"
        "FROM base AS builder\nWORKDIR /app\nCOPY --from=deps /app/node_modules ./node_modules\nCOPY . .\nRUN npm run build\n"
        "FROM base AS runner\nWORKDIR /app\nCOPY --from=builder /app/public ./public\nCOPY --from=builder /app/.next/standalone ./\n"
        "COPY --from=builder /app/.next/static ./.next/static\nEXPOSE 3000\nENV PORT=3000\nENV HOSTNAME=0.0.0.0\n"
        'CMD ["node", "server.js"]\n',
        {"yarn.lock": "", "package.json": '{"dependencies": {"next": "14"}}'},
    )
    assert texts(found) == [
        "install packages",
        "npm run build",
        "cp -rT public .next/standalone/public",
        "cp -rT .next/static .next/standalone/.next/static",
    ]
    assert found.folder == ".next/standalone"
    assert found.port is None
    assert "PORT" not in found.env


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("FROM golang:1.22\n", "golang"),
        ("FROM ruby:3\n", "ruby"),
        ("FROM python:3\nCOPY --from=ghcr.io/other/image /x /y\n", "ghcr.io/other/image"),
        ("FROM python:3\nADD https://example.test/x /x\n", "Dockerfile:2"),
        ("RUN x\n", "no FROM"),
        ("FROM\n", "line 1"),
        ("FROM a\nEXECUTE b\n", "EXECUTE"),
        ("", "no FROM"),
    ],
)
def test_what_cannot_be_done_is_named(text: str, named: str) -> None:
    """The error says which line or image needs a container engine."""
    with pytest.raises(UnknownLanguage) as caught:
        recipe(text)
    assert named in caught.value.why


def test_an_image_needs_an_engine() -> None:
    """A service that runs an image is never guessed at."""
    with pytest.raises(UnknownLanguage):
        recipe_from_dockerfile(MemoryTree({}), WebService(build=Build(builder="image", image="redis:7")), "cache", {})


def test_heredocs_and_comments_inside_lines_are_read() -> None:
    """A RUN with a heredoc is one instruction."""
    stages = parse("FROM a\nRUN <<EOF\npip install x\n\nnpm ci\nEOF\nCMD b \\\n# note\n  c\n")
    assert [one.text for one in stages[0].instructions] == ["pip install x\n\nnpm ci", "b c"]


def test_a_static_service_may_come_from_a_dockerfile() -> None:
    """The same recipe serves a static service."""
    text = "FROM node:20 AS b\nWORKDIR /a\nCOPY . .\nRUN npm ci\nFROM nginx\nCOPY --from=b /a/dist /usr/share/nginx/html\n"
    found = recipe_from_dockerfile(MemoryTree({"Dockerfile": text}), StaticService(build=Build(builder="dockerfile")), "site", {})
    assert found.publish == "dist"


@given(st.text(alphabet="FROM nodeRUN\n\\ :as=\"'[]<$A{}/.-", max_size=120))
def test_any_text_is_read_or_refused(text: str) -> None:
    """No Dockerfile makes the reader fail in another way than saying so, and no path leaves the source."""
    try:
        found = recipe("FROM node:20\n" + text)
    except UnknownLanguage:
        return
    assert not found.folder.startswith(("/", ".."))
