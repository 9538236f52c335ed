"""Checks before measuring: does the data fit the model, do splits share items, is the original any good."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment
from scipy.stats import binomtest

from trimtab.core.errors import BadInput
from trimtab.core.protocols import Array
from trimtab.core.values import Step, Task, TensorSpec, options
from trimtab.data.arrays import open_array, row_digests
from trimtab.data.steps import INPUT

_NEAR = 0.1
"""Share of the way from chance to perfect below which a model counts as no better than chance."""

_PERMUTED_GAIN = 0.25
"""How much more accuracy another class order must give, on items it was not chosen on, to be suggested."""

_SIGNIFICANT = 0.05


def fit(spec: TensorSpec, prepared: Array, stateful: bool = False) -> Step | None:
    """Return the cast that makes prepared items what the input takes, None when they are so already.

    Only casts that keep the meaning are made: between floats, and between whole numbers. With `stateful`, items may
    have one more axis, of time, after the batch.

    Raises:
        BadInput: the dtype or shape differs; names what is expected, what is given, and what to do.
    """
    shape = prepared.shape[1:]
    steps = (shape, shape[1:]) if stateful and shape else (shape,)
    if not any(_same_shape(spec.shape[1:], one) for one in steps) or not spec.shape:
        raise BadInput(f"{_difference(spec, prepared)}: {_shape_hint(spec)}")
    if prepared.dtype.name == spec.dtype:
        return None
    have, want = prepared.dtype.kind, _kind(spec.dtype)
    if (have, want) == ("f", "f") or (have in "iub" and want == "i"):
        return Step(technique="cast", options=options({"dtype": spec.dtype, INPUT: spec.name}))
    hint = "say how to scale the numbers" if want == "f" else "say how to cast the numbers"
    raise BadInput(f"{_difference(spec, prepared)}: {hint} with --preprocess mnist, imagenet or a .toml file of steps")


def overlap(task: Task) -> dict[str, int]:
    """Return how many certify items occur, byte by byte, in each other split; splits without any are left out."""
    digests = {split.name: row_digests(open_array(file) for file in split.inputs) for split in task.splits}
    proof = digests.pop("certify", [])
    shared = {}
    for name, found in digests.items():
        seen = set(found)
        shared[name] = sum(digest in seen for digest in proof)
    return {name: count for name, count in shared.items() if count}


def near_chance(labels: ArrayLike, answers: ArrayLike, classes: Sequence[str]) -> str | None:
    """Return the question to ask when answers are hardly better than chance, or None.

    Answers are near chance when they agree with the labels no more often than two independent draws with the same
    class shares would (binomial test at 5 %), or when their mean recall has come less than a tenth of the way from
    chance to perfect. When another order of the classes would make them much better, on items it was not
    chosen on, the question names it.
    """
    truth, given = np.asarray(labels, dtype=np.int64), np.asarray(answers, dtype=np.int64)
    right = truth == given
    count = max(len(classes), int(truth.max()) + 1, int(given.max()) + 1)  # the answers may be class numbers themselves
    chance = float(np.dot(*(np.bincount(each, minlength=count) / len(each) for each in (truth, given))))
    permuted = _permuted(truth, given, count)
    if permuted is not None and permuted - right.mean() > _PERMUTED_GAIN:
        return (
            f"the model is right on {right.mean():.1%} of the items, and another class order would make it "
            f"{permuted:.1%}: the label order looks permuted; give the model's order with --labels classes.txt"
        )
    present = np.unique(truth)
    recall = float(np.mean([right[truth == one].mean() for one in present]))
    gained = (recall - 1 / len(present)) / (1 - 1 / len(present)) if len(present) > 1 else 1.0
    lucky = binomtest(int(right.sum()), len(right), min(chance, 1.0), alternative="greater").pvalue > _SIGNIFICANT
    if gained >= _NEAR and not lucky:
        return None
    return (
        f"the model is right on {right.mean():.1%} of the items, where chance is {chance:.1%}: preprocessing or "
        "label order? check --preprocess, --labels and --output-name"
    )


def _permuted(truth: NDArray[np.int64], given: NDArray[np.int64], count: int) -> float | None:
    """Return the accuracy on every other item under the class order that is best on the items between, or None."""
    if len(truth) < 2 * count:
        return None
    confusion = np.zeros((count, count), dtype=np.int64)
    np.add.at(confusion, (given[::2], truth[::2]), 1)
    _, order = linear_sum_assignment(confusion, maximize=True)
    return float(np.mean(order[given[1::2]] == truth[1::2]))


def _same_shape(expected: Sequence[int | str], given: Sequence[int]) -> bool:
    return len(expected) == len(given) and all(
        isinstance(want, str) or want == have for want, have in zip(expected, given, strict=True)
    )


def _kind(dtype: str) -> str:
    if dtype.startswith(("float", "bfloat")):
        return "f"
    return "i" if dtype.startswith(("int", "uint")) else dtype


def _difference(spec: TensorSpec, prepared: Array) -> str:
    expected = ", ".join(str(size) for size in spec.shape)
    given = ", ".join(["N", *map(str, prepared.shape[1:])])
    return (
        f"the model's input {spec.name!r} takes {spec.dtype} [{expected}]; the data after preprocessing gives "
        f"{prepared.dtype.name} [{given}]"
    )


def _shape_hint(spec: TensorSpec) -> str:
    if len(spec.shape) == 4:
        return "add --preprocess mnist, imagenet or a .toml file (steps resize, crop, rgb, grey, layout)"
    return "add --preprocess with a .toml file (steps reshape, pad, resample, mono), or give items of that shape"
