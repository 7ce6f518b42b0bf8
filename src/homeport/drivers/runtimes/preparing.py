"""What an instance needs before it can be started: environment, folders, control group, limits, view; and what refusals say."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from homeport.drivers.cgroups import Cgroups, Group, Limits
from homeport.drivers.runtimes import commands, sandbox
from homeport.drivers.runtimes.base import Capabilities, Placement, StartRefused
from homeport.drivers.runtimes.launching import Failure
from homeport.drivers.runtimes.records import Folder
from homeport.drivers.runtimes.work import NO_ROOM, disk_full

PIDS = 2048
"""Processes and threads of an instance, when its resources name no number."""
OPEN_FILES = 65_536
OOM_SCORE = 300
"""`oom_score_adj`: instances are ended before the control plane when the machine runs out of memory."""


def environment(placement: Placement, folder: Folder, *, isolated: bool) -> dict[str, str]:
    env = {
        "PATH": ":".join((*placement.artifact.path, *commands.STANDARD_PATH)),
        "HOME": str(folder.work),
        **({} if isolated else {"TMPDIR": str(folder.tmp)}),
        **placement.artifact.env,
        **placement.env,
    }
    for name, value in env.items():
        if not name or "=" in name or "\0" in name or "\0" in value:
            raise refused(placement, f"The variable {name[:80]!r} has a name or value that no process can be given.")
    return env if isolated else sandbox.point_at_folders(env, placement)


def prepare_folders(placement: Placement, folder: Folder, user: int | None) -> None:
    for path, mode in ((folder.tmp, 0o700), (folder.run / "root", 0o700)):
        path.mkdir(mode=mode, exist_ok=True)
    if user is not None:
        os.chown(folder.tmp, user, user)
    folder.tmp.chmod(0o1777)
    for mount in placement.mounts:
        if mount.disk.kind == "bind" and mount.folder.exists():
            continue
        target = mount.folder / mount.disk.subpath
        if not target.exists():
            target.mkdir(mode=0o700, parents=True)
        if user is not None and target.stat().st_uid == 0 and target.is_dir():
            os.chown(target, user, user)
    try:
        existing = Path("/etc/hosts").read_text(errors="replace")
    except OSError:
        existing = ""
    (folder.run / "hosts").write_text(sandbox.hosts_file(placement, existing))
    (folder.run / "hosts").chmod(0o644)


def create_group(placement: Placement, group: Group) -> None:
    resources = placement.resources
    try:
        group.create(Limits(memory=resources.memory, cpu=resources.cpu, pids=resources.pids or PIDS))
    except OSError as error:
        raise refused(placement, f"Its control group could not be made: {error.strerror}: {error.filename}.") from error


def limits(placement: Placement, *, pids: bool) -> dict[str, int]:
    wanted = {"RLIMIT_NOFILE": OPEN_FILES, "RLIMIT_CORE": 0}
    if pids:
        wanted["RLIMIT_NPROC"] = placement.resources.pids or PIDS
    return wanted


def view(home: Path, placement: Placement, folder: Folder, user: int | None) -> tuple[sandbox.Operation, ...]:
    artifact = placement.artifact
    needed = {Path(artifact.folder), home / "toolchains", *sandbox.toolchains(artifact.path)}
    needed |= {Path(path) for path in artifact.path}
    needed |= {real for path in artifact.linked if not (real := (Path(artifact.folder) / path).resolve()).is_relative_to(artifact.folder)}
    return sandbox.view(placement, home=home, instance=folder.path, needed=sorted(needed), user=user)


def refused(subject: Placement | str, why: str) -> StartRefused:
    name = subject if isinstance(subject, str) else subject.service
    return StartRefused(
        what=f"{name} was not started; what ran before still runs.",
        why=why,
        fix="Correct what the reason names and deploy again.",
    )


def refused_by_system(placement: Placement, error: OSError) -> StartRefused:
    """What a failed call means for the start."""
    if isinstance(error, TimeoutError):
        return refused(placement, f"{error}.")
    cause = f"{error.filename or 'the instance folder'}: {error.strerror}"
    return disk_full(placement, cause) if error.errno in NO_ROOM else refused(placement, f"{cause}.")


_SENTENCES = {
    ("program", errno.ENOENT): (
        "The program {subject!r} is not in the artifact nor on PATH.",
        "Install it in the build, or correct the start command.",
    ),
    ("program", errno.EACCES): ("{subject!r} is not executable.", "Run `chmod +x` on it and commit, or start it through its interpreter."),
    ("program", errno.E2BIG): ("The environment and arguments are larger than the kernel takes (about 2 MB).", "Make variables smaller."),
    ("folder", errno.ENOENT): ("Its folder {subject} is not part of the built source.", "Correct the root folder of the service."),
}


def launch_refused(subject: Placement | str, failure: Failure) -> StartRefused:
    """What a report of the launcher means."""
    name = subject if isinstance(subject, str) else subject.service
    if failure.number in NO_ROOM and isinstance(subject, Placement):
        return disk_full(subject, f"{failure.subject or 'the instance folder'}: {os.strerror(failure.number)}")
    why, fix = _SENTENCES.get((failure.stage, failure.number), ("", ""))
    return StartRefused(
        what=f"{name} was not started; what ran before still runs.",
        why=why.format(subject=failure.subject) if why else f"The step {failure} failed.",
        fix=fix or "Run `homeport doctor`, which checks what this machine allows, and deploy again.",
    )


def capabilities(groups: Cgroups, namespaces: sandbox.Isolation) -> Capabilities:
    """What the process runtime can do with these, and why not the rest."""
    root = os.geteuid() == 0
    reasons: dict[str, str] = {"images": "images need a container runtime"}
    if not root:
        reasons["isolates_users"] = "only root can give every environment an account of its own"
    for name, controller in (("limits_memory", "memory"), ("limits_cpu", "cpu"), ("limits_pids", "pids")):
        if controller not in groups.bases:
            reasons[name] = groups.reasons.get(controller, f"there is no {controller} control group here")
    pids = "pids" in groups.bases or (not root and namespaces.namespaces)
    if pids:
        reasons.pop("limits_pids", None)
    if not namespaces.namespaces:
        reasons["mounts"] = reasons["names"] = namespaces.reason
    return Capabilities(
        isolates_users=root,
        limits_memory="memory" in groups.bases,
        limits_cpu="cpu" in groups.bases,
        limits_pids=pids,
        mounts=namespaces.namespaces,
        names=namespaces.namespaces,
        reasons=reasons,
    )
