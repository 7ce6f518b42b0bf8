"""The first and last code of Homeport inside an instance: sets up the process, then becomes the application by execve.

It runs as `python -I -S -E launcher.pyc`, imports nothing of Homeport and nothing slow, so that it is done in about 15 ms and
leaves no memory behind. What to do comes by an inherited file descriptor, so that no value is ever in an argument list.

Descriptors: 0 is the instance's standard input, 3 holds the marshalled order, 4 takes `stage<TAB>errno<TAB>subject` when a stage
fails, 5 is the locked lock file of the instance. 4 and 5 close with a successful execve: the starter reads the end of 4 as success,
and whoever waits for the lock finds `process.json` written. So a start can be interrupted at any point without losing sight of a process.
"""

# ruff: noqa: PTH102, PTH112, PTH115, PTH120, PTH208, PTH211, S606 (pathlib alone would cost 5 ms a start)

from __future__ import annotations

import os
import sys

ORDER, STATUS, LOCK = 3, 4, 5

# <linux/mount.h>, <linux/sched.h>, <linux/prctl.h>
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_NOATIME, MS_NODIRATIME = 1, 2, 4, 8, 32, 1024, 2048
MS_BIND, MS_REC, MS_SLAVE, MS_RELATIME = 4096, 16384, 1 << 19, 1 << 21
MNT_DETACH = 2
CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000
PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 24, 38


class _Failed(Exception):
    def __init__(self, stage: str, error: OSError, subject: str = "") -> None:
        super().__init__(stage)
        self.line = f"{stage}\t{error.errno or 0}\t{subject or error.filename or ''}"


class _Stage:
    """Names what is being done, so that the reason of a failure can be told."""

    def __init__(self, name: str, subject: str = "") -> None:
        self.name, self.subject = name, subject

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            raise _Failed(self.name, error, self.subject) from error


