"""One object in a process of its own: a crash, a hang or a memory hog costs that process only.

The child is started fresh (`python -m trimtab.core.process`), never forked, and dies with its parent. Messages are
pickled, between a parent and a child that it started itself; nothing else is ever unpickled here.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import math
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from trimtab.core import errors
from trimtab.core.errors import TrimtabError, WorkerCrashed, WorkerError, WorkerOutOfMemory, WorkerTimeout
from trimtab.core.files import disk_errors, make_folder

_POLL_S = 0.25  # how often time and memory are looked at: seldom, because the child may be timing
_GRACE_S = 5.0
_PAGE = os.sysconf("SC_PAGE_SIZE")

# No dependency of ours may phone home or write outside its folder; the child's environment is ours to set.
_QUIET = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "DO_NOT_TRACK": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one process may take. `start_s` bounds building the object; None leaves a bound out.

    `memory_bytes` is for the process and all that it starts: a technique that opens sessions pays for them.
    """

    start_s: float | None = 600.0
    call_s: float | None = 600.0
    memory_bytes: int | None = None


class Process:
    """An object that lives in a child process; `call` calls one of its methods there.

    Args:
        target: "module:class" of the object.
        arguments: what the class is called with; only values and arrays.
        log: where the child's output goes; a temporary file when None.
        limits: bounds on time and memory.
    """

    def __init__(self, target: str, *arguments: Any, log: Path | None = None, limits: Limits | None = None) -> None:
        self._target = target
        self._arguments = arguments
        self._limits = limits or Limits()
        self._own_log = log is None
        self.log = log if log is not None else _temporary_log()
        self._child: subprocess.Popen[bytes] | None = None
        self._pipe: Connection | None = None
        self._dead: TrimtabError | None = None
        self._paused = False

    @property
    def pid(self) -> int | None:
        """The process number, None before the start."""
        return self._child.pid if self._child else None

    def twin(self) -> Process:
        """Return a process for another object of the same kind under the same limits, not started, with its own log."""
        return Process(self._target, *self._arguments, limits=self._limits)

    def start(self) -> None:
        """Start the child and build the object; does nothing when that is done. A child that failed stays dead."""
        if self._dead is not None:
            raise self._dead
        if self._child is not None:
            return
        make_folder(self.log.parent)
        with disk_errors(self.log), self.log.open("ab") as log:
            self._launch(log)
        try:
            self._send((list(sys.path), self._target, self._arguments))
            self._receive(self._limits.start_s, "starting")
        except TrimtabError as error:
            self._fail(error)

    def _launch(self, log: BinaryIO) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._child = subprocess.Popen(
                # -P: a file of the user's folder that is named like a module must not be imported for it
                # -u: what it prints is in the log before it is killed, which is how it ends
                [sys.executable, "-P", "-u", "-m", "trimtab.core.process", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[theirs.fileno()],
                env={**os.environ, **_QUIET},
                start_new_session=True,
            )
        self._pipe = Connection(ours.detach())

    def call(self, method: str, *arguments: Any, timeout_s: float | None = None) -> Any:
        """Call a method of the object and return what it returns.

        Errors of ours come back as they were raised, others as `WorkerCrashed`; the child lives on after both.
        One that dies, or goes beyond its limits, is gone for good, and says so at every later call.
        """
        self.start()
        if self._paused:
            self._signal(signal.SIGCONT)
            self._paused = False
        self._send((method, arguments))
        return self._receive(timeout_s if timeout_s is not None else self._limits.call_s, method)

    def pause(self) -> None:
        """Stop the child and all its threads until its next call."""
        if self._child is not None and not self._paused:
            self._signal(signal.SIGSTOP)
            self._paused = True

    def close(self) -> None:
        """End the child. Closing twice does no harm."""
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None
        if self._child is not None:
            self._kill()
            self._child = None
        self._dead = self._dead or WorkerCrashed("this worker process was closed")
        if self._own_log:
            self.log.unlink(missing_ok=True)

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _kill(self) -> int:
        """End the child and everything in its session; return its exit code."""
        assert self._child is not None
        self._signal(signal.SIGKILL)
        return self._child.wait()

    def _signal(self, number: signal.Signals) -> None:
        """Send a signal to the child and everything in its session."""
        assert self._child is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._child.pid, number)

    def _send(self, message: object) -> None:
        assert self._pipe is not None
        try:
            self._pipe.send(message)
        except (BrokenPipeError, ConnectionResetError):
            self._fail(self._death("taking its inputs"))

    def _receive(self, timeout_s: float | None, doing: str) -> Any:
        assert self._pipe is not None
        try:
            self._wait(self._pipe, timeout_s, doing)
            kind, content = self._pipe.recv()
        except (EOFError, ConnectionResetError):
            self._fail(self._death(doing))
        except KeyboardInterrupt:
            self.close()  # its answer would be taken for that of the next call
            raise
        if kind == "error":
            raise revived(*content)
        return content

    def _wait(self, pipe: Connection, timeout_s: float | None, doing: str) -> None:
        """Wait for an answer, no longer than the limits on time and memory allow."""
        assert self._child is not None
        end = math.inf if timeout_s is None else time.monotonic() + timeout_s
        while not pipe.poll(min(_POLL_S, max(0.0, end - time.monotonic()))):
            if time.monotonic() >= end:
                self._fail(WorkerTimeout(f"took longer than its limit of {timeout_s:.3g} s ({doing})"))
            limit = self._limits.memory_bytes
            if limit is not None and (used := resident_bytes(self._child.pid)) > limit:
                what = f"used {used / 1e9:.1f} GB, more than its limit of {limit / 1e9:.1f} GB ({doing})"
                self._fail(WorkerOutOfMemory(what))

    def _death(self, doing: str) -> WorkerError:
        assert self._child is not None
        try:
            code = self._child.wait(_GRACE_S)
        except subprocess.TimeoutExpired:  # it closed its end and lives on
            code = self._kill()
        if code == -signal.SIGKILL:
            return WorkerOutOfMemory(f"was killed ({doing}), most likely because the memory ran out")
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return WorkerCrashed(f"crashed with {how} ({doing}){last_words(self.log)}")

    def _fail(self, error: TrimtabError) -> NoReturn:
        self._dead = error
        self.close()
        raise error


