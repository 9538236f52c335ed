from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from trimtab.core.errors import (
    BadInput,
    MissingExtra,
    Refused,
    Unsafe,
    WorkerCrashed,
    WorkerOutOfMemory,
    WorkerTimeout,
)
from trimtab.core.process import Limits, Process, imported, peak_bytes, resident_bytes

THING = """
import ctypes, os, subprocess, sys, time
from trimtab.core import errors
from trimtab.core.process import Process

class Thing:
    def __init__(self, start=0):
        if start == "refuse":
            raise errors.BadInput("no start")
        self.total = start
    def add(self, number):
        self.total += number
        return self.total
    def echo(self, value):
        return value
    def pid(self):
        return os.getpid()
    def environment(self, name):
        return os.environ.get(name)
    def raises(self, name, *message):
        raise getattr(errors, name, None)(*message)
    def fails(self):
        return {}["key"]
    def segfaults(self):
        print("these are my last words", flush=True)
        ctypes.string_at(0)
    def exits(self, code):
        print("leaving", flush=True)
        os._exit(code)
    def kills_itself(self):
        os.kill(os.getpid(), 9)
    def says(self, words):
        print(words)
    def hangs(self):
        while True:
            time.sleep(0.01)
    def hogs(self, size):
        kept = bytearray(size)
        time.sleep(60)
    def gives_a_function(self):
        return lambda: None
    def child(self):
        self.inner = Process("thing:Thing")
        return self.inner.call("pid")
    def helper(self):
        return subprocess.Popen(["sleep", "60"]).pid
    def child_hogs(self, size):
        self.child()
        return self.inner.call("hogs", size)
    def children_hold(self, *sizes):
        self.inner = [Process("thing:Thing") for _ in sizes]
        return [inner.call("keeps", size) for inner, size in zip(self.inner, sizes)]
    def children_hold_and_wait(self, *sizes):
        self.children_hold(*sizes)
        time.sleep(60)
    def spins(self):
        import threading
        def spin():
            while True:
                self.total += 1
        threading.Thread(target=spin, daemon=True).start()
        return os.getpid()
    def keeps(self, size):
        self.kept = b"x" * size
        return os.getpid()
"""


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Process]]:
    """Start processes of a `Thing` that are closed when the test ends."""
    (tmp_path / "thing.py").write_text(THING)
    monkeypatch.syspath_prepend(tmp_path)
    made: list[Process] = []

    def begin(*arguments: object, **given: object) -> Process:
        made.append(Process("thing:Thing", *arguments, **given))  # type: ignore[arg-type]
        return made[-1]

    yield begin
    for process in made:
        process.close()


def gone(pid: int) -> bool:
    """Wait for a process to end; a zombie has not been waited for and counts as there."""
    for _ in range(200):
        if not psutil.pid_exists(pid):
            return True
        time.sleep(0.02)
    return False


def ended(pid: int) -> bool:
    """Wait for a process that is not ours to wait for; as a zombie it has ended."""
    for _ in range(500):
        with contextlib.suppress(psutil.NoSuchProcess):
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                time.sleep(0.02)
                continue
        return True
    return False


def open_files() -> int:
    return psutil.Process().num_fds()


def test_the_object_lives_in_another_process_and_keeps_its_state(start):
    process = start(5)
    assert process.pid is None, "it starts at the first use"
    assert (process.call("add", 2), process.call("add", 3)) == (7, 10)
    assert process.call("pid") == process.pid != os.getpid()


def test_arrays_come_back_as_they_went(start):
    given = {"x": np.arange(6, dtype=np.int8).reshape(2, 3), "y": np.array([], dtype="<U3")}
    back = start().call("echo", given)
    assert all(np.array_equal(back[name], given[name]) and back[name].dtype == given[name].dtype for name in given)


@pytest.mark.parametrize("kind", [BadInput, Unsafe, Refused])
def test_an_error_of_ours_comes_back_as_it_was_raised_and_the_child_lives_on(start, kind):
    process = start()
    with pytest.raises(kind, match=r"^say so$") as raised:
        process.call("raises", kind.__name__, "say so")
    assert type(raised.value) is kind
    assert process.call("add", 1) == 1


def test_a_missing_extra_comes_back_with_the_command_that_installs_it(start):
    wanted = str(MissingExtra("openvino", "openvino", "running with OpenVINO"))
    with pytest.raises(MissingExtra) as raised:
        start().call("raises", "MissingExtra", "openvino", "openvino", "running with OpenVINO")
    assert str(raised.value) == wanted
    assert "pip install 'trimtab[openvino]'" in wanted


def test_a_foreign_error_is_named_in_one_line_and_its_traceback_is_in_the_log(start, tmp_path):
    process = start(log=tmp_path / "logs" / "worker.log")
    with pytest.raises(WorkerCrashed, match=r"^KeyError: 'key'$"):
        process.call("fails")
    assert process.call("add", 1) == 1
    assert 'return {}["key"]' in (tmp_path / "logs" / "worker.log").read_text()


