"""Is a variant worse than the original by more than is allowed? The one place that turns answers into that verdict.

Shares of items (accuracy, agreement, recall of the positive class) are judged by Tango's test, every other metric by
the paired bootstrap. See `stats/noninferiority.py` and `stats/bootstrap.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from trimtab.core.errors import BadInput
from trimtab.core.protocols import Array
from trimtab.core.values import Goal, NoWorse, Reading, Split, Task
from trimtab.data.batches import groups as groups_of
from trimtab.data.batches import labels as labels_of
from trimtab.meters import scores
from trimtab.meters.predict import answers, class_scores, positive_scores
from trimtab.meters.user_metric import user_metric
from trimtab.stats import bootstrap, holm, noninferiority, sequential, weighted
from trimtab.stats.bootstrap import Statistic, Weights

TALLIED = ("accuracy", "precision", "recall", "f1")
_SHARES = ("accuracy", "agreement", "top5", "precision_micro", "recall_micro", "f1_micro")
_WATCH_RISK = 0.01  # of giving up a candidate that is innocent


def judged_metric(task: Task) -> str:
    """Return the metric that is protected: without labels it is likeness to the original."""
    if task.labelled:
        return task.metric
    if task.kind in ("classification", "binary"):
        return "agreement"
    return task.metric if task.metric in ("cosine", "mse", "mae") else "relative_error"


def reference_labels(task: Task, split: Split, original: Array) -> Array:
    """Return the labels of a split; where there are none, what the original answers."""
    found = labels_of(split)
    return answers(task, original) if found is None else np.asarray(found)


def judge(
    task: Task, split: Split, labels: Array, original: Array, outputs: Array, *, goal: Goal, names: tuple[str, str]
) -> NoWorse:
    """Compare the outputs of a variant with those of the original, both one row per item of the split.

    `names` are the keys of the variant and of the original. A goal without `max_drop` proves nothing but is told the
    difference.
    """
    return judge_items(task, groups_of(split), labels, original, outputs, goal=goal, names=names)


def judge_items(
    task: Task,
    groups: Array | None,
    labels: Array,
    original: Array,
    outputs: Array,
    *,
    goal: Goal,
    names: tuple[str, str],
) -> NoWorse:
    """Judge like `judge`, on items that need not be one split: every array has a row per item."""
    metric = judged_metric(task)
    if task.kind in ("regression", "embedding") and labels.size != outputs.size:
        each = [array.size // max(len(array), 1) for array in (labels, outputs)]
        raise BadInput(
            f"the labels have {each[0]} values per item and the model's outputs {each[1]}, which can't be compared as "
            f"{task.kind}: check the labels, --output-name and --kind"
        )
    delta = goal.max_drop if goal.max_drop is not None else 0.5
    rights = _rights(task, metric, labels, original, outputs)
    kept = _concerned(task, metric, labels)
    old, new = rights[0][kept], rights[1][kept]
    if not kept.any():
        raise BadInput(f"no item is of the positive class {task.positive}, so its recall is not known: give more data")
    if _is_share(task, metric):
        pairs = noninferiority.count(old, new, None if groups is None else groups[kept])
        proof = noninferiority.prove(pairs, delta, goal.error)
        found = (proof.difference, proof.low, proof.high, proof.proven, proof.needed, "Tango's score test")
    else:
        shift = _shift(task, metric, labels, (original, outputs), delta, goal.error, groups)
        found = (shift.difference, shift.low, shift.high, shift.proven, shift.needed, "paired bootstrap (BCa)")
    difference, low, high, proven, needed, method = found
    changed = _flips(task, original, outputs)
    return NoWorse(
        metric=metric, variant=names[0], baseline=names[1], max_drop=delta, error=goal.error, method=method,
        items=int(kept.sum()), groups=int(kept.sum()) if groups is None else len(np.unique(groups[kept])),
        difference=difference, low=low, high=high, better=int((new & ~old).sum()), worse=int((old & ~new).sum()),
        flips=changed, proven=proven and goal.max_drop is not None, needed=needed,
        reason=_reason(metric, difference, delta, proven, needed, int(kept.sum())),
        harmed=_harmed(task, labels, original, outputs, groups),
    )  # fmt: skip


@dataclass(slots=True)
class Watch:
    """Looks at a candidate's answers as they come and says when they are too bad beyond doubt."""

    task: Task
    labels: Array
    original: Array
    max_drop: float | None
    _evidence: sequential.Evidence | None = field(init=False)

    def __post_init__(self) -> None:
        bet = self.max_drop is not None and _is_share(self.task, judged_metric(self.task))
        self._evidence = sequential.Evidence(delta=self.max_drop or 0.0, alpha=_WATCH_RISK) if bet else None

    def add(self, rows: slice, outputs: Array) -> str | None:
        """Take the outputs of some rows; return why the candidate is given up, or None."""
        if self._evidence is None:
            return None
        metric = judged_metric(self.task)
        labels = self.labels[rows]
        kept = _concerned(self.task, metric, labels)
        old, new = _rights(self.task, metric, labels, self.original[rows], outputs)
        self._evidence = sequential.watch(self._evidence, new[kept].astype(float) - old[kept].astype(float))
        if not self._evidence.dead:
            return None
        allowed, items = self._evidence.delta, self._evidence.items
        drop = self._evidence.total / items + allowed  # the evidence adds up losses beyond the allowed ones
        return f"loses about {100 * drop:.1f} pt of {metric} (seen on {items} items, allowed {100 * allowed:g} pt)"