class _Kernel:
    """The few calls that the standard library of Python 3.11 lacks."""

    def __init__(self) -> None:
        import ctypes

        self._ctypes = ctypes
        self._libc = ctypes.CDLL(None, use_errno=True)

    def _check(self, result: int, subject: str = "") -> None:
        if result != 0:
            number = self._ctypes.get_errno()
            raise OSError(number, os.strerror(number), subject)

    def unshare(self, flags: int) -> None:
        self._check(self._libc.unshare(flags))

    def mount(self, source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
        long = self._ctypes.c_ulong(flags)
        self._check(
            self._libc.mount(source.encode(), os.fsencode(target), kind.encode() if kind else None, long, data.encode() if data else None),
            target,
        )

    def read_only(self, target: str) -> None:
        """Make one bind mount read-only, keeping the flags an unprivileged namespace may not drop."""
        flags = os.statvfs(target).f_flag  # ST_* equal MS_* for the low bits; ST_RELATIME is 4096
        kept = flags & (MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_NOATIME | MS_NODIRATIME)
        self.mount("none", target, None, MS_REMOUNT | MS_BIND | MS_RDONLY | kept | (MS_RELATIME if flags & 4096 else 0))

    def enter_root(self, root: str) -> None:
        """Make `root` the root folder and let go of the old one."""
        os.chdir(root)
        if self._libc.pivot_root(b".", b".") == 0:
            self._check(self._libc.umount2(b".", MNT_DETACH))
        else:
            os.chroot(".")  # the root is an initramfs, which cannot be exchanged
        os.chdir("/")

    def join(self, process: int, flags: int) -> None:
        """Enter the namespaces of the process behind this pidfd (setns(2), Linux 5.8)."""
        self._check(self._libc.setns(process, flags))

    def prctl(self, option: int, value: int) -> int:
        return int(self._libc.prctl(option, self._ctypes.c_ulong(value), 0, 0, 0))


def _ensure_folder(path: str) -> None:
    if not os.path.isdir(path):
        _ensure_folder(os.path.dirname(path))
        os.mkdir(path, 0o755)


def _spread(kernel: _Kernel, source: str, target: str, skip: tuple[str, ...]) -> None:
    """Fill the empty folder `target` with a view of each entry of `source`: new mount points can then be made beside them."""
    for entry in sorted(os.scandir(source), key=lambda found: found.name):
        if entry.name in skip:
            continue
        place = f"{target}/{entry.name}"
        try:
            if entry.is_symlink():
                os.symlink(os.readlink(entry.path), place)
            elif entry.is_dir():
                os.mkdir(place)
                kernel.mount(entry.path, place, None, MS_BIND | MS_REC)
            else:
                os.close(os.open(place, os.O_CREAT | os.O_WRONLY, 0o644))
                kernel.mount(entry.path, place, None, MS_BIND)
        except PermissionError:
            continue  # what may not be looked into needs no view


def _bind(kernel: _Kernel, source: str, target: str, read_only: bool) -> None:
    if os.path.isdir(source):
        _ensure_folder(target)
    elif not os.path.lexists(target):
        _ensure_folder(os.path.dirname(target))
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
    kernel.mount(source, target, None, MS_BIND | MS_REC)
    if read_only:
        kernel.read_only(target)


def build_root(kernel: _Kernel, root: str, operations: tuple[tuple[str, ...], ...]) -> None:
    """Compose the file system the instance sees at `root`; the last operation of a path wins."""
    for kind, source, target, option in operations:
        place = root + target.rstrip("/")
        with _Stage("mount", target):
            if kind == "spread":
                _ensure_folder(place)
                kernel.mount("homeport", place, "tmpfs", MS_NOSUID | MS_NODEV, "mode=755,size=4m")
                _spread(kernel, source, place, tuple(option.split("/")))
            elif kind == "bind":
                _bind(kernel, source, place, option == "ro")
            elif kind == "tmpfs":
                _ensure_folder(place)
                kernel.mount("homeport", place, "tmpfs", MS_NOSUID | MS_NODEV, option)
            elif kind == "proc":
                _ensure_folder(place)
                try:
                    kernel.mount("proc", place, "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, option)
                except OSError:
                    kernel.mount(source, place, None, MS_BIND | MS_REC)
            elif kind == "seal":
                kernel.read_only(place)


def enter_namespaces(kernel: _Kernel, *, privileged: bool) -> None:
    """A mount namespace of our own; as an ordinary user inside a user namespace that maps only ourselves."""
    if privileged:
        kernel.unshare(CLONE_NEWNS)
    else:
        user, group = os.geteuid(), os.getegid()
        kernel.unshare(CLONE_NEWUSER | CLONE_NEWNS)
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"{user} {user} 1")
        _write("/proc/self/gid_map", f"{group} {group} 1")
    kernel.mount("none", "/", None, MS_REC | MS_SLAVE)


def _join(kernel: _Kernel, pid: int) -> None:
    """Enter the file system view of a running instance."""
    process = os.pidfd_open(pid)
    try:
        kernel.join(process, CLONE_NEWNS if os.geteuid() == 0 else CLONE_NEWUSER | CLONE_NEWNS)
    finally:
        os.close(process)


def _write(path: str, text: str) -> None:
    file = os.open(path, os.O_WRONLY)
    try:
        os.write(file, text.encode())
    finally:
        os.close(file)


def _limit(order: dict[str, object]) -> None:
    import resource

    for name, wanted in order["limits"].items():  # type: ignore[attr-defined]
        number = getattr(resource, name)
        _, hard = resource.getrlimit(number)
        value = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(number, (value, hard if name == "RLIMIT_NOFILE" else value))
    try:
        _write("/proc/self/oom_score_adj", str(order["oom_score"]))
    except OSError:
        pass  # lowering it needs privileges; it is only a preference


def _close_others() -> None:
    for name in os.listdir("/proc/self/fd"):
        if int(name) > LOCK:
            try:
                os.close(int(name))
            except OSError:
                pass  # the listing's own descriptor


def _open_logs(folder: str, user: int | None) -> None:
    for number, name in ((1, "stdout.log"), (2, "stderr.log")):
        path = f"{folder}/{name}"
        with _Stage("log", path):
            file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o640)
            if user is not None:
                os.fchown(file, user, user)
            os.dup2(file, number)
            os.close(file)


