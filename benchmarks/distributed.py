"""What do two processes bring? python benchmarks/distributed.py [--rounds 5] [--items 3840]

DDP: `trimtab train` fits a ResNet-20 (group normalization) to Fashion-MNIST in one process with one thread, in one with
two, and in two with one each; in turn, each in fresh processes. Told are the seconds of its epochs after the first, as
ratios with intervals over rounds, and how far the weights are apart after twenty steps.
Pipeline: a perceptron of 537 MB takes a few steps of Adam in one process and in two stages. Told are the peaks of
resident memory above those of the imports, and whether they still run when each process may use three quarters of what
one needs (RLIMIT_DATA).
Finished pieces are kept in benchmarks/work/distributed/journal.jsonl.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import assets
import pages
from pages import WORK, Journal, Row
from trimtab.core.codec import loads
from trimtab.core.errors import TrimtabError
from trimtab.core.process import peak_bytes
from trimtab.core.values import Run, Signature, Task, TensorSpec
from trimtab.stats.paired import Interval, ratio
from trimtab.training.group import Group
from trimtab.training.launch import Meeting, Say, together
from trimtab.training.network import Network
from trimtab.training.optimizers import Optimizer
from trimtab.training.recipe import Recipe

FOLDER = WORK / "distributed"
MODEL = Path(__file__).parent / "models" / "grouped.py"
ARMS = {"one process, one thread": (1, 1), "one process, two threads": (1, 2), "two processes, one thread each": (2, 1)}
ONE, THREADS, TWO = ARMS
STEPS_ALIKE, ALIKE = 20, 5e-3  # after so many steps the weights differ by at most that share of the largest
LOSSES_ALIKE = 1e-4
MEMORY, ROOM = 0.65, 0.75  # of what one process needs: what each of two may, and what it is limited to


def files(items: int) -> Path:
    """Write some of Fashion-MNIST: so many items to train on, and a few to judge by."""
    source, path = WORK / "fashion" / "fashion.npz", FOLDER / f"fashion-{items}.npz"
    if not path.is_file():
        with np.load(source if source.is_file() else assets.fashion_mnist(source.parent)) as held:
            counts = {"train": items, "calibrate": 300, "select": 500, "certify": 500}
            rows = np.concatenate([np.flatnonzero(held["split"] == name)[:count] for name, count in counts.items()])
            path.parent.mkdir(parents=True, exist_ok=True)
            np.savez(path, **{name: held[name][rows] for name in held.files})
    return path


def trained(arm: str, data: Path, epochs: int) -> tuple[Run, Path]:
    """Train by the command line in a fresh folder, and return the run and its weights."""
    processes, threads = ARMS[arm]
    output = FOLDER / f"{processes}-{threads}"
    shutil.rmtree(output, ignore_errors=True)
    trimtab = str(Path(sys.executable).with_name("trimtab"))
    given = ["train", f"{MODEL}:build", "--data", str(data), "--preprocess", "mnist", "--epochs", str(epochs)]
    options = [word for option in ("optimizer=sgd", "lr=0.02", "batch=64") for word in ("-o", option)]
    subprocess.run(
        [trimtab, *given, *options, "--processes", str(processes), "--output", str(output)],
        env={**os.environ, "OMP_NUM_THREADS": str(threads)}, check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    return loads(Run, (output / "run.json").read_text()), output / "weights.safetensors"


def timed(arm: str, data: Path) -> Row:
    """Return the seconds of two epochs, after one that warms up."""
    run, _ = trained(arm, data, 3)
    spent = run.trace("epoch_time")
    assert spent is not None
    return {"seconds": float(sum(spent.values[1:]))}


def apart(data: Path) -> Row:
    """Return how far the weights of the others are from those of one process with one thread, by the largest."""
    from safetensors.numpy import load_file

    found = {arm: load_file(trained(arm, data, 1)[1]) for arm in ARMS}
    largest = max(float(np.abs(weight).max()) for weight in found[ONE].values())
    return {
        arm: max(float(np.abs(weight - found[ONE][name]).max()) for name, weight in found[arm].items()) / largest
        for arm in (THREADS, TWO)
    }


def steps(width: int, layers: int, count: int, room: int | None, group: Group, say: Say) -> None:
    """Take steps of Adam on random rows; say the losses and how far each process's memory rose above its imports.

    With `room` the process may use so many bytes more than it uses after its imports.
    """
    import torch
    import torch.distributed.pipelining

    from networks import build

    torch.manual_seed(0)
    if room is not None:
        limit = _used("VmData") + room
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    before = peak_bytes()
    rows = TensorSpec(name="input", dtype="float32", shape=("batch", width))
    signature = Signature(inputs=(rows,), outputs=(TensorSpec(name="output", dtype="float32", shape=("batch", width)),))
    recipe = Recipe(batch=16)
    network = Network(build("deep.py:build", width=width, layers=layers), signature, Task(), recipe, group=group)
    optimizer, losses = Optimizer(network.trained, recipe, network.numbers), []
    network.module.train()
    for _ in range(count):
        given, wanted = {"input": torch.randn(16, width)}, torch.randint(0, width, (16,))
        if network.line is not None:
            losses.append(network.learn(given, wanted, torch.nn.functional.cross_entropy))
        else:
            loss = torch.nn.functional.cross_entropy(network.answer(given), wanted)
            loss.backward()
            losses.append(loss.item())
        optimizer.step(1.0)
        optimizer.clear()
    rises = group.collected(torch.tensor([float(peak_bytes() - before)]))
    say({"losses": losses, "rises": [each.item() for each in rises]})


def _used(name: str) -> int:
    """Return a size of this process in bytes, by its name in /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def stepped(processes: int, width: int, layers: int, room: int | None = None) -> Row:
    """Take four steps in one process or in the stages of a pipeline; where that fails the row says why."""
    heard: list[Any] = []
    parallel = "pipeline" if processes > 1 else "ddp"
    meeting = Meeting(size=processes, parallel=parallel, logs=FOLDER / "logs", silence_s=600.0)
    try:
        together(meeting, partial(steps, width, layers, 4, room), heard.append)
    except TrimtabError as error:
        return {"failed": str(error)}
    return dict(heard[0])