def test_an_object_that_can_not_be_built_stays_dead_with_the_reason(start):
    process = start("refuse")
    for _ in range(2):
        with pytest.raises(BadInput, match=r"^no start$"):
            process.call("add", 1)
    assert process.pid is None


def test_a_crash_is_named_with_the_last_words_and_leaves_no_zombie(start, tmp_path):
    process = start(log=tmp_path / "worker.log")
    pid = process.call("pid")
    with pytest.raises(WorkerCrashed, match=r"SIGSEGV \(segfaults\): these are my last words"):
        process.call("segfaults")
    assert gone(pid)
    assert "these are my last words" in (tmp_path / "worker.log").read_text()
    with pytest.raises(WorkerCrashed, match="SIGSEGV"):
        process.call("add", 1)


def test_an_exit_is_named_with_its_code(start):
    with pytest.raises(WorkerCrashed, match=r"exit code 3 \(exits\): leaving"):
        start().call("exits", 3)


def test_a_kill_from_outside_is_taken_for_memory_that_ran_out(start):
    with pytest.raises(WorkerOutOfMemory, match="was killed"):
        start().call("kills_itself")


def test_a_hang_ends_at_its_limit_and_the_child_is_gone(start):
    process = start()
    pid = process.call("pid")
    begun = time.monotonic()
    with pytest.raises(WorkerTimeout, match=r"limit of 0.3 s \(hangs\)"):
        process.call("hangs", timeout_s=0.3)
    assert time.monotonic() - begun < 5
    assert gone(pid)


def test_the_limits_hold_for_every_call_and_for_the_start(start):
    with pytest.raises(WorkerTimeout, match="hangs"):
        start(limits=Limits(call_s=0.2)).call("hangs")
    with pytest.raises(WorkerTimeout, match="starting"):
        start(limits=Limits(start_s=0.0)).call("add", 1)


def test_a_memory_hog_is_ended_at_its_limit(start):
    process = start(limits=Limits(memory_bytes=300_000_000))
    pid = process.call("pid")
    with pytest.raises(WorkerOutOfMemory, match=r"more than its limit of 0.3 GB \(hogs\)"):
        process.call("hogs", 600_000_000)
    assert gone(pid)


def test_what_a_child_starts_counts_towards_its_limit(start):
    process = start(limits=Limits(memory_bytes=300_000_000))
    inner = process.call("child")
    with pytest.raises(WorkerOutOfMemory, match=r"more than its limit of 0.3 GB \(child_hogs\)"):
        process.call("child_hogs", 600_000_000)
    assert ended(inner)


def test_children_that_share_a_limit_break_it_together_not_alone(start):
    process = start(limits=Limits(memory_bytes=400_000_000))
    assert len(process.call("children_hold", 50_000_000)) == 1
    with pytest.raises(WorkerOutOfMemory, match="children_hold_and_wait"):
        process.call("children_hold_and_wait", 120_000_000, 120_000_000, 120_000_000, 120_000_000)


def test_what_can_not_be_sent_back_costs_the_child_only(start):
    with pytest.raises(WorkerCrashed, match="gives_a_function"):
        start().call("gives_a_function")


def test_closing_twice_does_no_harm_and_a_closed_one_says_so(start):
    process = start()
    pid = process.call("pid")
    process.close()
    process.close()
    assert gone(pid)
    with pytest.raises(WorkerCrashed, match="was closed"):
        process.call("add", 1)


def test_closing_one_that_never_started_starts_nothing(start):
    process = start()
    process.close()
    with pytest.raises(WorkerCrashed, match="was closed"):
        process.start()
    assert process.pid is None


def test_its_own_log_and_its_files_are_gone_when_it_is_closed(start):
    before = open_files()
    processes = [start() for _ in range(3)]
    for process in processes:
        process.call("add", 1)
        assert process.log.is_file()
        process.close()
        assert not process.log.exists()
    assert open_files() == before


def test_a_twin_is_another_process_of_the_same_kind(start):
    process = start(5)
    twin = process.twin()
    with twin:
        assert (process.call("add", 1), twin.call("add", 2)) == (6, 7)
        assert twin.pid != process.pid
        assert twin.log != process.log


def test_a_closed_process_takes_its_own_children_along(start):
    process = start()
    inner = process.call("child")
    assert psutil.pid_exists(inner)
    process.close()
    assert ended(inner)


@pytest.mark.parametrize("end", ["close", "crash"])
def test_a_program_that_the_child_ran_ends_with_it(start, end):
    process = start()
    other = process.call("helper")
    assert psutil.pid_exists(other)
    if end == "crash":
        with pytest.raises(WorkerCrashed, match="SIGSEGV"):
            process.call("segfaults")
    process.close()
    assert ended(other)


