"""What the techniques share that train what they make: by labels, and by what the original answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from trimtab.core.errors import Refused
from trimtab.core.protocols import Array, Context
from trimtab.core.values import Model, Signature, Split, Task, Variant, content_digest
from trimtab.data.batches import labels as labels_of
from trimtab.formats.torch_tracing import load_live
from trimtab.training.fit import Course, Fitted, Hold, fit
from trimtab.training.network import answers_of
from trimtab.training.recipe import Recipe
from trimtab.training.teacher import teacher_of

TRAINABLE = ("torch", "huggingface")
"""The formats whose models are modules with weights that can be trained."""


def refusal(variant: Variant, task: Task, name: str) -> str | None:
    """Return why the technique of that name can't train a variant on this data, or None."""
    if variant.model.format not in TRAINABLE:
        return f"{name} trains PyTorch models that a factory or Hugging Face builds, this one is {variant.model.format}"
    if task.split("train") is None:
        return "there are no items in the data to train on: give them with --train"
    return None


def share(wanted: float, context: Context, student: Model | None = None) -> float:
    """Return which share of the loss the original teaches: all of it without labels, none where it can't teach.

    It can't where it is no module, or is the `student` itself.
    """
    teacher = context.original.model
    teaches = teacher.format in TRAINABLE and (student is None or student.digest != teacher.digest)
    if not context.task.labelled and not teaches:
        raise Refused("the items have no labels, and there is no other PyTorch model that could teach")
    return (wanted if context.task.labelled else 1.0) if teaches else 0.0


def learn(
    module: Any,
    signature: Signature,
    recipe: Recipe,
    context: Context,
    start: str,
    *,
    hold: Hold = lambda epochs: True,
    alike: bool = False,
) -> Fitted:
    """Train a module in place; it ends with the weights of the epoch that did best on the select split.

    Args:
        module: a `torch.nn.Module`.
        signature: its inputs and outputs.
        recipe: how it is trained; where it distils the original is the teacher.
        context: the data, the original, and until when.
        start: a digest of what the module is at the start.
        hold: keeps the weights to a constraint, step by step.
        alike: the teacher answers augmented items as it answers them as they are, so that its answers can be kept.

    Raises:
        Refused: there is nothing to select by, or no epoch ended within the time as it should be.
    """
    task, teacher = context.task, context.original.model
    select = task.split("select")
    if select is None:
        raise Refused("training needs items to select by: give data with --data")
    live = recipe.live and not (alike and recipe.hints == "none")
    folder = context.shared or context.folder
    course = Course(
        folder=context.folder / "checkpoint",
        start=content_digest(start, teacher.digest),
        teacher=teacher_of([teacher], signature, task, folder, live=live) if recipe.taught else None,
        deadline=context.deadline,
        heard=lambda epoch: print(f"epoch {epoch.number}: loss {epoch.loss:.4f}, score {epoch.score:.4f}"),
        hold=hold,
    )
    fitted = fit(module, signature, task, recipe, score_of(task, select, teacher), course)
    if fitted.best is None:
        raise Refused("not one epoch of training ended within the time; give a larger --budget")
    return fitted


def score_of(task: Task, split: Split, teacher: Model) -> Callable[[Array], float]:
    """Return a function from outputs on a split to how good they are: more is better.

    That is the share of right answers or, for numbers, the negative mean squared error; without labels the teacher's
    answers are right.
    """
    labels = labels_of(split)
    classes = task.kind in ("classification", "binary")
    if labels is None:
        told = answers_of(load_live(teacher), teacher.signature, task, split)
        labels = _classes(told) if classes else told
    if classes:
        return lambda outputs: float(np.mean(_classes(outputs) == labels))
    return lambda outputs: -float(np.mean((outputs.reshape(labels.shape) - labels) ** 2))


def _classes(outputs: Array) -> Array:
    """Return the class that each row answers; one logit is positive above 0."""
    flat = outputs.reshape(len(outputs), -1)
    return np.asarray(flat.argmax(axis=1) if flat.shape[1] > 1 else flat[:, 0] > 0).astype(np.int64)