def scaling(rows: Mapping[str, Sequence[Row]]) -> dict[str, Interval]:
    """Return how many times as fast two processes are as one, with one thread and with two."""
    seconds = {arm: np.array([row["seconds"] for row in found]) for arm, found in rows.items()}
    return {arm: ratio(seconds[arm], seconds[TWO]) for arm in (ONE, THREADS)}


def ddp_lines(rows: Mapping[str, Sequence[Row]], far: Row) -> list[str]:
    """Return the page's part on DDP."""
    found = scaling(rows)
    table = [(arm, f"{np.median([row['seconds'] for row in rows[arm]]):.2f}", "" if arm == TWO else _times(found[arm]))
             for arm in ARMS]  # fmt: skip
    one = found[ONE]
    efficiency = f"{one.value / 2:.0%} ({one.low / 2:.0%} to {one.high / 2:.0%})"
    return [
        "#### DDP", "",
        pages.kept(far[TWO] <= ALIKE, f"weights after {STEPS_ALIKE} steps in two processes and in one differ by "
                   f"{far[TWO]:.1e} of the largest (allowed {ALIKE:g}; one with two threads: {far[THREADS]:.1e})"),
        f"- scaling efficiency of two processes against one with one thread: {efficiency}; "
        f"times as fast as one with two threads: {_times(found[THREADS])}",
        "",
        *pages.table(("", "seconds, median", "two processes are faster"), table, right=(1, 2)),
    ]  # fmt: skip


def _times(interval: Interval) -> str:
    return f"{interval.value:.2f}× ({interval.low:.2f} to {interval.high:.2f})"


def pipeline_lines(rows: Mapping[str, Row], weights: int) -> list[str]:
    """Return the page's part on the pipeline."""
    one, two = rows["one"]["rises"][0], max(rows["two"]["rises"])
    worst = max(abs(a / b - 1) for a, b in zip(rows["two"]["losses"], rows["one"]["losses"], strict=True))
    limited, runs = "failed" in rows["one, limited"], "failed" not in rows["two, limited"]
    table = [("one process", f"{one / 1e6:,.0f}", rows["one, limited"].get("failed", "runs")[:160])]
    table += [(f"stage {number}", f"{rise / 1e6:,.0f}", rows["two, limited"].get("failed", "runs")[:160])
              for number, rise in enumerate(rows["two"]["rises"], start=1)]  # fmt: skip
    return [
        "#### Pipeline", "",
        pages.kept(two <= MEMORY * one, f"a stage's peak above its imports is {two / one:.0%} of one process's "
                   f"(allowed {MEMORY:.0%}); weights of {weights / 1e6:,.0f} MB"),
        pages.kept(limited and runs, f"limited to {ROOM:.0%} of what one process needs, one fails and two run"),
        pages.kept(worst <= LOSSES_ALIKE, f"losses differ by at most {worst:.1e}, relatively"),
        "",
        *pages.table(("", "peak above imports, MB", f"limited to {ROOM:.0%} of one"), table, right=(1,)), "",
        "Steps alone: a checkpoint is put together in the first process, and needs room for the whole there.",
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--items", type=int, default=3840)
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--results", type=Path, default=pages.RESULTS)
    given = parser.parse_args()
    pages.own_home()
    journal = Journal(FOLDER / "journal.jsonl")
    made_by = pages.stamp(Path(__file__), MODEL.parent)
    data, few = files(given.items), files(64 * STEPS_ALIKE)
    rows: dict[str, list[Row]] = {arm: [] for arm in ARMS}
    for number in range(given.rounds):
        for arm in ARMS:
            key = f"{made_by} {given.items} items, {arm}, round {number}"
            rows[arm].append(journal.once(key, lambda arm=arm: timed(arm, data)))
    far = journal.once(f"{made_by} apart", lambda: apart(few))
    size = (given.width, given.layers)
    taken = {name: journal.once(f"{made_by} {size} {name}", lambda count=count: stepped(count, *size))
             for name, count in (("one", 1), ("two", 2))}  # fmt: skip
    room = int(ROOM * taken["one"]["rises"][0])
    for name, count in (("one", 1), ("two", 2)):
        limited = f"{name}, limited"
        taken[limited] = journal.once(f"{made_by} {size} {limited}", lambda count=count: stepped(count, *size, room))
    weights = 4 * given.layers * given.width * (given.width + 1)
    body = [*ddp_lines(rows, far), "", *pipeline_lines(taken, weights), "",
            "```sh", "python benchmarks/distributed.py", "```"]  # fmt: skip
    shown = {"ddp": rows, "apart": far, "pipeline": taken, "weights": weights}
    pages.publish("distributed", "What two processes bring", body, shown, given.results)


if __name__ == "__main__":
    main()