@pytest.mark.parametrize(
    ("first", "then"),
    [("pass", 'process.call("hangs")'), ("process.pause()", "time.sleep(60)")],
    ids=["busy", "paused"],
)
def test_the_child_dies_with_its_parent(start, tmp_path, first, then):
    code = f"""
        import sys, time
        sys.path.insert(0, {str(tmp_path)!r})
        from trimtab.core.process import Process
        process = Process("thing:Thing", log=__import__("pathlib").Path({str(tmp_path / "w.log")!r}))
        pid = process.call("pid")
        {first}
        print(pid, flush=True)
        {then}
    """
    parent = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert psutil.pid_exists(child)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    assert ended(child)


def test_a_paused_child_uses_no_processor_and_goes_on_at_its_next_call(start):
    process = start()
    pid = process.call("spins")
    process.pause()
    process.pause()
    while psutil.Process(pid).status() != psutil.STATUS_STOPPED:
        time.sleep(0.01)
    before = sum(psutil.Process(pid).cpu_times()[:2])
    time.sleep(0.3)
    assert sum(psutil.Process(pid).cpu_times()[:2]) == before
    assert process.call("pid") == pid
    assert psutil.Process(pid).status() != psutil.STATUS_STOPPED
    process.pause()
    process.close()
    assert gone(pid)


def test_pausing_one_that_never_started_or_was_closed_does_no_harm(start):
    process = start()
    process.pause()
    process.call("pid")
    process.close()
    process.pause()


def test_an_interrupt_ends_the_child_so_that_no_late_answer_is_mistaken(start):
    process = start()
    pid = process.call("pid")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where tests run in the background
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            process.call("hangs", timeout_s=20)
    finally:
        signal.signal(signal.SIGINT, before)
    assert gone(pid)


def test_a_file_named_like_a_module_in_the_users_folder_is_not_imported(start, tmp_path, monkeypatch):
    trap = tmp_path / "trap"
    trap.mkdir()
    (trap / "socket.py").write_text("raise SystemExit('the wrong file was imported')")
    monkeypatch.chdir(trap)
    assert start().call("add", 1) == 1


def test_dependencies_are_told_to_stay_silent_and_offline(start):
    before = dict(os.environ)
    process = start()
    assert process.call("environment", "HF_HUB_OFFLINE") == "1"
    assert process.call("environment", "DO_NOT_TRACK") == "1"
    assert dict(os.environ) == before


def test_a_log_that_can_not_be_written_is_one_clear_line(start, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="can't create the folder"):
        start(log=tmp_path / "file" / "worker.log").call("add", 1)


def test_reads_the_memory_of_a_process_and_zero_for_one_that_is_gone():
    assert resident_bytes(os.getpid()) == pytest.approx(psutil.Process().memory_info().rss, rel=0.2)
    assert peak_bytes() >= 0.8 * resident_bytes(os.getpid())
    assert resident_bytes(2**22 + 1) == 0


def test_names_are_imported_from_their_module():
    assert imported("trimtab.core.process:Process") is Process


def test_the_memory_of_a_process_counts_what_descends_from_it(start):
    process = start()
    held = process.call("children_hold", 40_000_000, 60_000_000)
    family = [psutil.Process(pid).memory_info().rss for pid in (process.pid, *held)]
    assert resident_bytes(process.pid) == pytest.approx(sum(family), rel=0.05)
    assert resident_bytes(held[1]) >= 60_000_000


def test_a_process_that_is_never_started_costs_a_log_and_nothing_else(start, tmp_path):
    process = start(log=tmp_path / "worker.log")
    assert process.pid is None
    process.close()
    assert not (tmp_path / "worker.log").exists()


def test_a_log_of_the_callers_own_is_kept_and_grows(start, tmp_path):
    log = tmp_path / "worker.log"
    for number in (1, 2):
        process = start(log=log)
        with pytest.raises(WorkerCrashed):
            process.call("exits", number)
        process.close()
    assert log.read_text().count("leaving") == 2


def test_what_the_child_prints_is_in_the_log_though_it_is_killed(start, tmp_path):
    process = start(log=tmp_path / "worker.log")
    process.call("says", "Conv + Relu → FusedConv")
    process.close()
    assert (tmp_path / "worker.log").read_text() == "Conv + Relu → FusedConv\n"


@pytest.mark.usefixtures("start")
@pytest.mark.parametrize("target", ["no_such_module:Thing", "thing:NoSuchThing", "thing:Thing.no_such"])
def test_what_can_not_be_found_is_named_and_ends_the_child(target):
    with Process(target) as process, pytest.raises(WorkerCrashed, match=r"No module named|has no attribute"):
        process.start()
    assert process.pid is None


def test_the_last_answer_belongs_to_the_last_call(start):
    process = start()
    answers = [process.call("echo", number) for number in range(200)]
    assert answers == list(range(200))


def test_large_arrays_cross_both_ways(start):
    given = np.arange(3_000_000, dtype=np.float64)  # larger than any pipe's buffer
    assert np.array_equal(start().call("echo", given), given)
