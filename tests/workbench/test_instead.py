"""What it would have cost to protect accuracy, counted by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from trimtab.core.values import Split, Task, Trial
from trimtab.data.arrays import save_array
from trimtab.search.race import Race
from trimtab.workbench.instead import instead
from trimtab.workbench.proof import answers_file

# select: accuracy alone is best at 0.5; the two positives at 0.2 and 0.3 cost it two mistakes of ten
SELECT = ([0, 0, 0, 0, 0, 0, 1, 1, 1, 1], [0.1, 0.1, 0.1, 0.25, 0.35, 0.4, 0.2, 0.3, 0.8, 0.9])
CERTIFY = ([0, 0, 0, 1, 1], [0.1, 0.3, 0.7, 0.2, 0.9])


def split(name: str, labels: list[int], folder: Path) -> Split:
    rows = save_array("rows", folder / f"{name}-rows.npy", np.arange(len(labels)))
    kept = save_array("labels", folder / f"{name}-labels.npy", np.array(labels))
    return Split(name=name, inputs=(), rows=rows, labels=kept, digest=name)


@pytest.fixture
def race(over: Race, tmp_path: Path) -> Race:
    """A race about recall, at the threshold 0.15, whose original answered the select split as above."""
    splits = (split("select", SELECT[0], tmp_path), split("certify", CERTIFY[0], tmp_path))
    task = Task(kind="binary", splits=splits, metric="recall", threshold=0.15, logits=False, classes=("ham", "spam"))
    over.shop = replace(over.shop, task=task)
    over.outputs = np.array(SELECT[1])
    return over


@pytest.fixture
def winner(race: Race, enter: Callable[..., Trial], tmp_path: Path) -> Trial:
    """A trial that answers the certify split as above; its model is never run."""
    trial = enter("bf16")
    certify = race.shop.task.split("certify")
    assert certify is not None
    assert trial.variant is not None
    path = answers_file(tmp_path, trial.variant, certify)
    path.parent.mkdir()
    np.save(path, np.array(CERTIFY[1]))
    return trial


def test_both_thresholds_are_counted_on_the_certify_split(race: Race, winner: Trial, tmp_path: Path) -> None:
    (note,) = instead(race, winner, tmp_path)
    ours, other = note.split("; protecting accuracy instead ")
    assert ours == "protecting recall (threshold 0.15): 0 of 2 missed, 2 false alarms, accuracy 0.6000"
    assert other.startswith("(threshold 0.")
    assert "): 1 of 2 missed, 1 false alarms, accuracy 0.6000; counted on the 5 items of the certify split" in other


def test_with_costs_it_is_said_in_money_per_item(race: Race, winner: Trial, tmp_path: Path) -> None:
    race.shop = replace(race.shop, task=replace(race.shop.task, metric="cost", costs=(10.0, 1.0)))
    (note,) = instead(race, winner, tmp_path)
    assert note.startswith("protecting the costs (threshold 0.15): 0 of 2 missed, 2 false alarms, accuracy 0.6000, ")
    assert "cost 0.4 per item" in note, "two false alarms of five items"
    assert "cost 2.2 per item" in note, "one miss and one false alarm"


def test_the_other_class_may_be_the_one_of_interest(race: Race, winner: Trial, tmp_path: Path) -> None:
    race.shop = replace(race.shop, task=replace(race.shop.task, positive=0, threshold=0.5))
    (note,) = instead(race, winner, tmp_path)
    assert note.startswith("protecting recall (threshold 0.5): 1 of 3 missed, 1 false alarms, accuracy 0.6000")


def test_a_task_that_protects_accuracy_anyway_or_has_no_threshold_needs_no_note(
    race: Race, winner: Trial, tmp_path: Path
) -> None:
    task = race.shop.task
    unlabelled = tuple(replace(part, labels=None) for part in task.splits)
    for other in (
        replace(task, metric="accuracy"),
        replace(task, kind="classification"),
        replace(task, splits=task.splits[:1]),
        replace(task, splits=unlabelled),
        Task(),
    ):
        race.shop = replace(race.shop, task=other)
        assert instead(race, winner, tmp_path) == ()
