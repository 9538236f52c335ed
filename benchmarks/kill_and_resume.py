"""Is anything lost or done twice when a run is killed? python benchmarks/kill_and_resume.py [--kills 20] [--study]

A small `trimtab optimize` on the digits is run once undisturbed; then, for every kill, a fresh one is ended by SIGKILL
at a random moment and the same command is run again. What was finished at the kill (lines of the journal, variants,
answers, play-off, proofs, timings, measurements) must be there afterwards untouched, so at most what was under way is
repeated.
With --study the run changes and trains networks. Finished kills are kept in benchmarks/work/kills/journal.jsonl; a run
that was killed itself goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

import assets
import pages
from pages import WORK, Journal, Row
from trimtab.core.files import make_folder

FINISHED = (
    "certify.json", "variants/*/variant.json", "answers/*.npy", "playoff/**/*.npz", "playoff/**/*.json",
    "proofs/*.json", "timing/*/*.npz", "measurements/*.json",
)  # fmt: skip
"""What a run keeps as soon as it is done, below its work folder, apart from the journal."""

Marks = dict[str, tuple[int, int]]


Run = Callable[[Path], list[str]]
"""The command of the run that is killed, by its output folder."""


def search(output: Path, budget: str) -> list[str]:
    """Return a run with one engine and one technique, so that it is over soon."""
    asset = assets.prepare("digits")
    given = ["optimize", str(asset.model), "--data", str(asset.data), "--budget", budget, "--trials", "8"]
    return _command(given, ("onnxruntime", "static-int8"), output)


def study(output: Path, budget: str) -> list[str]:
    """Return a run that prunes and trains: a few candidates, each on several rungs."""
    asset = assets.prepare("digits")
    given = ["optimize", str(asset.factory), "--data", str(asset.data), "--train", str(asset.data), "--budget", budget]
    return _command(given, ("onnxruntime", "export-onnx", "prune", "fine-tune"), output)


def _command(given: list[str], tools: Sequence[str], output: Path) -> list[str]:
    only = [word for name in tools for word in ("--only", name)]
    return [str(Path(sys.executable).with_name("trimtab")), *given, *only, "--output", str(output)]


def complete(command: Run, output: Path, log: Path) -> tuple[float, int]:
    """Run until the end and return the seconds it took and the exit code."""
    start = time.monotonic()
    with log.open("a") as file:
        done = subprocess.run(command(output), stdout=file, stderr=subprocess.STDOUT, check=False)
    return time.monotonic() - start, done.returncode


def killed(command: Run, output: Path, log: Path, after_s: float) -> bool:
    """Run, and kill it with SIGKILL after some seconds; return whether it was still running then."""
    with log.open("a") as file:
        run = subprocess.Popen(command(output), stdout=file, stderr=subprocess.STDOUT)
        try:
            run.wait(after_s)
            return False
        except subprocess.TimeoutExpired:
            os.kill(run.pid, signal.SIGKILL)
            run.wait()
            return True


def journal_lines(work: Path) -> list[str]:
    """Return the whole lines of a run's journal."""
    path = work / "journal.jsonl"
    content = path.read_bytes() if path.is_file() else b""
    return content[: content.rfind(b"\n") + 1].decode().splitlines()


def finished(work: Path) -> Marks:
    """Return the files of finished work with their inode and time of writing: done again, a file gets other ones."""
    found = sorted(path for pattern in FINISHED for path in work.glob(pattern) if ".part." not in path.name)
    return {str(path.relative_to(work)): (path.stat().st_ino, path.stat().st_mtime_ns) for path in found}


def repeated(lines: list[str], marks: Marks, work: Path) -> list[str]:
    """Return what was finished at the kill and was done again or lost since; names tried twice are repeated, too."""
    now_lines, now = journal_lines(work), finished(work)
    tried = Counter(json.loads(line)["name"] for line in now_lines)
    journal = [] if now_lines[: len(lines)] == lines else ["the journal's lines before the kill"]
    twice = [f"trial {name}" for name, count in tried.items() if count > 1]
    return [*journal, *twice, *(name for name, mark in marks.items() if now.get(name) != mark)]