def _is_share(task: Task, metric: str) -> bool:
    """Say whether the metric is the share of some items that are answered rightly."""
    return metric in _SHARES or (metric == "recall" and task.kind == "binary")


def _rights(task: Task, metric: str, labels: Array, original: Array, outputs: Array) -> tuple[Array, Array]:
    """Return which items each of the two gets right (for numbers: which one is nearer to the target)."""
    if metric == "top5":
        return scores.among_five(labels, original), scores.among_five(labels, outputs)
    if task.kind in ("classification", "binary"):
        return answers(task, original) == labels, answers(task, outputs) == labels
    wanted = labels.reshape(len(labels), -1)
    old, new = (np.abs(given.reshape(len(given), -1) - wanted).mean(axis=1) for given in (original, outputs))
    return old < new, new < old


def _concerned(task: Task, metric: str, labels: Array) -> Array:
    """Return which items the metric looks at: recall of the positive class only at the positive ones."""
    if metric == "recall" and task.kind == "binary":
        return np.asarray(labels == task.positive)
    return np.ones(len(labels), dtype=bool)


def _flips(task: Task, original: Array, outputs: Array) -> int:
    if task.kind not in ("classification", "binary"):
        return 0
    return int((answers(task, original) != answers(task, outputs)).sum())


def _shift(
    task: Task, metric: str, labels: Array, both: tuple[Array, Array], delta: float, error: float, groups: Array | None
) -> bootstrap.Shift:
    old, new = (_statistic(task, metric, labels, outputs) for outputs in both)
    sign = -1.0 if scores.lower_is_better(metric) else 1.0
    classes = labels if task.kind in ("classification", "binary") else None
    unseen = _unseen(task, metric, labels, both[1], error, groups)
    return bootstrap.prove(
        lambda weights: sign * (new(weights) - old(weights)),
        delta,
        np.ones(len(labels), dtype=np.int64),
        strata=classes,
        groups=groups,
        unseen=unseen,
        alpha=error,
    )


def _unseen(task: Task, metric: str, labels: Array, outputs: Array, error: float, groups: Array | None) -> float:
    """Return what changes of answers that never occurred in these items could take from the metric at most."""
    if metric == "cost":
        return max(_unseen_cost(task, label, labels, groups, error) for label in (0, 1))
    if metric.partition("_")[0] not in TALLIED:
        return 0.0
    count = scores.class_count(task, labels, outputs)
    seen = weighted.tally(labels, answers(task, outputs), count)(np.ones((1, len(labels))))
    units = [_units(labels == label, groups) for label in range(count)]
    return weighted.unseen_harm(seen, _tally_metric(task, metric), units, error)


def _unseen_cost(task: Task, label: int, labels: Array, groups: Array | None, error: float) -> float:
    """Return the money per item when answers to one class turn wrong as often as may go unseen (rule of three)."""
    concerned = labels == label
    if task.costs is None or not concerned.any():
        return 0.0
    miss, false_alarm = task.costs
    share = min(1.0, -math.log(error) / _units(concerned, groups))
    return share * float(concerned.mean()) * (miss if label == task.positive else false_alarm)


