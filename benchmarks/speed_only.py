"""Speed only, on random weights: python benchmarks/speed_only.py resnet50|minilm

Networks as transformers configures them, their batch-norm statistics set from data; nothing is known about accuracy.
What is proven is that the outputs stay within a relative error of 5 %. `trimtab optimize`, PyTorch eager in fp32 and
raw OpenVINO + NNCF are timed in turn in one session. Resumable; work is kept in benchmarks/work/speed/.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import assets
import contest
import pages
from against_peers import difference, median_s, shares, spent_lines
from contest import Entry, Peer
from pages import WORK
from trimtab.core.values import Ratio
from trimtab.workbench.timing import Timing

OF_NNCF = 0.97
EAGER = Peer(name="PyTorch eager fp32", script="torch_eager", torch=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Contest:
    """A network, and the speed-up over PyTorch eager fp32 that is asked for on two cores with AMX."""

    asset: str
    title: str
    wanted: float
    options: tuple[str, ...] = ()


CONTESTS = {
    "resnet50": Contest(asset="resnet50", title="ResNet-50, 224², batch 1", wanted=8.0),
    "minilm": Contest(
        asset="minilm-random", title="MiniLM, 128 tokens, batch 1", wanted=2.5, options=("--length", "tokens=128")
    ),
}


def lines(entries: list[Entry], timing: Timing, wanted: float) -> tuple[list[str], dict[str, Ratio | None]]:
    """Return whether the figure was met, in words, and its two ratios of times."""
    over_eager = timing.ratio(0, 1)
    over_nncf = timing.ratio(0, 2) if entries[2].variant is not None else None
    found = [
        pages.kept(1 / over_eager.high >= wanted,
                   f"at least {wanted}× as fast as PyTorch eager fp32 (lower bound; asked for on two cores with AMX): "
                   f"{pages.faster(over_eager)}"),
    ]  # fmt: skip
    if over_nncf is None:
        found.append(pages.kept(False, f"OpenVINO + NNCF {entries[2].reason}"))
    else:
        met = 1 / over_nncf.high >= OF_NNCF
        found.append(
            pages.kept(met, f"at least {OF_NNCF}× the speed of raw OpenVINO + NNCF: {pages.faster(over_nncf)}")
        )
    return found, {"over_eager": over_eager, "over_nncf": over_nncf}


def rows(entries: list[Entry], timing: Timing) -> list[list[str]]:
    """Return a line of the table for everyone; those that are not proven to keep the error are struck through."""
    found, place = [], 0
    for entry in entries:
        cells = [entry.name, "", "", difference(entry.quality)]
        if entry.variant is not None:
            speed = "1" if place == 1 else pages.faster(timing.ratio(place, 1))
            cells[1:3] = [f"{1000 * median_s(timing, place):.3f}", speed]
            place += 1
        verdict = "proven" if entry.passes else entry.reason
        found.append([*(cells if entry.passes else map(pages.struck, cells)), verdict])
    return found


def seen(asset: assets.Asset) -> str:
    """Return who was calibrated on what it is judged by, in words; empty where nobody was."""
    if asset.calibration != asset.data:
        return ""
    return (
        " Nothing has labels here and there is one set of items: OpenVINO + NNCF calibrates on all of them, those that "
        "certify included; trimtab only on those that do not."
    )


def run(given: argparse.Namespace) -> None:
    """Search, make, judge, time and publish one network."""
    kind = CONTESTS[given.model]
    asset = assets.prepare(kind.asset)
    folder = contest.kept(given.folder or WORK / "speed" / given.model, asset, given.budget)
    output = folder / "ours"
    command = ["trimtab", "optimize", str(asset.model), "--data", str(asset.data), *asset.options, *kind.options]
    search = contest.search([*command, "--budget", given.budget, "--output", str(output)], output)
    here = contest.course(asset, search, folder)
    nncf = next(peer for peer in contest.peers(asset) if peer.script == "nncf_int8")
    entries = [contest.ours(search, here), contest.made(EAGER, here), contest.made(nncf, here)]
    for entry in entries[:2]:
        if entry.variant is None:
            raise SystemExit(f"{entry.name}: {entry.reason}")
    entries[0] = replace(entries[0], name=f"trimtab: {entries[0].variant.label()}")
    timing = contest.timed(entries, here, given.seconds, given.processes)
    columns = ("", "median ms", "speed over eager (95 %)", here.change, "verdict")
    told, ratios = lines(entries, timing, kind.wanted)
    commands = [entry.command for entry in entries]
    body = [
        "**Speed only**: random weights, so nothing is known about accuracy. The outputs are proven to stay within a "
        f"relative error of {100 * (here.goal.max_drop or 0):g} % of the model as given.{seen(asset)}", "",
        *pages.table(columns, rows(entries, timing), right=(1, 2, 3)), "", *told, "", *spent_lines(search), "",
        f"Timed in turn, {len(timing.wall_s)} fresh processes each; ours against itself: "
        f"{pages.times(timing.self_test())}, {timing.self_test().verdict}.", "", "```sh", *commands, "```",
    ]  # fmt: skip
    data = {"model": given.model, "search": shares(search), "figure": ratios, "wanted": kind.wanted,
            "self_test": timing.self_test(), "entries": entries, "commands": commands}  # fmt: skip
    pages.publish(f"speed-{given.model}", f"Speed only: {kind.title}", body, data, given.results)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", choices=CONTESTS)
    parser.add_argument("--budget", default="9m", help="of the search")
    parser.add_argument("--seconds", type=float, default=150.0, help="for the timing session")
    parser.add_argument("--processes", type=int, default=5, help="the fewest fresh processes per variant")
    parser.add_argument("--folder", type=Path, help="where work is kept; benchmarks/work/speed/MODEL")
    parser.add_argument("--results", type=Path, default=pages.RESULTS)
    pages.own_home()
    run(parser.parse_args())


if __name__ == "__main__":
    main()
