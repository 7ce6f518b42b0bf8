"""Talking to the control plane: plain HTTP over loopback, and starting it when it does not run."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from homeport.cli.errors import CliError
from homeport.home import home_of

if TYPE_CHECKING:
    import http.client
    import subprocess

START_WITHIN = 30.0
"""Seconds a control plane may take until it answers."""

HEALTH_WITHIN = 5.0
"""Seconds that one question whether it answers may take."""

PATIENCE = 30.0
"""Seconds a command waits for a control plane that went away in the middle."""


def home() -> Path:
    """The home this command is about."""
    return home_of(os.environ)


class Client:
    """One control plane."""

    def __init__(self, *, start: bool = False, edge_port: int | None = None) -> None:
        """`start`: run the control plane when it does not run. Raises CliError."""
        self.home = home()
        self.start_allowed, self.edge_port = start, edge_port
        self._child: subprocess.Popen[bytes] | None = None
        if not self._answers() and not (start and self._start()):
            raise away()

    # --- requests ---------------------------------------------------------------------------------------------

    def get(self, path: str, **query: Any) -> Any:
        return self.call("GET", path + _query(query))

    def post(self, path: str, body: dict[str, Any] | None = None) -> Any:
        return self.call("POST", path, body or {})

    def delete(self, path: str, **query: Any) -> Any:
        return self.call("DELETE", path + _query(query))

    def call(self, method: str, path: str, body: dict[str, Any] | None = None, timeout: float = 120) -> Any:
        """One request. Raises CliError with what the API said."""
        connection, answer = self._send(method, path, body, timeout)
        try:
            data = answer.read()
        finally:
            connection.close()
        try:
            found = json.loads(data) if data else {}
        except ValueError:
            found = {"detail": data[:200].decode(errors="replace")}
        if answer.status >= 400:
            raise CliError(found if "code" in found else _unread(answer.status, found))
        return found

    def download(self, path: str, target: Path) -> int:
        """Write an answer to a file, readable by its owner alone; returns its lines. Raises CliError."""
        connection, answer = self._send("GET", path, None, timeout=600)
        try:
            if answer.status >= 400:
                raise CliError(json.loads(answer.read() or b"{}"))
            lines = 0
            with open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:  # noqa: PTH123
                for line in answer:
                    file.write(line)
                    lines += 1
            return lines
        finally:
            connection.close()

    def stream(self, method: str, path: str, body: dict[str, Any] | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
        """Server-sent events as `(id, data)`. Ends with the stream; raises OSError when the control plane goes away."""
        import http.client

        connection, answer = self._send(method, path, body, timeout=60)
        try:
            if answer.status >= 400:
                raise CliError(json.loads(answer.read() or b"{}"))
            id = 0
            while line := answer.readline():
                if line.startswith(b"id:"):
                    id = int(line[3:])
                elif line.startswith(b"data:"):
                    yield id, json.loads(line[5:])
        except http.client.HTTPException as error:
            raise ConnectionError("the stream broke off") from error
        finally:
            connection.close()

    def follow(self, deploy: str) -> Iterator[dict[str, Any]]:
        """Progress of a deploy until it ends, over restarts of the control plane."""
        offset, lost = 0, 0.0
        while True:
            try:
                for end, line in self.stream("GET", f"/api/v1/deploys/{deploy}/events?offset={offset}"):
                    offset, lost = end or offset, 0.0
                    yield line
                    if line["kind"] in ("done", "failed"):
                        return
                if self.get(f"/api/v1/deploys/{deploy}")["status"] not in ("queued", "running"):
                    return
            except OSError as error:
                lost = lost or time.monotonic()
                if time.monotonic() - lost > PATIENCE:
                    raise away() from error
                yield {"kind": "note", "text": "The control plane is away; waiting for it."}
                self._wait_for_it()

    def _wait_for_it(self) -> None:
        until = time.monotonic() + PATIENCE
        began = time.monotonic()
        while time.monotonic() < until:
            if self._alive():
                return
            if self.start_allowed and time.monotonic() - began > 2 and not self._runs() and self._start():
                return
            time.sleep(0.1)
        raise away()

    def _send(
        self, method: str, path: str, body: dict[str, Any] | None, timeout: float
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        import http.client

        host, port = self._address()
        connection = http.client.HTTPConnection(host, port, timeout=timeout)
        headers = {"Authorization": f"Bearer {self._key()}", "Content-Type": "application/json"}
        connection.connect()
        try:
            connection.request(method, path, json.dumps(body) if body is not None else None, headers)
            return connection, connection.getresponse()
        except (ConnectionError, TimeoutError) as error:
            if method == "GET":
                raise
            raise cut_off() from error

    def _key(self) -> str:
        given = os.environ.get("HOMEPORT_API_KEY")
        if given:
            return given
        try:
            return (self.home / "cli.key").read_text().strip()
        except OSError as error:
            why = "The key of this machine's command line is not readable by this account."
            fix = "Run it as the account that started Homeport, or set HOMEPORT_API_KEY."
            raise CliError({"code": "unauthorised", "what": "Nothing was done.", "why": why, "fix": fix}) from error

    # --- the control plane itself -----------------------------------------------------------------------------

    def facts(self) -> dict[str, Any]:
        """What the running control plane wrote down about itself; {} when none did."""
        try:
            found: dict[str, Any] = json.loads((self.home / "serve.json").read_bytes())
        except (OSError, ValueError):
            return {}
        return found

    def wait_until_gone(self) -> None:
        """Wait for the control plane to end, after it was told to."""
        pid, until = int(self.facts().get("pid", 0)), time.monotonic() + START_WITHIN
        while pid and Path(f"/proc/{pid}").exists() and time.monotonic() < until:
            if self._child is not None and self._child.poll() is not None:  # our own child stays in /proc until it is asked for
                return
            time.sleep(0.02)

    def _address(self) -> tuple[str, int]:
        api = str(self.facts().get("api", "")).removeprefix("http://")
        host, _, port = api.rpartition(":")
        return (host or "127.0.0.1"), int(port or os.environ.get("HOMEPORT_API_PORT") or 8090)

    def _alive(self) -> bool:
        facts = self.facts()
        if not facts:
            return False
        import http.client

        host, port = self._address()
        connection = http.client.HTTPConnection(host, port, timeout=HEALTH_WITHIN)
        try:
            connection.request("GET", "/api/health")
            return bool(json.loads(connection.getresponse().read()).get("pid") == facts.get("pid"))
        except (OSError, ValueError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _answers(self) -> bool:
        """Whether it answers; one that is busy, or just starting or ending, is waited for while its process is there."""
        until = time.monotonic() + START_WITHIN
        while not self._alive():
            if time.monotonic() > until or not self._runs():
                return False
            time.sleep(0.05)
        return True

    def _runs(self) -> bool:
        """Whether the process that wrote down that it serves is still there; another process may have got its number since."""
        try:
            return b"homeport" in Path(f"/proc/{int(self.facts().get('pid', 0))}/cmdline").read_bytes()
        except (OSError, ValueError):
            return False

    def _start(self) -> bool:
        """Run a control plane in the background; True once it answers."""
        import subprocess

        self.home.mkdir(parents=True, exist_ok=True)
        env = dict(os.environ)
        if self.edge_port:
            env["HOMEPORT_EDGE_PORT"] = str(self.edge_port)
        # What a former one wrote down stays until this one writes its own: another command may have started one just now.
        # Its first lines hold the token of the first start, so nobody else may read it.
        with open(os.open(self.home / "serve.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as log:  # noqa: PTH123
            os.fchmod(log.fileno(), 0o600)
            place = log.tell()
            argv = [sys.executable, "-m", "homeport", "serve"]
            process = self._child = subprocess.Popen(
                argv, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd=self.home
            )
        until = time.monotonic() + START_WITHIN
        while time.monotonic() < until:
            if self._alive():
                return True
            if process.poll() is not None and not self._other_serves(place):
                raise CliError(self._why_not())
            time.sleep(0.03)
        return False

    def _other_serves(self, place: int) -> bool:
        """Whether what was said since a place of the log is that another control plane holds the home: it is waited for."""
        with (self.home / "serve.log").open("rb") as log:
            log.seek(place)
            return b"[already-serving]" in log.read(1 << 20)

    def _why_not(self) -> dict[str, Any]:
        lines = (self.home / "serve.log").read_text(errors="replace").splitlines()[-12:]
        what = "The control plane did not start."
        return {"code": "control-plane-away", "what": what, "why": "It ended at once.", "fix": "Read the lines below.", "tail": lines}


def away() -> CliError:
    return CliError(
        {
            "code": "control-plane-away",
            "what": "Nothing was done; applications that run keep running.",
            "why": f"No control plane answers for {home()}.",
            "fix": "Start it with `homeport serve`, or deploy with `homeport up`, which starts it.",
        }
    )


def cut_off() -> CliError:
    """The control plane went away after it was asked for something that changes things: nobody here knows how far it came."""
    return CliError(
        {
            "code": "control-plane-away",
            "what": "It is not known how far this came; applications that run keep running.",
            "why": f"The control plane of {home()} was asked, and went away or gave no answer in time.",
            "fix": "What it had begun is finished or taken back when it starts again: run `homeport serve`, then see `homeport events`.",
        }
    )


def segment(text: str) -> str:
    """Text as one segment of a path."""
    return quote(text, safe="")


def _query(values: dict[str, Any]) -> str:
    given = {k: str(v).lower() if isinstance(v, bool) else v for k, v in values.items() if v not in (None, "", False)}
    return "?" + urlencode(given) if given else ""


def _unread(status: int, found: Any) -> dict[str, Any]:
    detail = found.get("detail") if isinstance(found, dict) else None
    if isinstance(detail, list):
        detail = "; ".join(f"{'.'.join(str(p) for p in d.get('loc', [])[1:])}: {d.get('msg', '')}" for d in detail)
    if status >= 500:
        why, fix = f"The control plane met a fault of its own ({status}).", "Read the end of `serve.log` in the home, and report it."
        return {"code": "internal-error", "what": "The request was not answered; what serves still serves.", "why": why, "fix": fix}
    return {"code": "usage", "what": "Nothing was done.", "why": f"The control plane refused the request ({status}): {detail}", "fix": ""}
