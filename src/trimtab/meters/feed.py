"""The inputs that a variant is timed on: real items where the task has them, never those of the certify split."""

from __future__ import annotations

import numpy as np

from trimtab.core.errors import BadInput
from trimtab.core.protocols import Array
from trimtab.core.values import Split, Task, Variant, Workload
from trimtab.data import synthetic
from trimtab.data.batches import feeds
from trimtab.meters.predict import fixed_batch, left_to_do


def timing_inputs(variant: Variant, task: Task, workload: Workload) -> dict[str, Array]:
    """Return one call's inputs at the workload's batch, preprocessed; synthetic ones when the task has no items.

    Raises `BadInput` when the model takes another number of items per call.
    """
    signature = variant.model.signature
    fixed = fixed_batch(signature)
    if fixed is not None and fixed != workload.batch:
        raise BadInput(f"this model takes {fixed} items per call, no more and no less: give --batch {fixed}")
    split = timing_split(task)
    if split is None or workload.lengths:
        return synthetic.inputs(signature, workload)
    return feeds(left_to_do(task, variant), split, np.arange(workload.batch) % len(split))


def timing_split(task: Task) -> Split | None:
    """Return the split to take items from."""
    return next((split for name in ("select", "calibrate", "train") if (split := task.split(name))), None)