def stage(lines: list[str], marks: Marks) -> str:
    """Return what a run was doing when it was killed, by what it had finished."""
    kinds = {name.partition("/")[0] for name in marks}
    stages = (
        ("measurements", "measuring"), ("timing", "final timing"), ("proofs", "proving"), ("playoff", "play-off"),
    )  # fmt: skip
    after = next((doing for kind, doing in stages if kind in kinds), None)
    return after or (f"searching, {len(lines)} trials done" if lines else "opening")


def kill_once(number: int, length_s: float, command: Run, folder: Path) -> Row:
    """Kill one fresh run at a random moment, run it again, and return what became of it."""
    output, log = folder / str(number), folder / f"{number}.log"
    shutil.rmtree(output, ignore_errors=True)
    after = float(np.random.default_rng([7, number]).uniform(0.02, 0.98)) * length_s
    while not killed(command, output, log, after):
        shutil.rmtree(output)
        after *= 0.7  # this run was quicker than the one that was not disturbed
    work = output / "work"
    lines, marks = journal_lines(work), finished(work)
    seconds, code = complete(command, output, log)
    whole = code == 0 and all((output / name).is_file() for name in ("result.json", "manifest.json", "report.html"))
    again = repeated(lines, marks, work)
    shutil.rmtree(output)
    return {
        "after_s": after, "stage": stage(lines, marks), "trials": len(lines), "finished": len(marks) + len(lines),
        "completed": whole, "exit_code": code, "repeated": again, "seconds": seconds,
    }  # fmt: skip


def undisturbed(command: Run, folder: Path) -> Row:
    """Return how long the run takes when nobody kills it."""
    output, log = folder / "undisturbed", make_folder(folder) / "undisturbed.log"
    shutil.rmtree(output, ignore_errors=True)
    seconds, code = complete(command, output, log)
    if code:
        raise SystemExit(f"the undisturbed run failed with exit code {code}, see {log}")
    return {"seconds": seconds, "trials": len(journal_lines(output / "work"))}


def body(rows: list[Row], whole: Row, shown: str) -> list[str]:
    """Return the page."""
    columns = ("killed after s", "while", "finished pieces", "the re-run", "took s", "done again of what was finished")
    cells = [
        [f"{row['after_s']:.1f}", row["stage"], row["finished"], "completed" if row["completed"] else
         f"exit code {row['exit_code']}", f"{row['seconds']:.1f}", ", ".join(row["repeated"]) or "nothing"]
        for row in sorted(rows, key=lambda row: row["after_s"])
    ]  # fmt: skip
    complete_runs = sum(row["completed"] for row in rows)
    clean = sum(not row["repeated"] for row in rows)
    return [
        f"Undisturbed the run takes {whole['seconds']:.1f} s and tries {whole['trials']} variants.", "",
        *pages.table(columns, cells, right=(0, 2, 4)), "",
        pages.kept(complete_runs == len(rows), f"{complete_runs} of {len(rows)} re-runs complete"),
        pages.kept(clean == len(rows), f"{clean} of {len(rows)} repeat nothing but what was under way"), "",
        "```sh", shown, "```",
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--study", action="store_true", help="kill a run that changes and trains networks")
    parser.add_argument("--budget", help="of the run that is killed; 30s, or 2m with --study")
    parser.add_argument("--folder", type=Path, default=WORK / "kills")
    parser.add_argument("--results", type=Path, default=pages.RESULTS)
    given = parser.parse_args()
    pages.own_home()
    folder, make = make_folder(given.folder.absolute()), study if given.study else search
    budget = given.budget or ("2m" if given.study else "30s")
    name = "kill-and-resume-study" if given.study else "kill-and-resume"
    command = partial(make, budget=budget)
    journal = Journal(folder / "journal.jsonl")
    made_by = f"{budget} {'study ' * given.study}{pages.stamp(Path(__file__))}"
    whole = journal.once(f"undisturbed {made_by}", lambda: undisturbed(command, folder))
    rows = []
    for number in range(given.kills):
        row = journal.once(
            f"{number} {made_by}", lambda number=number: kill_once(number, whole["seconds"], command, folder)
        )
        rows.append(row)
        print(
            f"killed after {row['after_s']:.1f} s ({row['stage']}): repeated {row['repeated'] or 'nothing'}", flush=True
        )
    shown = shlex.join(["trimtab", *command(folder / "N")[1:]])
    data = {"undisturbed": whole, "kills": rows, "command": shown}
    pages.publish(name, "Killed and run again", body(rows, whole, shown), data, given.results)


if __name__ == "__main__":
    main()
