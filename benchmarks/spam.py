"""A miss costs more than a false alarm: python benchmarks/spam.py

E-mails, a third of them spam, and a small network that says how likely each is spam. The goal protects recall, a miss
costs ten times a false alarm, and the threshold is tuned for that on the select split. The page shows what was won,
and what it would have cost to protect accuracy instead. Resumable; work is kept in benchmarks/work/spam/.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

import assets
import contest
import pages
from against_peers import shares, spent_lines
from contest import Course, Search
from pages import WORK
from trimtab.core.protocols import Array
from trimtab.core.values import Task, Variant
from trimtab.data.batches import labels as labels_of
from trimtab.meters.predict import answers
from trimtab.meters.quality import tune_threshold
from trimtab.workbench.proof import answers_on

COST = "miss=10, false-alarm=1"


def outputs(here: Course, variant: Variant, name: str) -> tuple[Array, Array]:
    """Return a variant's outputs on a split and the labels."""
    split = here.task.split(name)
    labels = labels_of(split) if split is not None else None
    if split is None or labels is None:
        raise SystemExit(f"the e-mails have no labelled {name} split")
    return answers_on(here.task, split, variant, here.goal, here.folder), np.asarray(labels)


def counted(task: Task, labels: Array, given: Array) -> dict[str, float]:
    """Return what a threshold makes of the items: recall, precision, accuracy, mistakes and their cost per 1,000."""
    said, spam = answers(task, given) == task.positive, labels == task.positive
    misses, alarms = int((spam & ~said).sum()), int((said & ~spam).sum())
    miss, alarm = task.costs or (1.0, 1.0)
    return {
        "threshold": 0.5 if task.threshold is None else task.threshold, "recall": 1 - misses / max(1, int(spam.sum())),
        "precision": float((said & spam).sum() / max(1, int(said.sum()))), "accuracy": float((said == spam).mean()),
        "misses": misses, "false_alarms": alarms, "cost_per_1000": 1000 * (misses * miss + alarms * alarm) / len(spam),
    }  # fmt: skip


def choices(here: Course, winner: Variant) -> dict[str, dict[str, float]]:
    """Return the winner's mistakes at the tuned threshold and at the one that is best for accuracy, and the original's.

    Both thresholds are tuned, as in the report, on the original's answers to the select split; mistakes are counted on
    the certify split.
    """
    task = here.task
    selected, select_labels = outputs(here, here.original, "select")
    plain = replace(task, metric="accuracy", costs=None, threshold=None)
    for_accuracy = replace(task, threshold=tune_threshold(plain, select_labels, selected))
    certified, labels = outputs(here, winner, "certify")
    original, _ = outputs(here, here.original, "certify")
    return {
        "the original at 0.5": counted(replace(task, threshold=0.5), labels, original),
        "the original, threshold tuned for the cost": counted(task, labels, original),
        "ours, threshold tuned for the cost": counted(task, labels, certified),
        "ours, threshold tuned for accuracy instead": counted(for_accuracy, labels, certified),
    }


def body(here: Course, search: Search, found: dict[str, dict[str, float]]) -> list[str]:
    """Return the page."""
    result = search.result
    columns = ("", "threshold", "recall", "precision", "accuracy", "misses", "false alarms", "cost per 1,000")
    rows = [
        [name, f"{c['threshold']:.3f}", *(f"{100 * c[key]:.2f} %" for key in ("recall", "precision", "accuracy")),
         f"{c['misses']:.0f}", f"{c['false_alarms']:.0f}", f"{c['cost_per_1000']:.1f}"]
        for name, c in found.items()
    ]  # fmt: skip
    ours, instead = (found[f"ours, threshold tuned for {what}"] for what in ("the cost", "accuracy instead"))
    split = here.task.split("certify")
    return [
        f"Goal: {here.task.metric} at most {100 * (here.goal.max_drop or 0):g} pt below the original; mistakes cost "
        f"`{COST}`. {result.verdict}", "",
        *pages.table(columns, rows, right=range(1, 8)), "",
        "Thresholds are tuned on the original's answers to the select split, mistakes counted on the "
        f"{len(split) if split else 0:,} e-mails of the certify split. Protecting accuracy instead "
        f"would have meant {instead['misses'] - ours['misses']:+.0f} misses, "
        f"{instead['false_alarms'] - ours['false_alarms']:+.0f} false alarms and a cost of "
        f"{instead['cost_per_1000']:.1f} instead of {ours['cost_per_1000']:.1f} per 1,000 e-mails.", "",
        *[f"The report says: {note}" for note in result.notes], "" if result.notes else
        "The report says nothing about it.", *spent_lines(search), "", "```sh", search.command, "```",
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--budget", default="2m", help="of the search")
    parser.add_argument("--folder", type=Path, default=WORK / "spam", help="where work is kept")
    parser.add_argument("--results", type=Path, default=pages.RESULTS)
    given = parser.parse_args()
    pages.own_home()
    asset = assets.prepare("spam")
    folder = contest.kept(given.folder, asset, given.budget)
    output = folder / "ours"
    command = ["trimtab", "optimize", str(asset.model), "--data", str(asset.data), *asset.options, "--cost", COST]
    search = contest.search([*command, "--max-drop", "1pt", "--budget", given.budget, "--output", str(output)], output)
    here = contest.course(asset, search, folder)
    winner = next((trial.variant for trial in search.result.trials if trial.name == search.result.winner), None)
    if winner is None:
        raise SystemExit(f"nothing was proven: {search.result.verdict}")
    found = choices(here, winner)
    data = {"choices": found, "notes": search.result.notes, "search": shares(search),
            "certificate": search.result.certificate, "command": search.command}  # fmt: skip
    pages.publish("spam", "Spam e-mails: what a miss costs", body(here, search, found), data, given.results)


if __name__ == "__main__":
    main()
