"""What it would have cost a binary task to protect accuracy instead of what was chosen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from trimtab.core.protocols import Array
from trimtab.core.values import Task, Trial
from trimtab.data.batches import labels as labels_of
from trimtab.meters.predict import answers
from trimtab.meters.quality import tune_threshold
from trimtab.search.race import Race
from trimtab.workbench.proof import answers_on


def instead(race: Race, winner: Trial, folder: Path) -> tuple[str, ...]:
    """Count the mistakes of the winner with the threshold of the goal and with the one that suits accuracy best.

    Both thresholds are tuned on the select split and counted on the certify split.
    """
    task = race.shop.task
    select, certify = task.split("select"), task.split("certify")
    chosen = task.kind == "binary" and task.labelled and (task.metric != "accuracy" or task.costs is not None)
    if not chosen or select is None or certify is None or winner.variant is None or race.outputs is None:
        return ()
    truth, labels = labels_of(select), labels_of(certify)
    if truth is None or labels is None:
        return ()
    threshold = tune_threshold(replace(task, metric="accuracy", costs=None), truth, race.outputs)
    outputs = answers_on(task, certify, winner.variant, race.goal, folder)
    ours, other = (_mistakes(each, labels, outputs) for each in (task, replace(task, threshold=threshold)))
    name = "the costs" if task.costs is not None else task.metric
    chosen_at = 0.5 if task.threshold is None else task.threshold
    return (
        f"protecting {name} (threshold {chosen_at:.3g}): {ours}; protecting accuracy instead (threshold "
        f"{threshold:.3g}): {other}; counted on the {len(certify)} items of the certify split",
    )


def _mistakes(task: Task, labels: Array, outputs: Array) -> str:
    """Return misses, false alarms, accuracy and, where costs are known, money per item, in words."""
    given = answers(task, outputs)
    positive, wrong = labels == task.positive, given != labels
    missed, alarms = int((positive & wrong).sum()), int((~positive & wrong).sum())
    words = f"{missed} of {int(positive.sum())} missed, {alarms} false alarms, accuracy {1 - wrong.mean():.4f}"
    if task.costs is not None:
        words += f", cost {(missed * task.costs[0] + alarms * task.costs[1]) / len(labels):.4g} per item"
    return words
