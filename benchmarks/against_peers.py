"""One command against the peers: python benchmarks/against_peers.py mnist|mobilenet|minilm|digits

`trimtab optimize` searches, every peer makes its model by its documented defaults, all are judged by the same
certificate on the same items, and all that answer are timed in turn in one session of fresh processes each. A run that
was killed goes on where it was; work is kept in benchmarks/work/contests/.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import assets
import contest
import pages
from contest import Course, Entry, Search
from pages import WORK
from trimtab.core.values import NoWorse, Ratio
from trimtab.workbench.timing import Timing

WITHIN, AHEAD = 1.03, 0.95
TITLES = {
    "mnist": "MNIST classifier (two convolutions), 28², batch 1",
    "mobilenet": "MobileNetV2 with a linear head on Fashion-MNIST, 224², batch 1",
    "minilm": "MiniLM with a linear head on BBC news, 128 tokens, batch 1",
    "digits": "The digits demo (75.6 MMACs a call), 8², batch 1",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How one that took part stands: its time and ours over its time, None when it could not be timed."""

    entry: Entry
    over_ours: Ratio | None = None
    ours_over: Ratio | None = None
    latency_s: float | None = None


def standings(entries: list[Entry], timing: Timing) -> list[Standing]:
    """Return everyone, the fastest first; ours is the first entry, those that could not be timed come last."""
    found, place = [], 0
    for entry in entries:
        if entry.variant is None:
            found.append(Standing(entry=entry))
            continue
        latency = median_s(timing, place)
        ratios = (timing.ratio(place, 0), timing.ratio(0, place)) if place else (None, None)
        found.append(Standing(entry=entry, over_ours=ratios[0], ours_over=ratios[1], latency_s=latency))
        place += 1
    return sorted(found, key=lambda one: one.latency_s if one.latency_s is not None else float("inf"))


def median_s(timing: Timing, place: int) -> float:
    """Return the median of the block times of one variant over all its processes, in seconds."""
    import numpy as np

    return float(np.median(np.concatenate([wall[place] for wall in timing.wall_s])))


EXTRA = "unsigned activations"  # not onnxruntime's default, but what its users find out sooner or later


def fastest_passing(found: list[Standing], extras: bool = False) -> Standing | None:
    """Return the fastest peer that is proven to keep the goal, by the ratio of the session, None when none is.

    Peers run by their documented defaults; `extras` counts those that somebody tuned by hand as well.
    """
    passing = [one for one in found if one.over_ours is not None and one.entry.passes]
    passing = [one for one in passing if extras or EXTRA not in one.entry.name]
    return min(passing, key=lambda one: one.over_ours.value, default=None) if passing else None


def reason(found: list[Standing], rival: Standing, ours: Entry) -> str:
    """Return where our lead or lag comes from: what ours is, what the rival is, who was faster than it but fails."""
    assert ours.variant is not None
    better = [
        one.entry for one in found
        if not one.entry.passes and one.over_ours is not None and one.over_ours.value < rival.over_ours.value
    ]  # fmt: skip
    told = f"ours is {ours.variant.label()}; the fastest peer that passes is {rival.entry.name}"
    lost = "; ".join(f"{entry.name} {entry.reason}" for entry in better)
    return told + (f"; faster than that but failing: {lost}" if lost else "")


def row(one: Standing) -> list[str]:
    """Return the line of a table for one that took part, struck through when it doesn't pass."""
    entry, quality = one.entry, one.entry.quality
    shown = [
        f"**{entry.name}**" if one.over_ours is None and entry.passes else entry.name,
        "" if one.latency_s is None else f"{1000 * one.latency_s:.3f}",
        pages.times(one.over_ours) if one.over_ours else ("1" if one.latency_s is not None else ""),
        difference(quality),
        f"{entry.seconds:.0f}" if entry.seconds else "",
    ]
    return [*(shown if entry.passes else map(pages.struck, shown)), "proven" if entry.passes else entry.reason]


def difference(quality: NoWorse | None) -> str:
    """Return the change of the metric with its interval, in points."""
    if quality is None:
        return ""
    low, value, high = (100 * part for part in (quality.low, quality.difference, quality.high))
    return f"{value:+.2f} ({low:+.2f} to {high:+.2f})"


def spent_lines(found: Search) -> list[str]:
    """Return how long the search took, and which share made the winner and measured the finalists."""
    share = shares(found)
    clock = "not known by the clock, it was continued" if found.seconds is None else f"{found.seconds:.0f} s"
    return [
        f"The whole search took {clock}: {share['trials']} variants tried, "
        f"{100 * share['winner']:.0f} % of the time went into making and trying the winner, "
        f"{100 * share['final']:.0f} % into proof, final timing and measurements."
    ]


