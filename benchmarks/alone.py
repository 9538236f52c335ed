"""One search against each technique alone: python benchmarks/alone.py mnist|fashion

The search of `trained.py` beside torch-pruning with fine-tuning by its own recipe, NNCF's post-training quantization,
NNCF's quantization-aware training and plain distillation into a MobileNetV2: the same items, each the same time to
learn in, judged by the same certificate, timed in turn in one session on ONNX Runtime and OpenVINO. Resumable; work is
kept in benchmarks/work/trained/, where `trained.py` keeps its own.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

import assets
import contest
import pages
import trained
from against_peers import Standing, difference, shares, spent_lines, standings
from contest import Course, Entry, Peer
from pages import WORK
from trimtab.core.files import make_folder
from trimtab.core.protocols import Array
from trimtab.core.values import Settings
from trimtab.core.words import seconds as seconds_of
from trimtab.data.batches import batches, labels

SHIFT = 2  # pixels: what every peer's images are shifted by at random while it learns
NAMES = {"mnist": "the MNIST classifier", "fashion": "ResNet-18 on Fashion-MNIST"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pupil(Peer):
    """A peer that trains, on the items of a file, for some seconds."""

    items: Path
    seconds: float

    def command(self, asset: assets.Asset, output: Path) -> list[str]:
        """Return the command line that makes the peer's model and runs alone."""
        given = Peer.command(self, asset, output)
        return [*given, "--train", str(self.items), "--seconds", f"{self.seconds:g}"]


def pupils(items: Path, seconds: float) -> tuple[Pupil, ...]:
    """Return the peers that train."""
    shift = ("--shift", str(SHIFT))
    usual = {"torch": True, "items": items, "seconds": seconds}
    return (
        Pupil(name="torch-pruning, 2.11× fewer MACs (its script's)", script="prune_and_tune", flags=shift, **usual),
        Pupil(name="torch-pruning, 6× fewer MACs", script="prune_and_tune", flags=("--speed-up", "6", *shift), **usual),
        Pupil(name="NNCF quantization-aware training", script="nncf_qat", flags=shift, **usual),
        Pupil(name="distillation into MobileNetV2 × 0.25", script="distil_mobilenetv2", flags=shift, **usual),
    )


def kept_items(here: Course, path: Path) -> Path:
    """Write the items that everybody learns on and chooses by, prepared for the model, and return the file."""
    if not path.is_file():
        held: dict[str, Array] = {}
        for name in ("train", "select"):
            split = here.task.split(name)
            assert split is not None
            held[name] = np.concatenate([next(iter(feed.values())) for feed in batches(here.task, split, 1000)])
            held[f"{name}_labels"] = labels(split)
        make_folder(path.parent)
        np.savez(path, **held)
    return path


def on_openvino(entry: Entry, here: Course) -> Entry:
    """Return the same model on OpenVINO as it comes, judged."""
    assert entry.variant is not None
    variant = entry.variant.on(Settings(runtime="openvino"))
    return contest.judged(replace(entry, name=f"{entry.name}, OpenVINO", variant=variant), here)


def rivals(here: Course, asset: assets.Asset, seconds: float) -> list[Entry]:
    """Return what each technique alone makes."""
    items = kept_items(here, here.folder / "items.npz")
    found = [contest.made(contest.Peer(name="NNCF post-training int8", script="nncf_int8"), here)]
    for peer in pupils(items, seconds):
        entry = contest.made(peer, here)
        found.append(entry)
        if entry.variant is not None and entry.variant.settings.runtime == "onnxruntime":
            found.append(on_openvino(entry, here))
    return found


def row(one: Standing) -> list[str]:
    """Return the line of a table for one that took part, struck through when it doesn't pass."""
    entry = one.entry
    assert entry.variant is not None or entry.reason
    weight = "" if entry.variant is None else f"{trained.bytes_of(entry.variant):,.0f}"
    shown = [
        f"**{entry.name}**" if one.over_ours is None and entry.passes else entry.name,
        "" if one.latency_s is None else f"{1000 * one.latency_s:.3f}",
        pages.times(one.over_ours) if one.over_ours else ("1" if one.latency_s is not None else ""),
        weight,
        difference(entry.quality),
    ]
    return [*(shown if entry.passes else map(pages.struck, shown)), "proven" if entry.passes else entry.reason]


def run(name: str, given: argparse.Namespace) -> None:
    """Search, let everybody learn, time and publish."""
    kind, asset = trained.CONTESTS[name], assets.prepare(name)
    budget = given.budget or kind.budget
    folder = contest.kept(given.folder or WORK / "trained" / name, asset, budget)
    search = trained.optimize(kind, asset, folder / "ours", *kind.goal, "--train", str(asset.data), "--budget", budget)
    here = contest.course(asset, search, folder)
    entries = [contest.ours(search, here), *rivals(here, asset, seconds_of(budget))]
    if entries[0].variant is None:
        raise SystemExit(entries[0].reason)
    timing = contest.timed(entries, here, given.seconds, given.processes)
    found = standings(entries, timing)
    passing = [one for one in found if one.over_ours is not None and one.entry.passes]
    slower = [one for one in passing if one.over_ours is not None and one.over_ours.low > 1]
    columns = ("", "median ms", "time / ours (95 %)", "bytes", here.change, "verdict")
    split, self_test = here.task.split("certify"), timing.self_test()
    body = [
        f"Goal: {here.task.metric} at most {100 * (here.goal.max_drop or 0):g} pt below the model as given, proven at "
        f"95 % on {len(split) if split else 0:,} items that nobody learnt from; {here.goal.workload.batch} items a "
        f"call. Everybody may learn for {budget}. Struck through: not proven.", "",
        *pages.table(columns, [row(one) for one in found], right=(1, 2, 3, 4)), "",
        pages.kept(len(slower) == len(passing), f"faster than each technique alone that is proven to keep the goal: "
                   f"{len(slower)} of {len(passing)} are slower, their whole interval above 1"), "",
        *spent_lines(search), "",
        f"Timed in turn, {len(timing.wall_s)} fresh processes each; ours against itself: {pages.times(self_test)}, "
        f"{self_test.verdict}.", "", "Each runs alone:", "", "```sh", *(entry.command for entry in entries), "```",
    ]  # fmt: skip
    data = {"model": name, "search": shares(search), "self_test": self_test, "entries": found,
            "slower": len(slower), "passing": len(passing)}  # fmt: skip
    pages.publish(f"alone-{name}", f"Each technique alone, and the search: {NAMES[name]}", body, data, given.results)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", choices=NAMES)
    parser.add_argument("--budget", help="of the search and of everybody's learning; the one of trained.py")
    parser.add_argument("--seconds", type=float, default=240.0, help="for the timing session")
    parser.add_argument("--processes", type=int, default=5, help="the fewest fresh processes per variant")
    parser.add_argument("--folder", type=Path, help="where work is kept; benchmarks/work/trained/MODEL")
    parser.add_argument("--results", type=Path, default=pages.RESULTS)
    given = parser.parse_args()
    pages.own_home()
    run(given.model, given)


if __name__ == "__main__":
    main()
