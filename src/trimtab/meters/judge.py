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
from trimtab.core.protocols import Array, Arrays
from trimtab.core.values import Goal, NoWorse, Reading, Split, Task
from trimtab.data.batches import groups as groups_of
from trimtab.data.batches import labels as labels_of
from trimtab.meters import scores
from trimtab.meters.predict import answers, class_scores, positive_scores
from trimtab.meters.quality import class_name
from trimtab.meters.user_metric import user_metric
from trimtab.stats import bootstrap, holm, noninferiority, sequential, weighted
from trimtab.stats.bootstrap import Statistic, Weights

_Metric = Callable[[Array, Array], float]  # of labels and outputs, larger is better
_CLASSED = ("classification", "binary")
_ALL_ITEMS = ("accuracy", "accuracy_micro", "accuracy_weighted", "precision_micro", "recall_micro", "f1_micro")
_SHARES = (*_ALL_ITEMS, "agreement", "top5")
_WATCH_RISK = 0.05  # of giving up a candidate that is innocent
_CLEAR_RISK = 0.05  # of believing one that is not: it still has to be proven
_FAR = 0.75  # of the size of the outputs: zeros are off by 1, another network's by more, int8 by less than a half
BLIND_CHECK = (
    f"outputs for made-up inputs are only checked to be finite and within {100 * _FAR:.0f} % of the baseline's"
)
"""What `unlike` asks for, in words."""


def judged_metric(task: Task) -> str:
    """Return the metric that is protected: without labels it is likeness to the original."""
    if task.labelled:
        return task.metric
    if task.kind in _CLASSED:
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
    _check_labels(task, labels, outputs)
    kept = _concerned(task, metric, labels)
    delta = goal.max_drop if goal.max_drop is not None else 0.5
    old, new = (right[kept] for right in _rights(task, metric, labels, original, outputs))
    found: noninferiority.Proof | bootstrap.Shift
    if _is_share(task, metric):
        pairs = noninferiority.Pairs(items=1, better=0, worse=0)  # no items tell as little as a single one
        if kept.any():
            pairs = noninferiority.count(old, new, None if groups is None else groups[kept])
        found, method = noninferiority.prove(pairs, delta, goal.error), "Tango's score test"
    else:
        shift = _shift(task, metric, labels, (original, outputs), groups, delta, goal.error)
        found, method = shift, "paired bootstrap (BCa)"
    items, units = int(kept.sum()), _units(kept, groups)
    return NoWorse(
        metric=metric, variant=names[0], baseline=names[1], max_drop=delta, error=goal.error, method=method,
        items=items, groups=units,
        difference=found.difference, low=found.low, high=found.high,
        better=int((new & ~old).sum()), worse=int((old & ~new).sum()), flips=_flips(task, original, outputs),
        proven=found.proven and goal.max_drop is not None, needed=found.needed,
        reason=_reason(metric, delta, found, f"{items} {'positive ' * (items < len(kept))}items", units, items),
        harmed=_harmed(task, labels, original, outputs, groups),
    )  # fmt: skip


