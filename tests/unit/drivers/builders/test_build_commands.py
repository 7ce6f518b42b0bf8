"""Reading the command lines that users write for builds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeport.drivers.builders.commands import plain_words, read_line
from homeport.drivers.builders.recipe import Command, NodeInstall, PythonInstall


def shape(line: str) -> list[str]:
    """Steps in short: `npm`, `pip requirements.txt`, `run …`, `sh …`, with the folder after `@`."""
    found = []
    for step in read_line(line):
        where = f" @{step.folder}" if step.folder else ""
        if isinstance(step, NodeInstall):
            found.append(" ".join([step.tool, *step.arguments]) + where)
        elif isinstance(step, PythonInstall):
            found.append(" ".join([step.method, *step.files, *step.groups]) + where)
        else:
            found.append(("sh " if step.script else "run ") + step.text + where)
    return found


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("npm install && pip install -r requirements.txt", ["npm", "files requirements.txt"]),
        ("npm ci --no-audit && npm run build", ["npm", "run npm run build"]),
        ("yarn", ["yarn"]),
        ("yarn --frozen-lockfile && yarn build", ["yarn --frozen-lockfile", "run yarn build"]),
        ("corepack enable && pnpm i --frozen-lockfile; pnpm build", ["sh corepack enable && pnpm i --frozen-lockfile; pnpm build"]),
        ("corepack enable && pnpm i --frozen-lockfile && pnpm build", ["pnpm --frozen-lockfile", "run pnpm build"]),
        ("npm i -g pnpm && pnpm install", ["pnpm"]),
        ("bun install && bun run build", ["bun", "run bun run build"]),
        ("pip install --upgrade pip && pip install --no-cache-dir -r a.txt -r b/c.txt", ["files a.txt b/c.txt"]),
        ("python -m pip install -U pip setuptools wheel", []),
        ("python3 -m pip install -rrequirements/prod.txt", ["files requirements/prod.txt"]),
        ("pip install poetry && poetry install --no-dev", ["poetry"]),
        ("uv sync --frozen --no-dev --extra web", ["uv --extra web"]),
        ("pip install flask", ["run pip install flask"]),
        ("pip install .", ["project"]),
        ("pip install 'uvicorn[standard]>=0.30'", ["run pip install uvicorn[standard]>=0.30"]),
        ("npm install left-pad", ["run npm install left-pad"]),
        ("cd web && npm ci && npm run b && cd .. && pip install -r r.txt", ["npm @web", "run npm run b @web", "files r.txt"]),
        ("cd ../outside && npm ci", ["sh cd ../outside && npm ci"]),
        ("NODE_ENV=production npm run build", ["run npm run build"]),
        ("npm run build | tee log", ["sh npm run build | tee log"]),
        ("echo $HOME", ["sh echo $HOME"]),
        ("npm install\npip install -r requirements.txt\n", ["npm", "files requirements.txt"]),
        ("npm install \\\n  && npm run build", ["npm", "run npm run build"]),
        ("./build.sh", ["run ./build.sh"]),
        ("export A=1 && npm ci", ["sh export A=1 && npm ci"]),
        ("", []),
        ("a && && b", ["sh a && && b"]),
        ("'unclosed", ["sh 'unclosed"]),
    ],
)  # fmt: skip
def test_a_line_becomes_steps(line: str, expected: list[str]) -> None:
    """Installs are told from programs, and whatever needs a shell goes to one whole."""
    assert shape(line) == expected


@pytest.mark.parametrize(
    "line",
    [
        "pip install -r requirements.txt;touch X", "pip install -r $(touch X)", "pip install -r --index-url=x",
        "npm install `touch X`", "npm ci --script-shell=/tmp/x", "yarn --use-yarnrc /tmp/x", "pip install -r /etc/passwd",
        "pip install --target /etc -r requirements.txt",
        "pip install -r https://example.test/r.txt", "uv sync --directory /etc",
    ],
)  # fmt: skip
def test_what_is_not_understood_is_no_install(line: str) -> None:
    """An option or a path that could mean more than an install is never made into one of our own commands."""
    assert all(isinstance(step, Command) for step in read_line(line))


def test_variables_before_a_command_are_kept() -> None:
    """`NAME=value command` runs without a shell, with the variable set."""
    (step,) = read_line("A=1 B='two words' make all")
    assert isinstance(step, Command)
    assert step.env == {"A": "1", "B": "two words"}
    assert step.argv == ("make", "all")


@given(st.text(max_size=200))
def test_any_text_can_be_read(text: str) -> None:
    """No line of text makes the reader fail, and shell syntax never reaches an argv list unseen."""
    for step in read_line(text):
        if isinstance(step, Command) and not step.script:
            assert step.argv


@given(st.text(alphabet="ab $();|&<>`\\'\"", max_size=30))
def test_plain_words_hold_no_shell_syntax(text: str) -> None:
    """A part counts as plain only when a shell would do nothing but split it."""
    words = plain_words(text)
    if words is not None:
        outside = text
        for quote in ("'", '"'):
            outside = "".join(outside.split(quote)[::2]) if outside.count(quote) else outside
        assert not set(outside) & set("$();|&<>`\\")