def _record(path: str, boot_id: str) -> None:
    """Leave a trace of this process before it becomes the application."""
    with open("/proc/self/stat", encoding="utf-8", errors="replace") as file:  # noqa: PTH123 (pathlib costs 5 ms to import)
        started = file.read().rpartition(")")[2].split()[19]
    inode = os.stat("/proc/self/ns/mnt").st_ino  # noqa: PTH116
    text = f'{{"pid": {os.getpid()}, "start_time": {started}, "boot_id": "{boot_id}", "namespace": {inode}}}\n'
    file_number = os.open(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.write(file_number, text.encode())
    os.close(file_number)
    os.rename(path + ".new", path)  # noqa: PTH104


def _become(order: dict[str, object], user: int | None, kernel: _Kernel) -> None:
    if os.geteuid() == 0:
        for capability in range(64):
            if kernel.prctl(PR_CAPBSET_DROP, capability) != 0:
                break
    kernel.prctl(PR_SET_NO_NEW_PRIVS, 1)
    if user is not None:
        with _Stage("user", str(user)):
            os.setgroups([])
            os.setresgid(user, user, user)
            os.setresuid(user, user, user)
    with _Stage("folder", str(order["cwd"])):
        os.chdir(str(order["cwd"]))


def _execute(argv: list[str], env: dict[str, str], search: list[str]) -> None:
    """execvpe over the given folders; a script without `#!` is run by /bin/sh, as a shell would."""
    import _signal  # type: ignore[import-not-found]  # built in: by now this account may not read the interpreter's own files

    for name in (_signal.SIGPIPE, _signal.SIGXFSZ):
        _signal.signal(name, _signal.SIG_DFL)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
    program = argv[0]
    candidates = [program] if "/" in program else [f"{folder}/{program}" for folder in search]
    refused: OSError = FileNotFoundError(2, "No such file or directory", program)
    for candidate in candidates:
        try:
            os.execve(candidate, argv, env)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            if error.errno == 8:
                os.execve("/bin/sh", ["/bin/sh", candidate, *argv[1:]], env)
            refused = error
    raise _Failed("program", refused, program)


def _launch(order: dict[str, object]) -> None:
    user = order["user"] if isinstance(order["user"], int) else None
    logs = str(order["log"])
    if os.getsid(0) != os.getpid():
        os.setsid()
    os.umask(0o027)
    if logs:
        _open_logs(logs, user)
    for file in order["cgroups"]:  # type: ignore[attr-defined]
        with _Stage("cgroup", file):
            _write(file, "0")
    kernel = _Kernel()
    view = order["view"]
    with _Stage("namespace"):
        if view:
            enter_namespaces(kernel, privileged=os.geteuid() == 0)
        elif order["join"]:
            _join(kernel, int(str(order["join"])))
    with _Stage("limit"):
        _limit(order)
    if order["record"]:
        with _Stage("record"):
            _record(str(order["record"]), str(order["boot_id"]))
    if view:
        os.umask(0o022)
        build_root(kernel, str(order["root"]), view)  # type: ignore[arg-type]
        with _Stage("root"):
            kernel.enter_root(str(order["root"]))
        os.umask(0o027)
    _become(order, user, kernel)
    if order["argv"]:
        _execute(order["argv"], order["env"], order["search"])  # type: ignore[arg-type]


def main() -> int:
    """Read the order, obey it, and say on descriptor 4 what failed."""
    import marshal

    for number in (STATUS, LOCK):
        os.set_inheritable(number, False)
    _close_others()
    try:
        with os.fdopen(ORDER, "rb") as file:
            order = marshal.load(file)  # noqa: S302 (written by the process that started us)
        _launch(order)
    except _Failed as failed:
        os.write(STATUS, failed.line.encode("utf-8", "replace")[:4000])
        return 1
    except Exception as error:  # noqa: BLE001 (there is nobody else to tell)
        os.write(STATUS, f"launcher\t0\t{type(error).__name__}: {error}".encode("utf-8", "replace")[:4000])
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
