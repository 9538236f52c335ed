"""Any models side by side: paired timing, and whether each is no worse than the first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import BadZipFile

import numpy as np

from trimtab.core.errors import BadInput
from trimtab.core.machine import machine as this_machine
from trimtab.core.protocols import Array, Arrays
from trimtab.core.values import ArrayFile, Comparison, Goal, NoWorse, Split, Task, Variant, Workload
from trimtab.data.batches import groups as groups_of
from trimtab.data.batches import labels as labels_of
from trimtab.meters.feed import timing_inputs
from trimtab.meters.judge import BLIND_CHECK, judge_items, reference_labels, unlike
from trimtab.meters.predict import predict, settled
from trimtab.meters.quality import chance_warnings, tuned
from trimtab.meters.scores import check_metric
from trimtab.reports.lineup import distinct_names
from trimtab.runtimes.session import open_session
from trimtab.workbench.measure import measure, with_compression
from trimtab.workbench.task import check_goal
from trimtab.workbench.timing import TimingPlan, time_finally

_FRESH = ("select", "certify")  # techniques may have looked at the calibrate split


@dataclass(frozen=True, slots=True, kw_only=True)
class Care:
    """How carefully to compare: seconds for the timing, and the fewest fresh processes per side.

    Under load their spread decides, and in the same time Student's t over seven is an eighth narrower than over five.
    """

    seconds: float = 20.0
    processes: int = 7
    seed: int = 0


def compare(variants: Sequence[Variant], task: Task, goal: Goal | None = None, care: Care | None = None) -> Comparison:
    """Compare variants with the first one, which is the baseline.

    The quality of each is judged on all items of the task (calibration items left out, and those of select where a
    threshold is tuned on them), its time by paired blocks in fresh processes; `self_test` is the baseline against
    itself.
    """
    if len(variants) < 2:
        raise BadInput("a comparison needs at least two models: trimtab compare A B")
    goal, care = goal or Goal(), care or Care()
    with TemporaryDirectory(prefix="trimtab-compare-") as temporary:
        found = judged(variants, task, goal)
        inputs = [timing_inputs(variant, task, goal.workload) for variant in variants]
        blind = () if found.quality else unjudged(variants, inputs)
        plan = TimingPlan(
            folder=Path(temporary) / "timing",
            seconds=care.seconds,
            margin=goal.margin,
            seed=care.seed,
            processes=care.processes,
        )
        timing = time_finally(variants, inputs, plan)
        machine = this_machine()
        static = [measure(v, task, goal.workload, meters=("size", "compute"), machine=machine) for v in variants]
    read = [replace(m, readings=(*m.readings, timing.latency(place))) for place, m in enumerate(static)]
    measurements = [read[0], *(with_compression(m, read[0]) for m in read[1:])]
    return replace(
        found,
        measurements=tuple(measurements),
        ratios=tuple(timing.ratio(i, 0) for i in range(1, len(variants))),
        self_test=timing.self_test(),
        warnings=(*blind, *found.warnings, *timing.warnings()),
    )


def judged(variants: Sequence[Variant], task: Task, goal: Goal) -> Comparison:
    """Compare the answers of every variant with those of the first one, without timing; there are none without data.

    Where the threshold of a binary task is to be tuned, it is on what the first one answers to the select split; then
    the certify items alone are judged.
    """
    check_goal(goal, task)
    splits = [split for split in task.splits if split.name in _FRESH]
    if not splits or goal.max_drop is None:
        return Comparison(measurements=(), warnings=task.notes)
    answered = _answers(variants[0], task, splits, goal.workload)
    given, task = task.threshold, settled(task, np.concatenate(answered))
    if len(splits) == len(_FRESH):
        task = tuned(task, labels_of(splits[0]), answered[0])
    if task.threshold != given:
        splits, answered = splits[1:], answered[1:]
    first = np.concatenate(answered)
    labels = np.concatenate([reference_labels(task, *part) for part in zip(splits, answered, strict=True)])
    groups = [found for split in splits if (found := groups_of(split)) is not None]
    quality = (
        judge_items(
            task,
            np.concatenate(groups) if len(groups) == len(splits) else None,
            labels,
            first,
            np.concatenate(_answers(variant, task, splits, goal.workload)),
            goal=goal,
            names=(variant.key, variants[0].key),
        )
        for variant in variants[1:]
    )
    doubts = chance_warnings(task, labels, first) if task.labelled else ()
    return Comparison(
        measurements=(),
        quality=tuple(quality),
        warnings=(*doubts, *task.notes),
        notes=_threshold_note(task, given),
    )


def _threshold_note(task: Task, given: float | None) -> tuple[str, ...]:
    """Say at which threshold binary answers are read, and whether it was given or tuned here."""
    if task.kind != "binary" or task.threshold is None:
        return ()
    tuned_here = ", tuned with the first model on the select split; only certify items are judged"
    return (f"answers are positive from a probability of {task.threshold:.3g}{tuned_here * (given is None)}",)


def unjudged(variants: Sequence[Variant], inputs: Sequence[Arrays]) -> tuple[str, ...]:
    """Return what must be said where answers are not judged, and whose outputs for one call can't be right."""
    outputs = []
    for variant, given in zip(variants, inputs, strict=True):
        with open_session(variant) as session:
            outputs.append(session.run(given))
    names = distinct_names(variants)
    doubts = [(name, unlike(other, outputs[0])) for name, other in zip(names[1:], outputs[1:], strict=True)]
    said = f"speed only: there are no items to judge answers by, so no drop of quality is checked; {BLIND_CHECK}"
    return (said, *(f"{name}: {doubt}" for name, doubt in doubts if doubt is not None))


