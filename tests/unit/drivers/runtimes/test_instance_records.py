"""The lock of an instance's folder while others remove it."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path

from homeport.drivers.files import remove_tree
from homeport.drivers.runtimes.records import Folder


def test_the_lock_of_a_folder_that_is_being_removed(tmp_path: Path) -> None:
    """Whoever takes it meanwhile makes the folder anew or waits; it never fails because another has just forgotten the instance."""
    path = tmp_path / "instances" / "i"
    failed: list[BaseException] = []
    over = threading.Event()

    def forget() -> None:
        while not over.is_set():
            with contextlib.suppress(OSError):  # the holders fill the folder again while it is emptied
                remove_tree(path / "run")

    def hold() -> None:
        try:
            for _ in range(2000):
                with Folder(path).locked():
                    pass
        except OSError as error:
            failed.append(error)

    remover, holders = threading.Thread(target=forget), [threading.Thread(target=hold) for _ in range(2)]
    for thread in (remover, *holders):
        thread.start()
    for thread in holders:
        thread.join()
    over.set()
    remover.join()
    assert failed == []
