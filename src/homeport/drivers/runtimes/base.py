"""The Protocol of a runtime, and the frozen values it speaks in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal, Protocol

from pydantic import Field

from homeport.model.base import Duration, Frozen
from homeport.model.errors import HomeportError
from homeport.model.release import Artifact
from homeport.model.service import Disk, Resources


class Capabilities(Frozen):
    """What a runtime can do; read by the planner before anything starts."""

    images: bool = False
    isolates_users: bool = False
    """Instances of different environments run as different accounts."""
    limits_memory: bool = False
    limits_cpu: bool = False
    limits_pids: bool = False
    mounts: bool = False
    """Disks appear at their mount path; without it the environment's variables are pointed at the real folder."""
    names: bool = False
    """Services reach each other by bare name."""
    reasons: dict[str, str] = {}
    """Per missing capability, one sentence why."""


class Mount(Frozen):
    """A disk and the host folder that holds it."""

    disk: Disk
    folder: Path


class Placement(Frozen):
    """One instance, fully decided. The same placement again gives the same instance."""

    id: str
    """`<project>-<environment>-<service>-<release>-<ordinal>[-<suffix>]`; unique on the machine."""
    project: str
    environment: str
    service: str
    release: str
    ordinal: int = 0
    generation: int = 0
    """A driver refuses a placement older than one it has seen for the same id."""
    artifact: Artifact
    command: tuple[str, ...] | str
    env: dict[str, str] = Field(default={}, repr=False)
    """The complete environment; nothing is inherited. Only where it lacks them, PATH, HOME and the artifact's own
    toolchain variables are filled in from the artifact."""
    host: str = ""
    """Loopback address the instance listens on; empty for those that do not."""
    port: int = 0
    resources: Resources = Resources()
    mounts: tuple[Mount, ...] = ()
    hosts: dict[str, str] = {}
    """Names the instance may resolve, with their addresses (private services, add-ons)."""
    user: int | None = None
    """uid and gid when Homeport is root."""
    grace: Duration = timedelta(seconds=30)
    stop_signal: str = "SIGTERM"
    stdin: bool = False
    """Whether standard input is attached (one-off commands); see `Interactive`."""
    once: bool = False
    """Whether a second start after it has ended returns the old handle instead of running it again (release commands)."""


class Handle(Frozen):
    """A started instance, identified so that it can be found again after a restart of the control plane."""

    id: str
    pid: int
    start_time: int
    """Clock ticks since boot (`/proc/<pid>/stat` field 22): tells a recycled pid apart."""
    boot_id: str = ""
    started_at: datetime
    host: str = ""
    port: int = 0


class Exit(Frozen):
    """How an instance ended."""

    code: int | None = None
    """None when nobody was there to see it (the control plane was down) or a signal ended it."""
    signal: int | None = None
    out_of_memory: bool = False
    at: datetime

    def sentence(self) -> str:
        """One sentence of cause for the user."""
        if self.out_of_memory:
            return "it was killed because it used more memory than it may"
        if self.signal is not None:
            return f"it was ended by signal {self.signal}"
        return "it ended while nobody watched" if self.code is None else f"it ended with exit code {self.code}"


class Observation(Frozen):
    """The truth about one instance."""

    handle: Handle
    state: Literal["running", "exited"]
    exit: Exit | None = None
    memory: int = 0
    """Resident bytes of all its processes."""
    cpu_seconds: float = 0
    processes: int = 0


class LogLine(Frozen):
    """One line an instance wrote."""

    instance: str
    stream: Literal["stdout", "stderr"]
    at: datetime | None = None
    text: str


class Output(Frozen):
    """Bytes an instance wrote, in the pieces in which they were found."""

    stream: Literal["stdout", "stderr"]
    data: bytes


class StartRefused(HomeportError):
    """An instance could not be started; nothing of it is left running."""

    code = "start-refused"


class StalePlacement(StartRefused):
    """A newer plan has already placed this instance."""

    code = "stale-placement"


class InstanceDiskFull(StartRefused):
    """The disk has no room for the instance's work folder; what was copied is removed."""

    code = "instance-disk-full"


class InstanceRunning(HomeportError):
    """Files of an instance cannot be removed while it runs."""

    code = "instance-running"


class Runtime(Protocol):
    """Runs instances. Every method may be called twice: after a crash, it will be."""

    @property
    def capabilities(self) -> Capabilities: ...

    def start(self, placement: Placement) -> Handle:
        """Start the instance, or find it running; one that has ended is started again (unless `once`).

        Raises StartRefused, StalePlacement, InstanceDiskFull.
        """

    def observe(self) -> Sequence[Observation]:
        """Every instance this home ever started that is not yet forgotten, orphans included."""

    def stop(self, id: str, *, grace: timedelta | None = None) -> Exit | None:
        """Stop signal, `grace`, SIGKILL to the whole group. Already gone is success."""

    def forget(self, id: str) -> None:
        """Remove the instance's files, logs kept. Unknown is success. Raises InstanceRunning."""

    def wait(self, id: str, timeout: timedelta) -> Exit | None:
        """Wait for the end; None when it still runs after the timeout, or was never started."""

    def on_exit(self, listener: Callable[[str, Exit], None]) -> None:
        """Call `listener(id, exit)` soon after any instance ends by itself or is stopped.

        It is called on the runtime's watcher thread: it must return quickly and must not call `stop` or `wait`.
        """

    def logs(self, id: str, *, tail: int = 100, follow: bool = False, stopped: Callable[[], bool] = lambda: False) -> Iterator[LogLine]:
        """The last `tail` lines, then new ones while `follow`."""

    def rotate(self) -> None:
        """Bound the logs. Called every second or so by the control plane."""


class Interactive(Protocol):
    """Runtimes that can talk with an instance placed with `stdin`, as `homeport run` does."""

    def feed(self, id: str, data: bytes) -> bool:
        """Write all of `data` to its standard input; False when nobody reads it any more."""

    def close_input(self, id: str) -> None:
        """End of input. Already closed is success."""

    def output(self, id: str, *, stopped: Callable[[], bool] = lambda: False) -> Iterator[Output]:
        """Everything it writes from its last start until it ends, as it comes and also without line ends."""


class Executed(Frozen):
    """How a command inside an instance ended."""

    code: int | None
    """None when it was ended because it took too long."""
    output: str
    """What it wrote to both streams, cut at 64 KiB."""


class CanExecute(Protocol):
    """Runtimes that can run a further command inside a running instance, with its environment, account and view of the files."""

    def execute(self, id: str, command: tuple[str, ...] | str, *, timeout: timedelta) -> Executed:
        """Run it to its end, or for so long. Raises StartRefused when the instance does not run or the command cannot start."""
