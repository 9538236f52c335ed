"""Runs the items of a split through a session, and turns a model's outputs into answers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from trimtab.core.errors import BadInput
from trimtab.core.protocols import Array, Arrays, Session
from trimtab.core.values import Signature, Split, Task, Variant, Workload
from trimtab.data.batches import ahead, batches
from trimtab.data.labels import answer_spec

_SUM_TOLERANCE = 1e-2  # a softmax computed in bf16 or int8 does not sum to one exactly


def predict(session: Session, task: Task, split: Split, workload: Workload, timeout_s: float | None = None) -> Array:
    """Return the answer output of every item of the split, one row per item, run at the workload's batch.

    Raises `BadInput` when the output to judge is not clear, holds NaN or infinity, or has another number of rows.
    `timeout_s` bounds each call.
    """
    chunks = [outputs for _, outputs in predictions(session, task, split, workload, timeout_s)]
    if not chunks:
        raise BadInput(f"the {split.name} split holds no items: give more data")
    return np.concatenate(chunks)


def predictions(
    session: Session, task: Task, split: Split, workload: Workload, timeout_s: float | None = None
) -> Iterator[tuple[slice, Array]]:
    """Yield the rows and the answer outputs of one call after the other, so that a caller can stop early."""
    signature = session.variant.model.signature
    name = answer_spec(signature, task.output).name
    fixed = fixed_batch(signature)
    done = 0
    for feed in ahead(batches(left_to_do(task, session.variant), split, fixed or workload.batch)):
        count = len(next(iter(feed.values())))
        outputs = session.run(_padded(feed, fixed) if fixed else feed, timeout_s)
        answer = _checked(outputs, name, fixed or count, done)[:count]
        yield slice(done, done + count), answer
        done += count


def fixed_batch(signature: Signature) -> int | None:
    """Return the number of items that every call must have, None when it is free."""
    sizes = {spec.shape[0] for spec in signature.data_inputs if spec.shape and isinstance(spec.shape[0], int)}
    return int(sizes.pop()) if len(sizes) == 1 else None


def left_to_do(task: Task, variant: Variant) -> Task:
    """Return the task without the preprocessing that the variant does itself."""
    if not variant.absorbed:
        return task
    return replace(task, preprocessing=tuple(step for step in task.preprocessing if step not in variant.absorbed))


def _padded(feed: Arrays, size: int) -> Arrays:
    """Return the feed with its last item repeated up to `size` items."""
    return {
        name: np.concatenate([value, np.repeat(value[-1:], size - len(value), axis=0)]) if len(value) < size else value
        for name, value in feed.items()
    }


def _checked(outputs: Arrays, name: str, count: int, first: int) -> Array:
    if name not in outputs:
        raise BadInput(f"the model did not return its output {name!r}: it returned {', '.join(outputs) or 'nothing'}")
    answer = np.asarray(outputs[name])
    if answer.ndim == 0 or len(answer) != count:
        raise BadInput(
            f"the output {name!r} has shape {answer.shape} for {count} items: its first axis must be the batch "
            "(choose another output with --output-name, or --batch 1)"
        )
    if np.issubdtype(answer.dtype, np.inexact) and not np.isfinite(answer).all():
        row = first + int(np.argmin(np.isfinite(answer).reshape(count, -1).all(axis=1)))
        raise BadInput(f"the output {name!r} holds NaN or infinity (item {row} of the split): its numbers overflow")
    return answer


def answers(task: Task, outputs: Array) -> Array:
    """Return what the outputs answer, one row per item.

    Classification: the class with the highest score (whole numbers, one per item, are answers already).
    Binary: the positive class where its probability is at least the threshold (0.5 when there is none).
    Regression and embedding: the outputs as they are.
    """
    if task.kind == "classification":
        flat = _flat(outputs)
        if flat.ndim == 1 and np.issubdtype(flat.dtype, np.integer):
            return flat.astype(np.int64)
        if flat.ndim != 2:
            raise BadInput(f"a classification needs one score per class, but the output has shape {outputs.shape}")
        return np.asarray(np.argmax(flat, axis=1))
    if task.kind == "binary":
        threshold = 0.5 if task.threshold is None else task.threshold
        return np.asarray(np.where(positive_scores(task, outputs) >= threshold, task.positive, 1 - task.positive))
    return outputs


def positive_scores(task: Task, outputs: Array) -> Array:
    """Return the probability of the positive class, shape (items,).

    Two outputs per item go through a softmax, one (the score of class 1) through a sigmoid, unless
    they are probabilities already: `task.logits` says so, and when it is None the outputs themselves do.
    """
    flat = _flat(outputs).astype(np.float64)
    logits = _look_like_logits(flat) if task.logits is None else task.logits
    if flat.ndim == 1:
        positive = 1 / (1 + np.exp(-np.clip(flat, -700, 700))) if logits else flat
        return np.asarray(positive if task.positive == 1 else 1 - positive)
    if flat.ndim != 2 or flat.shape[1] != 2:
        raise BadInput(f"a binary task needs one or two scores per item, but the output has shape {outputs.shape}")
    if not logits:
        return np.asarray(flat[:, task.positive])
    other = flat[:, 1 - task.positive] - flat[:, task.positive]
    return np.asarray(1 / (1 + np.exp(np.clip(other, -700, 700))))


def score_count(outputs: Array) -> int | None:
    """Return the number of scores per item, None when the outputs are class numbers."""
    flat = _flat(outputs)
    return flat.shape[1] if flat.ndim == 2 else None


def class_scores(outputs: Array) -> Array | None:
    """Return the probability of every class, shape (items, classes); None when the outputs are class numbers.

    Rows that are not distributions already go through a softmax: across items, only probabilities can be ranked.
    """
    flat = _flat(outputs)
    if flat.ndim != 2:
        return None
    scores = flat.astype(np.float64)
    if not _look_like_logits(scores):
        return scores
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def settled(task: Task, outputs: Array) -> Task:
    """Return the task with `logits` decided from many answers of the original, so that every variant is read alike."""
    if task.kind != "binary" or task.logits is not None:
        return task
    return replace(task, logits=_look_like_logits(_flat(outputs).astype(np.float64)))


def _look_like_logits(flat: Array) -> bool:
    if flat.size and (flat.min() < -_SUM_TOLERANCE or flat.max() > 1 + _SUM_TOLERANCE):
        return True
    return flat.ndim == 2 and not bool(np.allclose(flat.sum(axis=1), 1, atol=_SUM_TOLERANCE))


def _flat(outputs: Array) -> Array:
    """Return the outputs without axes of length one behind the first: (n, k, 1, 1) is (n, k), (n, 1) is (n,)."""
    return outputs.reshape(len(outputs), *(size for size in outputs.shape[1:] if size != 1))
