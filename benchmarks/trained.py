"""What training adds: python benchmarks/trained.py fashion|mnist|bbc

`trimtab optimize --train` on a real network, its winner timed in turn with PyTorch eager in fp32, with the best
untouched variant and with an empty call of the winner's engine. Resumable; work is kept in benchmarks/work/trained/.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

import assets
import contest
import pages
from against_peers import difference, median_s, shares, spent_lines
from contest import Course, Entry
from pages import WORK
from trimtab.core.values import Ratio, Variant
from trimtab.formats.onnx import save
from trimtab.meters.size import size
from trimtab.search.race import as_ratio
from trimtab.stats.ratios import ratio
from trimtab.workbench.timing import Timing


@dataclass(frozen=True, slots=True, kw_only=True)
class Contest:
    """A network and the figures asked for: times faster than eager, than the best untouched, and without the call.

    `several` is a larger batch at which the winner should be so many times the best untouched. `smaller` is the
    compression rate in bytes.
    """

    title: str
    max_drop: str
    goal: tuple[str, ...]
    budget: str
    untouched: float
    eager: float | None = None
    without_call: float | None = None
    several: tuple[int, float] | None = None
    smaller: float | None = None


CONTESTS = {
    "fashion": Contest(
        title="ResNet-18 on Fashion-MNIST, trained", max_drop="1pt", goal=("--minimize", "latency"), budget="60m",
        eager=50.0, untouched=4.0, without_call=6.0, several=(32, 8.0), smaller=20.0,
    ),
    "mnist": Contest(
        title="The MNIST classifier, trained", max_drop="1pt", goal=("--maximize", "throughput", "--batch", "64"),
        budget="20m", untouched=3.0, smaller=20.0,
    ),
    "bbc": Contest(
        title="MiniLM on BBC news, trained", max_drop="2pt", goal=("--minimize", "latency"), budget="40m",
        untouched=2.5,
    ),
}  # fmt: skip
UNTOUCHED = ("onnxruntime", "openvino", "torch", "export-onnx", "export-openvino")
"""Runtimes and exports: with nothing else a search tries the weights as they are on every setting."""


def optimize(kind: Contest, asset: assets.Asset, output: Path, *more: str) -> contest.Search:
    """Run the search of a contest, or return what it found before."""
    command = ["trimtab", "optimize", str(asset.factory), "--weights", str(asset.weights), "--data", str(asset.data)]
    command += [*asset.options, "--max-drop", kind.max_drop, *more, "--output", str(output)]
    return contest.search(command, output)


def empty_call(variant: Variant, folder: Path) -> Variant:
    """Return a model with the same inputs and outputs that computes nothing, on the settings of a variant."""
    signature = variant.model.signature
    inputs = [helper.make_tensor_value_info(each.name, _TYPES[each.dtype], each.shape) for each in signature.inputs]
    out = signature.outputs[0]
    width = out.shape[-1]
    nodes = [
        helper.make_node("Cast", [signature.inputs[0].name], ["cast"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["cast"], ["flat"], axis=1),
        helper.make_node("Slice", ["flat", "start", "stop", "axis"], [out.name]),
    ]
    numbers = {"start": [0], "stop": [width], "axis": [1]}
    constants = [onnx.numpy_helper.from_array(np.array(value, np.int64), name) for name, value in numbers.items()]
    outputs = [helper.make_tensor_value_info(out.name, TensorProto.FLOAT, (None, width))]
    graph = helper.make_graph(nodes, "empty", inputs, outputs, constants)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    folder.mkdir(parents=True, exist_ok=True)
    settings = replace(variant.settings, precision=None)
    return Variant(model=save(proto, folder / "empty.onnx"), settings=settings)


_TYPES = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64, "int32": TensorProto.INT32}


def without(timing: Timing, index: int, baseline: int, call: int) -> Ratio:
    """Return the ratio of two variants' times after the time of an empty call, block by block, is taken from both."""
    walls = [(wall[index] - wall[call], wall[baseline] - wall[call]) for wall in timing.wall_s]
    found = ratio(
        [np.maximum(ours, 1e-9) for ours, _ in walls], [other for _, other in walls], margin=timing.margin, seed=0
    )
    return as_ratio(found, timing.variants[index], timing.variants[baseline], timing.margin)


def bytes_of(variant: Variant) -> float:
    """Return the bytes of a model's files."""
    return next(each.value for each in size(variant.model) if each.name == "bytes" and each.value is not None)


