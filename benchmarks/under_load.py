"""Are comparisons right while something else thrashes the memory? python benchmarks/under_load.py [--trials 40]

Forty comparisons of a network with itself and forty with one that has a tenth more layers (and 10 % more
multiply-accumulates), each through `trimtab compare`'s own code, while another process copies large arrays in bursts.
Finished comparisons are kept in benchmarks/work/under_load.jsonl; a run that was killed goes on where it was.
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import pages
from pages import WORK, Journal, Row
from trimtab.core.files import make_folder
from trimtab.core.values import Comparison, Goal, Task, Variant
from trimtab.workbench.compare import Care, compare
from trimtab.workbench.opening import open_model

LAYERS, LARGER = 10, 11
CHANNELS, SIDE = 64, 16
SECONDS_EACH = 30.0
ALLOWED = {"same": ("equivalent", 30), "larger": ("slower", 32)}
BURST_BYTES = 96 << 20


def network(layers: int, path: Path) -> Path:
    """Write an ONNX network of equal 3×3 convolutions, so that its work is in proportion to its layers."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    nodes, weights = [], []
    for index in range(layers):
        kernel = (rng.standard_normal((CHANNELS, CHANNELS, 3, 3)) / np.sqrt(4.5 * CHANNELS)).astype(np.float32)
        weights.append(numpy_helper.from_array(kernel, f"kernel{index}"))
        inside = "image" if index == 0 else f"x{index}"
        nodes.append(helper.make_node("Conv", [inside, f"kernel{index}"], [f"y{index}"], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"y{index}"], [f"x{index + 1}"]))
    shape = [1, CHANNELS, SIDE, SIDE]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("image", f"x{layers}")]
    graph = helper.make_graph(nodes, "convolutions", ends[:1], ends[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    make_folder(path.parent)
    onnx.save(model, path)
    return path


def thrash(seed: int) -> None:
    """Copy large arrays in bursts of random length with pauses between them, until killed."""
    rng = np.random.default_rng(seed)
    source, target = np.ones(BURST_BYTES, np.uint8), np.zeros(BURST_BYTES, np.uint8)
    while True:
        end = time.monotonic() + rng.uniform(0.02, 0.4)
        while time.monotonic() < end:
            np.copyto(target, source)
            source, target = target, source
        time.sleep(rng.uniform(0.02, 0.4))


@contextlib.contextmanager
def load(seed: int) -> Iterator[None]:
    """Run the thrashing process for the time of the block."""
    other = subprocess.Popen([sys.executable, __file__, "--thrash", str(seed)])
    try:
        yield
    finally:
        other.kill()
        other.wait()


def trial(pair: tuple[Variant, Variant], seed: int, seconds: float, processes: int, loaded: bool) -> Row:
    """Compare two variants once and return the verdict with its interval and what it took."""
    start = time.monotonic()
    with load(seed) if loaded else contextlib.nullcontext():
        care = Care(seconds=seconds, processes=processes, seed=seed)
        found: Comparison = compare(pair, Task(), Goal(max_drop=None), care)
    ratio, control = found.ratios[0], found.self_test
    assert control is not None
    return {
        "verdict": ratio.verdict, "value": ratio.value, "low": ratio.low, "high": ratio.high, "noise": ratio.noise,
        "processes": ratio.processes, "self_test": control.verdict, "seconds": time.monotonic() - start,
    }  # fmt: skip


def wrong(kind: str, verdict: str) -> bool:
    """Say whether a verdict is wrong: a difference where there is none, or one of the wrong sign."""
    return verdict in ("faster", "slower") if kind == "same" else verdict == "faster"


def summary(rows: list[Row], kind: str) -> dict[str, Any]:
    """Return the verdicts of one kind of comparison, counted."""
    own = [row for row in rows if row["kind"] == kind]
    counts = Counter(row["verdict"] for row in own)
    return {
        "kind": kind, "trials": len(own), **{v: counts[v] for v in ("faster", "slower", "equivalent", "inconclusive")},
        "wrong": sum(wrong(kind, row["verdict"]) for row in own),
        "median_ratio": float(np.median([row["value"] for row in own])),
        "widest_s": max(row["seconds"] for row in own),
        "noise": float(np.median([row["noise"] for row in own if row["noise"] is not None] or [np.nan])),
    }  # fmt: skip


def figures(found: list[dict[str, Any]], trials: int) -> list[str]:
    """Return whether each figure was met, in words; the counts asked for are of forty, fewer trials need as many."""
    same, larger = found
    least = {kind: round(count * trials / 40) for kind, (_, count) in ALLOWED.items()}
    slowest = max(part["widest_s"] for part in found)
    return [
        pages.kept(same["wrong"] <= 1, f"the same network: {same['wrong']} of {trials} wrong (at most 1)"),
        pages.kept(same["equivalent"] >= least["same"],
                   f"the same network: {same['equivalent']} of {trials} equivalent (at least {least['same']})"),
        pages.kept(larger["wrong"] == 0, f"10 % larger: {larger['wrong']} of {trials} of the wrong sign (none)"),
        pages.kept(larger["slower"] >= least["larger"],
                   f"10 % larger: {larger['slower']} of {trials} slower (at least {least['larger']})"),
        pages.kept(slowest <= SECONDS_EACH, f"the longest comparison took {slowest:.0f} s (at most {SECONDS_EACH:g})"),
    ]  # fmt: skip


def body(found: list[dict[str, Any]], quiet: Row, trials: int) -> list[str]:
    """Return the page."""
    names = {"same": "with itself", "larger": f"{LARGER} layers against {LAYERS}"}
    columns = (
        "compared",
        "trials",
        "faster",
        "slower",
        "equivalent",
        "inconclusive",
        "median ratio",
        "noise",
        "most s",
    )
    rows = [
        [names[part["kind"]], part["trials"], *(part[v] for v in ("faster", "slower", "equivalent", "inconclusive")),
         f"{part['median_ratio']:.3f}", f"{part['noise']:.1f}", f"{part['widest_s']:.0f}"]
        for part in found
    ]  # fmt: skip
    macs = CHANNELS * CHANNELS * 9 * SIDE * SIDE
    return [
        f"A network of {LAYERS} equal convolutions ({LAYERS * macs / 1e6:.0f} MMACs) on onnxruntime, compared with "
        f"itself and with one of {LARGER}, while another process copies {BURST_BYTES >> 20} MB back and forth in "
        f"bursts of 20 to 400 ms. Without that load the larger one takes {quiet['value']:.3f}× the time "
        f"({quiet['low']:.3f} to {quiet['high']:.3f}). Noise: spread of wall-clock over processor-time ratios.", "",
        *pages.table(columns, rows, right=range(1, 9)), "", *figures(found, trials), "",
        "```sh", "python benchmarks/under_load.py", "```",
    ]  # fmt: skip


def run(given: argparse.Namespace) -> None:
    """Make every comparison that is missing and publish the counts."""
    folder = WORK / "under_load"
    small, large = (open_model(network(n, folder / f"{n}.onnx"), folder / "opened") for n in (LAYERS, LARGER))
    small, large = (each.on(replace(each.settings, threads=given.threads)) for each in (small, large))
    pairs = {"same": (small, small), "larger": (small, large)}
    journal = Journal(given.journal)
    made_by = pages.stamp(given.seconds, given.processes, given.threads, Path(__file__))
    quiet = journal.once(
        f"quiet {made_by}", lambda: trial(pairs["larger"], 0, given.seconds, given.processes, loaded=False)
    )
    rows = []
    for seed in range(given.trials):
        for kind, pair in pairs.items():
            made = journal.once(
                f"{kind}-{seed} {made_by}",
                lambda pair=pair, kind=kind, seed=seed: {
                    "kind": kind, **trial(pair, seed, given.seconds, given.processes, loaded=True)
                },
            )  # fmt: skip
            rows.append(made)
            print(f"{made['key']}: {made['verdict']} {made['value']:.3f} in {made['seconds']:.0f} s", flush=True)
    found = [summary(rows, kind) for kind in pairs]
    data = {"summary": found, "quiet": quiet, "trials": rows, "seconds": given.seconds}
    pages.publish("under-load", "Comparisons under load", body(found, quiet, given.trials), data, given.results)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=40, help="comparisons of each kind")
    parser.add_argument("--seconds", type=float, default=18.0, help="of timing for each comparison")
    parser.add_argument("--processes", type=int, default=Care().processes, help="the fewest fresh processes per side")
    parser.add_argument("--threads", type=int, help="of the engine; its own default when not given")
    parser.add_argument("--journal", type=Path, default=WORK / "under_load.jsonl")
    parser.add_argument("--results", type=Path, default=pages.RESULTS)
    parser.add_argument("--thrash", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.thrash is not None:
        thrash(given.thrash)
    pages.own_home()
    run(given)


if __name__ == "__main__":
    main()