def resident_bytes(pid: int) -> int:
    """Return the resident memory of a process and of all that descend from it in bytes; what is gone counts nothing."""
    try:
        total = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
        threads = os.listdir(f"/proc/{pid}/task")  # noqa: PTH208 # names are enough, and asked for often
    except (OSError, IndexError):
        return 0
    for thread in threads:
        with contextlib.suppress(OSError):
            children = Path(f"/proc/{pid}/task/{thread}/children").read_text().split()
            total += sum(resident_bytes(int(child)) for child in children)
    return total


def peak_bytes() -> int:
    """Return the peak resident memory of this process in bytes (VmHWM, which `exec` resets, unlike ru_maxrss)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def imported(path: str) -> Any:
    """Return what "module:name" names."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def last_words(log: Path) -> str:
    """Return ": " and the last line of a log, or nothing where there is none."""
    try:
        lines = log.read_text(errors="replace").strip().splitlines()
    except OSError:
        return ""
    return f": {lines[-1][:200]}" if lines else ""


def _temporary_log() -> Path:
    with tempfile.NamedTemporaryFile(prefix="trimtab-", suffix=".log", delete=False) as file:
        return Path(file.name)


def revived(name: str, message: str) -> TrimtabError:
    """Return the error of that name with its message as it was; a crash when it is none of ours."""
    kind = getattr(errors, name, None)
    if not (isinstance(kind, type) and issubclass(kind, TrimtabError)):
        return WorkerCrashed(f"{name}: {_first_line(message)}")
    error = kind.__new__(kind)
    error.args = (message,)
    return error


def _first_line(message: str) -> str:
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return lines[0][:300] if lines else "no message"


def silence_telemetry() -> None:
    """Keep openvino and nncf from reporting: `import openvino` sends an event through this package when it finds it."""
    if "openvino" not in sys.modules:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment] # makes its import fail, which openvino expects


def die_with_parent() -> None:
    """Have this process killed when the one that started it ends, and first when the memory runs out."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def _serve(pipe: Connection) -> None:
    path, target, arguments = pipe.recv()
    sys.path[:] = path
    silence_telemetry()
    served: Any = None
    method: str | None = None
    while True:
        try:
            content = getattr(served, method)(*arguments) if method else None
            if method is None:
                served = imported(target)(*arguments)
            reply = ("done", content)
        except Exception as error:  # noqa: BLE001 # whatever a plug-in raises is told to the parent
            traceback.print_exc()
            reply = ("error", (type(error).__name__, str(error)))
        pipe.send(reply)
        if reply[0] == "error" and served is None:
            return
        method, arguments = pipe.recv()


def main() -> None:
    """Serve one object on the socket whose number is the first argument."""
    die_with_parent()
    with contextlib.suppress(EOFError, ConnectionResetError, BrokenPipeError, KeyboardInterrupt):
        _serve(Connection(int(sys.argv[1])))
    sys.stderr.flush()
    os._exit(0)  # engines may hang in their own shutdown


if __name__ == "__main__":
    main()