def shares(found: Search) -> dict[str, Any]:
    """Return seconds and shares of a whole search (figure 3)."""
    spent = dict(found.result.spent)
    total = sum(seconds for name, seconds in spent.items() if not name.startswith("of it"))
    final = total - spent.get("searching", 0.0)
    return {
        "seconds": found.seconds, "accounted_s": total, "trials": len(found.result.trials),
        "winner": spent.get("of it for the winner", 0.0) / total, "final": final / total, "spent": spent,
    }  # fmt: skip


def verdicts(found: list[Standing], ours: Entry) -> tuple[list[str], dict[str, Any]]:
    """Return the lines that say whether the figure was met, and the same for programs."""
    rival = fastest_passing(found)
    if rival is None or rival.ours_over is None or not ours.passes:
        return [pages.kept(False, ours.reason or "no peer passes")], {"rival": None, "ratio": None}
    ratio, why = rival.ours_over, reason(found, rival, ours)
    lines = [
        pages.kept(ratio.high <= WITHIN, f"at most {WITHIN}× (upper bound) the time of the fastest peer that passes, "
                   f"{rival.entry.name}: {pages.times(ratio)}"),
        f"- at most {AHEAD}× of it: {'yes' if ratio.high <= AHEAD else 'no'}; {why}.",
    ]  # fmt: skip
    tuned = fastest_passing(found, extras=True)
    if tuned is not None and tuned.ours_over is not None and tuned is not rival:
        lines.append(
            f"- beside the figure: a peer tuned by hand, {tuned.entry.name}, is not among the documented defaults; "
            f"ours takes {pages.times(tuned.ours_over)} its time"
        )
    held = {"rival": rival.entry.name, "ratio": ratio, "within": ratio.high <= WITHIN, "ahead": ratio.high <= AHEAD}
    return lines, held | {"reason": why}


def page(here: Course, search: Search, found: list[Standing], timing: Timing, commands: list[str]) -> list[str]:
    """Return the body of the results page."""
    ours = next(one.entry for one in found if one.entry.name == "trimtab")
    split = here.task.split("certify")
    columns = ("", "median ms", "time / ours (95 %)", here.change, "made in s", "verdict")
    self_test = timing.self_test()
    return [
        f"Goal: {here.task.metric} at most {100 * (here.goal.max_drop or 0):g} pt below the model as given, proven at "
        f"95 % on {len(split) if split else 0:,} items that nobody was made with. Struck through: not proven.", "",
        *pages.table(columns, [row(one) for one in found], right=(1, 2, 3, 4)), "",
        *verdicts(found, ours)[0], "",
        *spent_lines(search), "",
        f"Timed in turn in blocks of about 15 ms, {len(timing.wall_s)} fresh processes each; ours against itself: "
        f"{pages.times(self_test)}, {self_test.verdict}.", "",
        "Each runs alone:", "", "```sh", *commands, "```",
    ]  # fmt: skip


def run(name: str, budget: str, seconds: float, folder: Path, results: Path, processes: int) -> None:
    """Run the whole contest on one model and publish it."""
    asset = assets.prepare(name)
    folder = contest.kept(folder, asset, budget)
    output = folder / "ours"
    command = ["trimtab", "optimize", str(asset.model), "--data", str(asset.data), *asset.options]
    search = contest.search([*command, "--max-drop", "1pt", "--budget", budget, "--output", str(output)], output)
    here = contest.course(asset, search, folder)
    entries = [contest.ours(search, here), *(contest.made(peer, here) for peer in contest.peers(asset))]
    if entries[0].variant is None:
        raise SystemExit(entries[0].reason)
    timing = contest.timed(entries, here, seconds, processes)
    found = standings(entries, timing)
    commands = [entry.command for entry in entries]
    data = {
        "model": name, "search": shares(search), "figure": verdicts(found, entries[0])[1],
        "self_test": timing.self_test(), "entries": found, "commands": commands,
    }  # fmt: skip
    pages.publish(f"peers-{name}", TITLES[name], page(here, search, found, timing, commands), data, results)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", choices=TITLES)
    parser.add_argument("--budget", help="of the search; 50s for digits, else 9m, so that the whole stays below 10")
    parser.add_argument("--seconds", type=float, default=240.0, help="for the timing session")
    parser.add_argument("--processes", type=int, default=5, help="the fewest fresh processes per variant")
    parser.add_argument("--folder", type=Path, help="where work is kept; benchmarks/work/contests/MODEL")
    parser.add_argument("--results", type=Path, default=pages.RESULTS)
    given = parser.parse_args()
    pages.own_home()
    budget = given.budget or ("50s" if given.model == "digits" else "9m")
    folder = given.folder or WORK / "contests" / given.model
    run(given.model, budget, given.seconds, folder, given.results, given.processes)


if __name__ == "__main__":
    main()