def judge_figures(kind: Contest, timing: Timing, entries: list[Entry], several: Ratio | None) -> tuple[list[str], Any]:
    """Return a line for each figure asked for, and the same for programs: 0 ours, 1 eager, 2 untouched, 3 empty."""
    found: dict[str, Any] = {"untouched": timing.ratio(0, 2), "eager": timing.ratio(0, 1)}
    lines = [_line(kind.untouched, found["untouched"], "the best untouched variant")]
    if kind.eager is not None:
        lines.insert(0, _line(kind.eager, found["eager"], "PyTorch eager in fp32"))
    if kind.without_call is not None:
        found["without_call"] = without(timing, 0, 2, 3)
        what = "the best untouched variant, the engine's empty call subtracted from both"
        lines.append(_line(kind.without_call, found["without_call"], what))
    if kind.several is not None and several is not None:
        found["several"] = several
        what = f"the best untouched variant at batch {kind.several[0]}"
        lines.append(_line(kind.several[1], several, what))
    if kind.smaller is not None:
        variants = [entries[1].variant, entries[0].variant]
        sizes = [bytes_of(variant) for variant in variants if variant is not None]
        found["smaller"] = sizes[0] / sizes[1]
        told = f"at least {kind.smaller:g}× smaller: {sizes[0]:,.0f} to {sizes[1]:,.0f} bytes, {found['smaller']:.1f}×"
        lines.append(pages.kept(found["smaller"] >= kind.smaller, told))
    return lines, found


def _line(wanted: float, found: Ratio, what: str) -> str:
    met = 1 / found.high >= wanted
    return pages.kept(met, f"at least {wanted:g}× as fast as {what} (lower bound): {pages.faster(found)}")


def at_batch(kind: Contest, asset: assets.Asset, here: Course, ours: Entry, given: argparse.Namespace) -> Ratio | None:
    """Return the ratio of the winner's times to those of the best untouched variant at the larger batch."""
    if kind.several is None or ours.variant is None:
        return None
    batch = str(kind.several[0])
    more = ("--maximize", "throughput", "--batch", batch, "--budget", "5m")
    only = [word for name in UNTOUCHED for word in ("--only", name)]
    found = optimize(kind, asset, here.folder / f"untouched-{batch}", *more, *only)
    there = contest.course(asset, found, here.folder / f"batch-{batch}")
    rival = Entry(name="best untouched", command=found.command, variant=found.result.untouched.variant)
    return contest.timed([ours, rival], there, given.seconds / 2, given.processes).ratio(0, 1)


def rows(entries: list[Entry], timing: Timing) -> list[list[str]]:
    """Return a line of the table for everyone."""
    found = []
    for place, entry in enumerate(entries):
        speed = "1" if place == 2 else pages.faster(timing.ratio(place, 2))
        assert entry.variant is not None
        weight = f"{bytes_of(entry.variant):,.0f}"
        found.append([entry.name, f"{1e3 * median_s(timing, place):.3f}", speed, weight, difference(entry.quality)])
    return found


def run(name: str, given: argparse.Namespace) -> None:
    """Search, time and publish one network."""
    kind, asset = CONTESTS[name], assets.prepare(name)
    budget = given.budget or kind.budget
    folder = contest.kept(given.folder or WORK / "trained" / name, asset, budget)
    search = optimize(kind, asset, folder / "ours", *kind.goal, "--train", str(asset.data), "--budget", budget)
    here = contest.course(asset, search, folder)
    ours, untouched = contest.ours(search, here), search.result.untouched.variant
    if ours.variant is None or untouched is None:
        raise SystemExit(ours.reason)
    assert search.result.winner is not None
    entries = [
        replace(ours, name=f"trimtab: {search.result.winner}"),
        contest.judged(Entry(name="PyTorch eager fp32, as given", command="", variant=here.original), here),
        contest.judged(Entry(name=f"best untouched: {untouched.label()}", command="", variant=untouched), here),
        Entry(name="an empty call", command="", variant=empty_call(ours.variant, folder / "empty")),
    ]
    timing = contest.timed(entries, here, given.seconds, given.processes)
    told, figures = judge_figures(kind, timing, entries, at_batch(kind, asset, here, ours, given))
    columns = ("", "median ms", "speed over the best untouched (95 %)", "bytes", here.change)
    split = here.task.split("certify")
    body = [
        f"Goal: {here.task.metric} at most {100 * (here.goal.max_drop or 0):g} pt below the model as given, proven at "
        f"95 % on {len(split) if split else 0:,} items that the search never saw.", "",
        *pages.table(columns, rows(entries, timing), right=(1, 2, 3)), "", *told, "", *spent_lines(search), "",
        f"Timed in turn, {len(timing.wall_s)} fresh processes each; ours against itself: "
        f"{pages.times(timing.self_test())}, {timing.self_test().verdict}.", "", "```sh", search.command, "```",
    ]  # fmt: skip
    data = {"model": name, "search": shares(search), "figures": figures, "self_test": timing.self_test(),
            "entries": entries, "command": search.command}  # fmt: skip
    pages.publish(f"trained-{name}", kind.title, body, data, given.results)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", choices=CONTESTS)
    parser.add_argument("--budget", help="of the search; an hour for fashion, 20 and 40 minutes for the others")
    parser.add_argument("--seconds", type=float, default=150.0, help="for the timing session")
    parser.add_argument("--processes", type=int, default=5, help="the fewest fresh processes per variant")
    parser.add_argument("--folder", type=Path, help="where work is kept; benchmarks/work/trained/MODEL")
    parser.add_argument("--results", type=Path, default=pages.RESULTS)
    pages.own_home()
    given = parser.parse_args()
    run(given.model, given)


if __name__ == "__main__":
    main()