def _units(concerned: Array, groups: Array | None) -> int:
    """Return how many items, or groups of them, are concerned."""
    return int(np.count_nonzero(concerned)) if groups is None else len(np.unique(groups[concerned]))


def _statistic(task: Task, metric: str, labels: Array, outputs: Array) -> Statistic:
    """Return the metric as a function of item weights."""
    if ":" in metric:
        return _repeated(user_metric(metric), labels, outputs)
    if metric.partition("_")[0] in TALLIED:
        tallied = weighted.tally(labels, answers(task, outputs), scores.class_count(task, labels, outputs))
        value = _tally_metric(task, metric)
        return lambda weights: value(tallied(weights))
    if metric in ("roc_auc", "pr_auc"):
        ranking = weighted.roc_auc if metric == "roc_auc" else weighted.pr_auc
        if task.kind == "binary":
            return ranking(labels == task.positive, positive_scores(task, outputs))
        by_class = class_scores(outputs)
        assert by_class is not None
        parts = [ranking(labels == c, by_class[:, c]) for c in np.unique(labels)]
        return lambda weights: np.mean([part(weights) for part in parts], axis=0)
    if metric == "r2":
        columns = zip(labels.reshape(len(labels), -1).T, outputs.reshape(len(outputs), -1).T, strict=True)
        each = [weighted.r2(truth, given) for truth, given in columns]
        return lambda weights: np.mean([part(weights) for part in each], axis=0)
    return weighted.average(_by_item(task, metric, labels, outputs))


def _tally_metric(task: Task, metric: str) -> Callable[[weighted.Tally], Array]:
    plain = metric in ("precision", "recall", "f1") and task.kind != "binary"
    return weighted.tally_metric(f"{metric}_macro" if plain else metric, task.positive)


def _by_item(task: Task, metric: str, labels: Array, outputs: Array) -> Array:
    """Return one value per item whose mean is the metric."""
    if metric == "cost":
        return scores.costs(task, labels, answers(task, outputs))
    found = scores.estimate(task, metric, labels, outputs)
    return found.value + found.influence * len(labels)


def _repeated(function: Callable[[Array, Array], float], labels: Array, outputs: Array) -> Statistic:
    """Return a user's function of (labels, outputs) as a function of whole item weights."""

    def value(weights: Weights) -> Array:
        rows = (np.repeat(np.arange(len(labels)), row.astype(int)) for row in weights)
        return np.array([function(labels[chosen], outputs[chosen]) for chosen in rows])

    return value


def _reason(metric: str, difference: float, delta: float, proven: bool, needed: int | None, items: int) -> str:
    if proven:
        return ""
    if difference < -delta:
        lost, allowed = _amount(metric, -difference), _amount(metric, delta)
        return f"loses {lost} of {metric} on {items} items, allowed are {allowed}"
    if needed is None:
        return f"not proven: no number of items would prove it at a drop of {_amount(metric, -difference)}"
    return f"not proven on {items} items: about {needed:,} would decide"


def _amount(metric: str, value: float) -> str:
    """Return a change of a metric in words: points where it is a share, a plain number where it is not."""
    return f"{100 * value:.3g} pt" if scores.bounds(metric) == (0.0, 1.0) else f"{value:.3g}"


def _harmed(task: Task, labels: Array, original: Array, outputs: Array, groups: Array | None) -> tuple[Reading, ...]:
    """Return the change of every class that changed, the worst first; its scope says whether it is beyond chance."""
    if task.kind not in ("classification", "binary"):
        return ()
    changes = holm.by_class(labels, answers(task, original), answers(task, outputs), groups)
    found = []
    for change in sorted(changes, key=lambda change: change.difference):
        if change.better or change.worse:
            sure = "harmed beyond chance" if change.harmed else "not beyond chance"
            found.append(
                Reading(
                    name="recall_change",
                    value=change.difference,
                    direction="higher",
                    samples=change.items,
                    place=task.classes[change.label] if change.label < len(task.classes) else str(change.label),
                    source="sign test, Holm's correction",
                    scope=f"{sure} (p = {change.p:.3g}), +{change.better} −{change.worse}",
                )
            )
    return tuple(found)
