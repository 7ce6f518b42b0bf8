"""Git repositories as sources."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from homeport.drivers.sources.errors import SourceRefused, SourceUnavailable
from homeport.drivers.sources.git import check_address, check_reference, without_credentials
from homeport.drivers.sources.remote import GitSource

GIT = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=trunk"]


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run([*GIT, "-C", str(folder), *arguments], check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "origin"
    folder.mkdir()
    git(folder, "init", "-q")
    (folder / "a.txt").write_text("one")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "one")
    git(folder, "tag", "v1")
    git(folder, "branch", "feature/x")
    (folder / "a.txt").write_text("two")
    git(folder, "commit", "-q", "-am", "two")
    return folder


@pytest.mark.parametrize("prefix", ["", "file://"])
def test_the_default_branch_is_taken(repository: Path, tmp_path: Path, prefix: str) -> None:
    """Without a reference the default branch is taken, from a folder or a file address."""
    revision, target = GitSource(prefix + str(repository), tmp_path / "sources").fetch()
    assert (target / "a.txt").read_text() == "two"
    assert revision.branch == "trunk"
    assert revision.commit == git(repository, "rev-parse", "HEAD")
    assert revision.message == "two"


@pytest.mark.parametrize("kind", ["tag", "branch", "commit", "short", "full-name"])
def test_a_reference_is_taken(repository: Path, tmp_path: Path, kind: str) -> None:
    """Tags, branches, full and short commits name what is taken."""
    first = git(repository, "rev-parse", "v1")
    wanted = {"tag": "v1", "branch": "feature/x", "commit": first, "short": first[:8], "full-name": "refs/tags/v1"}[kind]
    revision, target = GitSource(str(repository), tmp_path / "sources").fetch(wanted)
    assert (target / "a.txt").read_text() == "one"
    assert revision.commit == first
    assert revision.branch == ("feature/x" if kind == "branch" else "")


def test_a_new_commit_is_fetched(repository: Path, tmp_path: Path) -> None:
    """The mirror is brought up to date at each fetch."""
    source = GitSource(str(repository), tmp_path / "sources")
    before, _ = source.fetch("trunk")
    (repository / "a.txt").write_text("three")
    git(repository, "commit", "-q", "-am", "three")
    after, target = source.fetch("trunk")
    assert before.digest != after.digest
    assert (target / "a.txt").read_text() == "three"


@pytest.mark.parametrize(
    "reference",
    [
        "--upload-pack=touch X",
        "-x",
        "a..b",
        "a b",
        "a\nb",
        "$(touch X)",
        "a;b",
        "@{-1}",
        "a~1",
        "a^",
        "a:b",
        "x.lock",
        "",
        "/",
        "a//b",
        "a\\b",
    ],
)
def test_hostile_references_are_refused(reference: str) -> None:
    """Nothing that git or a shell could read as an option, a range or a command is a reference."""
    with pytest.raises(SourceRefused):
        check_reference(reference)


@pytest.mark.parametrize(
    "address",
    [
        "ext::sh -c touch% /tmp/X", "--upload-pack=x", "-oProxyCommand=x", "http://example.test/a", "git://example.test/a", "ftp://example.test/a",
        "ssh://-oProxyCommand=x/a", "https:///x", "https://a b/c", "fd::17", "transport::x", "", "name-only", "https://a\n/b",
    ],
)  # fmt: skip
def test_hostile_addresses_are_refused(address: str) -> None:
    """Only https, ssh, file, scp-like addresses and folders are fetched from."""
    with pytest.raises(SourceRefused):
        check_address(address)


@pytest.mark.parametrize("address", ["https://h.test/a.git", "ssh://git@h.test:22/a", "git@h.test:a/b.git", "file:///srv/a", "/srv/a"])
def test_usual_addresses_pass(address: str) -> None:
    """The addresses that hosts print are accepted."""
    assert check_address(address) == address


def test_passwords_are_not_kept(tmp_path: Path) -> None:
    """A password in an address is in no revision, error or file."""
    assert without_credentials("https://u:pw@h.test:8443/a?t=1#x") == "https://h.test:8443/a"
    assert without_credentials("ssh://git@h.test/a") == "ssh://git@h.test/a"
    address = "https://u:hunter2@127.0.0.1:9/a.git"
    with pytest.raises(SourceUnavailable) as caught:
        GitSource(address, tmp_path / "sources").fetch("main")
    assert "hunter2" not in str(caught.value)
    for file in (tmp_path / "sources").rglob("*"):
        assert not file.is_file() or b"hunter2" not in file.read_bytes()


def test_a_missing_reference_is_unavailable(repository: Path, tmp_path: Path) -> None:
    """A branch that does not exist is told by name."""
    with pytest.raises(SourceUnavailable) as caught:
        GitSource(str(repository), tmp_path / "sources").fetch("nowhere")
    assert "nowhere" in caught.value.why