def compare_predictions(
    files: Sequence[Path], labels: Path, goal: Goal | None = None, metric: str | None = None
) -> tuple[NoWorse, ...]:
    """Judge answers in files against those in the first one.

    Files are .npy, or .npz with `outputs`: class numbers, a score per class, or values, a row per item. Whole numbers
    as labels make it a classification (accuracy), others a regression (r2).
    """
    if len(files) < 2:
        raise BadInput(
            "a comparison needs at least two files with predictions: trimtab compare A.npy B.npy --truth L.npy"
        )
    truth, outputs = _loaded(labels, "labels"), [_loaded(path, "outputs") for path in files]
    for path, given in zip(files, outputs, strict=True):
        if len(given) != len(truth):
            raise BadInput(f"{path} answers {len(given)} items, {labels} has {len(truth)} labels: give the same items")
    classes = bool(np.issubdtype(truth.dtype, np.integer))
    if classes and truth.ndim != 1:
        raise BadInput(f"{labels} holds whole numbers of shape {truth.shape}: give one class number per item")
    held = ArrayFile(name="labels", path=labels, dtype=truth.dtype.name, shape=truth.shape)
    task = Task(
        kind="classification" if classes else "regression",
        splits=(Split(name="certify", inputs=(), rows=held, labels=held),),
        metric=metric or ("accuracy" if classes else "r2"),
    )
    goal = goal or Goal()
    check_metric(task.metric)
    check_goal(goal, task)
    return tuple(
        judge_items(task, None, truth, outputs[0], other, goal=goal, names=(str(path), str(files[0])))
        for path, other in zip(files[1:], outputs[1:], strict=True)
    )


def _answers(variant: Variant, task: Task, splits: Sequence[Split], workload: Workload) -> list[Array]:
    with open_session(variant) as session:
        return [predict(session, task, split, workload) for split in splits]


def _loaded(path: Path, name: str) -> Array:
    """Return the numbers in a file, a row per item; of an archive those of that name, or its unnamed ones."""
    if not path.is_file():
        raise BadInput(f"there is no file {path}")
    try:
        found = np.load(path, allow_pickle=False)
        if not isinstance(found, np.ndarray):
            if name not in found and "arr_0" not in found:
                raise BadInput(f"{path} holds no array `{name}`, only {', '.join(found)}")
            found = found[name if name in found else "arr_0"]
    except (ValueError, EOFError, BadZipFile) as error:
        raise BadInput(f"{path} holds no plain array (.npy, or .npz with `{name}`): {error}") from error
    array: Array = found.astype(np.int64) if found.dtype.kind == "b" else found
    if not array.size or array.ndim == 0 or array.dtype.kind not in "iuf":
        raise BadInput(f"{path} holds {array.dtype} of shape {array.shape}: give numbers, a row per item")
    if not np.isfinite(array).all():
        item = int(np.argwhere(~np.isfinite(array))[0][0])
        raise BadInput(f"{path} holds NaN or infinity (item {item}): mend it")
    return array
