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
from trimtab.data.arrays import save_array
from trimtab.data.batches import feeds
from trimtab.data.batches import groups as groups_of
from trimtab.data.synthetic import inputs as synthetic_inputs
from trimtab.meters.judge import judge, judge_items, reference_labels
from trimtab.meters.predict import fixed_batch, predict, settled
from trimtab.runtimes.session import open_session
from trimtab.workbench.measure import measure
from trimtab.workbench.timing import TimingPlan, time_finally

_FRESH = ("select", "certify")
"""What "all" means: techniques may have looked at the calibrate split."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Care:
    """How carefully to compare: seconds for the timing, fresh processes per side, and which split is judged."""

    seconds: float = 20.0
    processes: int = 5
    split: str = "all"
    seed: int = 0


def compare(variants: Sequence[Variant], task: Task, goal: Goal | None = None, care: Care | None = None) -> Comparison:
    """Compare variants with the first one, which is the baseline.

    The quality of each is judged on all items of the task (calibration items left out), its time by paired blocks in
    fresh processes; `self_test` is the baseline against itself.
    """
    if len(variants) < 2:
        raise BadInput("a comparison needs at least two models: trimtab compare A B")
    goal, care = goal or Goal(), care or Care()
    with TemporaryDirectory(prefix="trimtab-compare-") as temporary:
        quality = judged(variants, task, goal, care)
        inputs = [timing_inputs(variant, task, goal.workload, care.seed) for variant in variants]
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
    return Comparison(
        measurements=tuple(static),
        ratios=tuple(timing.ratio(i, 0) for i in range(1, len(variants))),
        quality=quality,
        self_test=timing.self_test(),
    )


def judged(variants: Sequence[Variant], task: Task, goal: Goal, care: Care) -> tuple[NoWorse, ...]:
    """Return the verdict on the answers of every variant but the first; none without data."""
    splits = [split for split in task.splits if split.name in (_FRESH if care.split == "all" else (care.split,))]
    if not splits or goal.max_drop is None:
        return ()
    outputs = [_answers(variant, task, splits, goal.workload) for variant in variants]
    first = np.concatenate(outputs[0])
    task = settled(task, first)
    labels = np.concatenate([reference_labels(task, *part) for part in zip(splits, outputs[0], strict=True)])
    groups = [found for split in splits if (found := groups_of(split)) is not None]
    return tuple(
        judge_items(
            task,
            np.concatenate(groups) if len(groups) == len(splits) else None,
            labels,
            first,
            np.concatenate(other),
            goal=goal,
            names=(variant.key, variants[0].key),
        )
        for variant, other in zip(variants[1:], outputs[1:], strict=True)
    )


def timing_inputs(variant: Variant, task: Task, workload: Workload, seed: int) -> Arrays:
    """Return what a variant is timed on: the first items of the data, random ones without data."""
    signature = variant.model.signature
    batch = fixed_batch(signature) or workload.batch
    split = task.split("select") or task.split("certify")
    if split is None:
        return synthetic_inputs(signature, replace(workload, batch=batch), seed)
    return feeds(task, split, np.arange(batch) % len(split))


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
    goal = goal or Goal()
    outputs = [_loaded(path) for path in files]
    truth = _loaded(labels)
    for path, given in zip(files, outputs, strict=True):
        if len(given) != len(truth):
            raise BadInput(f"{path} answers {len(given)} items, {labels} has {len(truth)} labels: give the same items")
        if not np.isfinite(given).all():
            raise BadInput(
                f"{path} holds NaN or infinity (item {int(np.argwhere(~np.isfinite(given))[0][0])}): mend it"
            )
    classes = bool(np.issubdtype(truth.dtype, np.integer))
    with TemporaryDirectory(prefix="trimtab-compare-") as temporary:
        rows = save_array("rows", Path(temporary) / "rows.npy", np.arange(len(truth)))
        kept: ArrayFile = save_array("labels", Path(temporary) / "labels.npy", truth)
        split = Split(name="certify", inputs=(), rows=rows, labels=kept)
        task = Task(
            kind="classification" if classes else "regression",
            splits=(split,),
            metric=metric or ("accuracy" if classes else "r2"),
        )
        return tuple(
            judge(task, split, truth, outputs[0], other, goal=goal, names=(str(path), str(files[0])))
            for path, other in zip(files[1:], outputs[1:], strict=True)
        )


def _answers(variant: Variant, task: Task, splits: Sequence[Split], workload: Workload) -> list[Array]:
    with open_session(variant) as session:
        return [predict(session, task, split, workload) for split in splits]


def _loaded(path: Path) -> Array:
    if not path.is_file():
        raise BadInput(f"there is no file {path}")
    try:
        found = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, BadZipFile) as error:
        raise BadInput(f"{path} holds no plain array (.npy, or .npz with `outputs`): {error}") from error
    if isinstance(found, np.ndarray):
        if found.ndim == 0 or found.dtype.kind not in "biuf":
            raise BadInput(f"{path} holds {found.dtype} of shape {found.shape}: give numbers, a row per item")
        return found
    name = next((name for name in ("outputs", "labels", "arr_0") if name in found), None)
    if name is None:
        raise BadInput(f"{path} holds no array `outputs` or `labels`, only {', '.join(found)}")
    array: Array = found[name]
    return array