@dataclass(slots=True)
class Watch:
    """Looks at a candidate's answers as they come and says when they are too bad, or good enough, beyond doubt.

    The items of one of the `groups` count together, as one value, once all of them were seen.
    """

    task: Task
    labels: Array
    original: Array
    max_drop: float | None
    groups: Array | None = None
    _evidence: sequential.Evidence | None = field(init=False)
    _defence: sequential.Evidence | None = field(init=False)
    _tally: _Tally = field(init=False)

    def __post_init__(self) -> None:
        metric = judged_metric(self.task)
        bet = self.max_drop is not None and _is_share(self.task, metric)
        delta = self.max_drop or 0.0
        self._tally = _Tally(self.groups, _concerned(self.task, metric, self.labels))
        self._evidence = sequential.Evidence(delta=delta, alpha=_WATCH_RISK) if bet else None
        self._defence = sequential.Evidence(delta=-delta, alpha=_CLEAR_RISK) if bet and delta else None

    @property
    def clear(self) -> bool:
        """Whether the answers so far speak enough against a drop beyond the allowed one to look at no more."""
        return self._defence is not None and self._defence.dead

    def add(self, rows: slice, outputs: Array) -> str | None:
        """Take the outputs of some rows; return why the candidate is given up, or None."""
        if self._evidence is None:
            return None
        metric = judged_metric(self.task)
        labels = self.labels[rows]
        kept = _concerned(self.task, metric, labels)
        old, new = _rights(self.task, metric, labels, self.original[rows], outputs)
        gains, shares = self._tally.ended(rows, kept, new.astype(float) - old.astype(float))
        allowed = self._evidence.delta
        values = shares * gains - (1 - shares) * allowed
        self._evidence = sequential.watch(self._evidence, values)
        self._defence = sequential.watch(self._defence, -values) if self._defence is not None else None
        if not self._evidence.dead:
            return None
        items, drop = self._tally.items, -self._tally.gain / self._tally.items
        seen = f"{items} items" + f" in {self._evidence.items} groups" * (self.groups is not None)
        return f"loses about {100 * drop:.1f} pt of {metric} (seen on {seen}, allowed {100 * allowed:g} pt)"


class _Tally:
    """Adds up the gains of the items of each group; without groups every item is one of its own.

    `items` and `gain` are those of the groups that have ended: all of whose items that concern the metric were seen.
    """

    def __init__(self, groups: Array | None, concerned: Array) -> None:
        count = len(concerned)
        self._numbers = np.arange(count) if groups is None else np.unique(groups, return_inverse=True)[1]
        self._sizes = np.bincount(self._numbers[concerned], minlength=count)
        self._left = self._sizes.copy()
        self._gains = np.zeros(count)
        self.items, self.gain = 0, 0.0

    def ended(self, rows: slice, kept: Array, gains: Array) -> tuple[Array, Array]:
        """Take the gains of some rows, of which some are kept, and look at the groups that end here.

        Returns the mean gain of each, in the order in which they end, whatever the size of the batches, and its size
        as a share of the largest one's.
        """
        numbers = self._numbers[rows][kept]
        np.add.at(self._gains, numbers, gains[kept])
        np.subtract.at(self._left, numbers, 1)
        _, behind = np.unique(numbers[::-1], return_index=True)
        last = numbers[np.sort(len(numbers) - 1 - behind)]
        over = last[self._left[last] == 0]
        sizes = self._sizes[over]
        self.items += int(sizes.sum())
        self.gain += float(self._gains[over].sum())
        return self._gains[over] / sizes, sizes / max(self._sizes.max(), 1)


def unlike(outputs: Arrays, original: Arrays) -> str | None:
    """Say why outputs can't be those of the same network as the original's for the same inputs, None when they can.

    It finds what is broken, where there is no data to tell what is worse. Outputs are compared in their order, by the
    size (Euclidean norm) of their difference; whole numbers, and what the original doesn't have finite, tell nothing.
    """
    for (name, wanted), given in zip(original.items(), outputs.values(), strict=False):
        if given.shape != wanted.shape:
            return f"its output {name!r} has shape {given.shape} for made-up inputs, the baseline's {wanted.shape}"
        known = np.isfinite(wanted) if wanted.dtype.kind == "f" else np.zeros(wanted.shape, dtype=bool)
        old, new = (np.asarray(array[known], dtype=np.float64) for array in (wanted, given))
        if not np.isfinite(new).all():
            return f"its output {name!r} holds NaN or infinity for made-up inputs, the baseline's doesn't"
        size, off = float(np.linalg.norm(old)), float(np.linalg.norm(new - old))
        if off > _FAR * size > 0:
            return f"its output {name!r} for made-up inputs is {100 * off / size:.0f} % off the baseline's"
    return None


