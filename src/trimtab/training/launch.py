"""Starts the processes that train together, hears what they tell, and ends them all when one fails."""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NoReturn

from trimtab.core.errors import TrimtabError, WorkerCrashed
from trimtab.core.files import make_folder
from trimtab.core.process import die_with_parent, last_words, revived
from trimtab.formats.torch_tracing import import_torch
from trimtab.training.group import SILENCE_S, Group, joined

Say = Callable[[Any], None]
Work = Callable[[Group, Say], None]
"""What every process does; what the first one says is heard by the process that started it."""

_GRACE_S = 5.0  # in which the others may tell their end of the story when one has failed
_MOST = 2000  # characters of an error: what is this short goes through a pipe whole, or not at all
_AGAIN = "run the same command again to go on from the checkpoint"


@dataclass(frozen=True, slots=True, kw_only=True)
class Meeting:
    """How some processes of this machine train together, and how long they wait for one that does not answer.

    `logs` is the folder that gets the output of each.
    """

    size: int
    parallel: str
    logs: Path
    silence_s: float = SILENCE_S


def together(meeting: Meeting, work: Work, heard: Say) -> None:
    """Do a piece of work in several new processes, which end when it is done or one of them fails.

    Args:
        meeting: how many, and how.
        work: what each does; it is pickled, so it is a function of a module, or a `functools.partial` of one.
        heard: gets what the first process says.

    Raises:
        WorkerCrashed: a process was killed, crashed or fell silent; the others were ended.
        TrimtabError: what a process raised.
    """
    torch = import_torch("training")
    make_folder(meeting.logs)
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    pipes = [Pipe(duplex=False) for _ in range(meeting.size)]
    given = (meeting, store.port, work, [theirs for _, theirs in pipes])
    context = torch.multiprocessing.start_processes(_serve, given, meeting.size, join=False, start_method="spawn")
    try:
        _Watch(context.processes, [ours for ours, _ in pipes], heard, meeting).over()
    finally:
        for process in context.processes:
            process.kill()
            process.join()
        for pipe in (end for pair in pipes for end in pair):
            pipe.close()


def _serve(rank: int, meeting: Meeting, port: int, work: Work, pipes: Sequence[Connection]) -> None:
    """Do the work as one of the processes; the exit code is 1 where that fails."""
    die_with_parent()
    _log_to(_log(meeting, rank))
    torch, tell = import_torch("training"), pipes[rank].send
    if "OMP_NUM_THREADS" not in os.environ:  # a share of the cores each, unless the user has said how many
        torch.set_num_threads(max(1, torch.get_num_threads() // meeting.size))
    try:
        store = torch.distributed.TCPStore("127.0.0.1", port, is_master=False)
        with joined(rank, meeting.size, meeting.parallel, store, meeting.silence_s) as group:
            work(group, lambda what: tell(("said", what)) if rank == 0 else None)
    except Exception as error:  # noqa: BLE001 # what is ours is told to the parent, everything is logged
        traceback.print_exc()
        if isinstance(error, TrimtabError):
            tell(("error", (type(error).__name__, str(error)[:_MOST])))
        sys.stderr.flush()
        os._exit(1)  # the group can't be left in order: the others are somewhere else


def _log_to(path: Path) -> None:
    """Send what this process prints to a file."""
    with path.open("ab") as log:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)


def _log(meeting: Meeting, rank: int) -> Path:
    return meeting.logs / f"process-{rank}.log"


class _Watch:
    """What has become of the processes so far."""

    def __init__(self, processes: Sequence[Any], pipes: Sequence[Connection], heard: Say, meeting: Meeting) -> None:
        self._running = dict(enumerate(processes))
        self._pipes, self._heard, self._meeting = pipes, heard, meeting
        self._codes: dict[int, int] = {}
        self._errors: dict[int, TrimtabError] = {}

    def over(self) -> None:
        """Wait until all have ended well; raise what the first trouble was about."""
        while self._running and not any(self._codes.values()):
            self._wait(None)
        end = time.monotonic() + _GRACE_S
        while self._running and (left := end - time.monotonic()) > 0:
            self._wait(left)
        if any(self._codes.values()):
            self._fail()

    def _wait(self, seconds: float | None) -> None:
        """Wait until a process says something or ends."""
        wait([*self._pipes, *(process.sentinel for process in self._running.values())], seconds)
        ended = [rank for rank, process in self._running.items() if process.exitcode is not None]
        for rank, pipe in enumerate(self._pipes):
            while pipe.poll():
                kind, content = pipe.recv()
                if kind == "error":
                    self._errors[rank] = revived(*content)
                else:
                    self._heard(content)
        for rank in ended:
            self._codes[rank] = self._running.pop(rank).exitcode

    def _fail(self) -> NoReturn:
        """Raise for the process that failed of itself rather than because another one did."""
        silent = [rank for rank, code in self._codes.items() if code and rank not in self._errors]
        if silent:
            raise WorkerCrashed(self._death(silent[0]))
        raise min(self._errors.values(), key=lambda error: isinstance(error, WorkerCrashed))

    def _death(self, rank: int) -> str:
        code, who = self._codes[rank], f"process {rank} of the {self._meeting.size} (counted from 0)"
        if code == -signal.SIGKILL:
            return f"{who} was killed by SIGKILL; if nobody did, the memory ran out; {_AGAIN}"
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"crashed with exit code {code}"
        return f"{who} {how}{last_words(_log(self._meeting, rank))}; {_AGAIN}"