def _check_labels(task: Task, labels: Array, outputs: Array) -> None:
    """Raise `BadInput` for labels that these outputs can't answer."""
    if task.kind in _CLASSED:
        scores.class_count(task, labels, outputs)
    elif labels.size != outputs.size:
        each = [array.size // max(len(array), 1) for array in (labels, outputs)]
        raise BadInput(
            f"the labels have {each[0]} values per item and the model's outputs {each[1]}, which can't be compared as "
            f"{task.kind}: check the labels, --output-name and --kind"
        )


def _is_share(task: Task, metric: str) -> bool:
    """Say whether the metric is the share of some items that are answered rightly."""
    return metric in _SHARES or (metric == "recall" and task.kind == "binary")


def _rights(task: Task, metric: str, labels: Array, original: Array, outputs: Array) -> tuple[Array, Array]:
    """Return which items each of the two gets right (for numbers: which one is nearer to the target)."""
    if metric == "top5":
        return scores.among_five(labels, original), scores.among_five(labels, outputs)
    if task.kind in _CLASSED:
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
    return int((answers(task, original) != answers(task, outputs)).sum()) if task.kind in _CLASSED else 0


def _units(concerned: Array, groups: Array | None) -> int:
    """Return how many items, or groups of them, are concerned."""
    return int(np.count_nonzero(concerned)) if groups is None else len(np.unique(groups[concerned]))


def _shift(
    task: Task, metric: str, labels: Array, both: tuple[Array, Array], groups: Array | None, delta: float, error: float
) -> bootstrap.Shift:
    """Test a metric that is no share of items, with what changes that never occurred could take from it."""
    if metric.partition("_")[0] in scores.BY_CLASS:
        plain = metric in scores.BY_CLASS and task.kind != "binary"
        tallied = weighted.tally_metric(f"{metric}_macro" if plain else metric, task.positive)
        old, new = (answers(task, outputs) for outputs in both)
        return weighted.prove_answers(labels, old, new, tallied, delta, groups=groups, alpha=error)
    before, after = (_statistic(task, metric, labels, outputs) for outputs in both)
    sign = -1.0 if scores.lower_is_better(metric) else 1.0
    unseen = _unseen(task, metric, labels, both[1], groups, error)
    try:
        return bootstrap.prove(
            lambda weights: sign * (after(weights) - before(weights)),
            delta,
            np.ones(len(labels), dtype=np.int64),
            strata=labels if task.kind in _CLASSED else None,
            groups=groups,
            unseen=unseen,
            alpha=error,
        )
    except ValueError as problem:
        raise BadInput(f"{metric} of {len(labels)} items can't be judged: {problem}") from problem


def _statistic(task: Task, metric: str, labels: Array, outputs: Array) -> Statistic:
    """Return the metric as a function of item weights."""
    if ":" in metric:
        return _repeated(user_metric(metric), labels, outputs)
    if metric in scores.RANKING:
        ranking = weighted.roc_auc if metric == "roc_auc" else weighted.pr_auc
        if task.kind == "binary":
            return ranking(labels == task.positive, positive_scores(task, outputs))
        by_class = class_scores(outputs)
        assert by_class is not None
        return _mean([ranking(labels == c, by_class[:, c]) for c in np.unique(labels)])
    if metric == "r2":
        columns = zip(labels.reshape(len(labels), -1).T, outputs.reshape(len(outputs), -1).T, strict=True)
        return _mean([weighted.r2(truth, given) for truth, given in columns])
    if metric == "cost":
        return weighted.average(scores.costs(task, labels, answers(task, outputs)))
    found = scores.estimate(task, metric, labels, outputs)
    return weighted.average(found.value + found.influence * len(labels))


def _mean(parts: list[Statistic]) -> Statistic:
    return lambda weights: np.mean([part(weights) for part in parts], axis=0)


def _repeated(function: _Metric, labels: Array, outputs: Array) -> Statistic:
    """Return a user's function of (labels, outputs) as a function of whole item weights."""

    def value(weights: Weights) -> Array:
        rows = (np.repeat(np.arange(len(labels)), row.astype(int)) for row in weights)
        return np.array([function(labels[chosen], outputs[chosen]) for chosen in rows])

    return value


def _unseen(task: Task, metric: str, labels: Array, outputs: Array, groups: Array | None, error: float) -> float:
    """Return what changes that never occurred in these items could take from the metric, at confidence 1 − error.

    Of errors that are measured on every item (mse, r2, cosine …) each item shows its change, so nothing is added.
    """
    if metric == "cost":
        miss, false_alarm = task.costs or (0.0, 0.0)
        each = ((labels == task.positive, miss), (labels != task.positive, false_alarm))
        return max(_unseen_share(kind, groups, error) * float(kind.mean()) * money for kind, money in each)

    def ours(labels: Array, outputs: Array) -> float:
        return scores.estimate(task, metric, labels, outputs).value

    if ":" in metric or metric in scores.RANKING:
        return _tried(user_metric(metric) if ":" in metric else ours, task, labels, outputs, groups, error)
    return 0.0


def _unseen_share(concerned: Array, groups: Array | None, error: float) -> float:
    """Return the largest share of these items in which a change may occur that none of them shows (rule of three)."""
    return min(1.0, -math.log(error) / max(_units(concerned, groups), 1))


def _tried(function: _Metric, task: Task, labels: Array, outputs: Array, groups: Array | None, error: float) -> float:
    """Return what a metric loses at most when as many answers of one class turn wrong as may go unseen.

    What the metric makes of an answer is not known from inside, so it is tried out: items answered rightly get the
    outputs of another class, the rarest one's first, where false alarms hurt most. Without classes, the items of each
    half of the data get the outputs of the other half.
    """
    classed = task.kind in _CLASSED
    kinds = np.asarray(labels, np.int64) if classed else np.arange(len(labels)) * 2 // len(labels)
    right = answers(task, outputs) == labels if classed else np.ones(len(labels), dtype=bool)
    sizes, value = np.bincount(kinds), function(labels, outputs)
    lowest = value
    for kind in np.flatnonzero(sizes):
        share, donors = _unseen_share(kinds == kind, groups, error), np.flatnonzero(kinds != kind)
        if not donors.size:
            return share * abs(value)
        donors = donors[np.lexsort((sizes[kinds[donors]], ~right[donors]))]
        turned = np.flatnonzero((kinds == kind) & right)[: math.ceil(share * sizes[kind])]
        changed = outputs.copy()
        changed[turned] = outputs[np.resize(donors, len(turned))]
        lowest = min(lowest, function(labels, changed))
    return value - lowest


def _reason(
    metric: str, delta: float, found: noninferiority.Proof | bootstrap.Shift, told: str, units: int, items: int
) -> str:
    """Return why nothing is proven, on items that are `told` of as "700 items"; what is missing counts in groups."""
    if found.proven:
        return ""
    if found.difference < -delta:
        lost, allowed = _amount(metric, -found.difference), _amount(metric, delta)
        return f"loses {lost} of {metric} on {told}, allowed are {allowed}"
    inside, kind = (f" in {units} groups", " groups") if units < items else ("", "")
    if units < found.fewest:
        return f"not proven on {told}{inside}: at least {found.fewest:,}{kind} would be needed"
    if found.needed is None:
        return f"not proven: no number of items would prove it at a drop of {_amount(metric, -found.difference)}"
    return f"not proven on {told}{inside}: about {found.needed:,}{kind} would decide"


def _amount(metric: str, value: float) -> str:
    """Return a change of a metric in words: points where it is a share, a plain number where it is not."""
    return f"{100 * value:.3g} pt" if scores.bounds(metric) == (0.0, 1.0) else f"{value:.3g}"


def _harmed(task: Task, labels: Array, original: Array, outputs: Array, groups: Array | None) -> tuple[Reading, ...]:
    """Return the change of every class that changed, the worst first; its scope says whether it is beyond chance."""
    if task.kind not in _CLASSED:
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
                    place=class_name(task, change.label),
                    source="sign test, Holm's correction",
                    scope=f"{sure} (p = {change.p:.3g}), +{change.better} −{change.worse}",
                )
            )
    return tuple(found)
