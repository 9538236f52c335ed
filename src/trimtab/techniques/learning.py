"""What the techniques share that train what they make: by labels, and by what the original answers."""

from __future__ import annotations

from typing import Any

from trimtab.core.errors import Refused
from trimtab.core.protocols import Context
from trimtab.core.values import Signature, Task, Variant, content_digest
from trimtab.techniques.fine_tune import score_of
from trimtab.training.fit import Course, Fitted, Hold, fit
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


def share(wanted: float, context: Context) -> float:
    """Return which share of the loss the original teaches: all of it without labels, none where it can't teach."""
    teaches = context.original.model.format in TRAINABLE
    if not context.task.labelled and not teaches:
        raise Refused("the items have no labels, and there is no other PyTorch model that could teach")
    return (wanted if context.task.labelled else 1.0) if teaches else 0.0


def learn(
    module: Any, signature: Signature, recipe: Recipe, context: Context, start: str, hold: Hold = lambda epochs: True
) -> Fitted:
    """Train a module in place; it ends with the weights of the epoch that did best on the select split.

    Args:
        module: a `torch.nn.Module`.
        signature: its inputs and outputs.
        recipe: how it is trained; where it distils the original is the teacher.
        context: the data, the original, and until when.
        start: a digest of what the module is at the start.
        hold: keeps the weights to a constraint, step by step.

    Raises:
        Refused: there is nothing to select by, or no epoch ended within the time as it should be.
    """
    task, teacher = context.task, context.original.model
    select = task.split("select")
    if select is None:
        raise Refused("training needs items to select by: give data with --data")
    augmented = bool(recipe.augmentations)
    course = Course(
        folder=context.folder / "checkpoint",
        start=content_digest(start, teacher.digest),
        teacher=teacher_of([teacher], task, context.folder, augmented=augmented) if recipe.distill else None,
        deadline=context.deadline,
        heard=lambda epoch: print(f"epoch {epoch.number}: loss {epoch.loss:.4f}, score {epoch.score:.4f}"),
        hold=hold,
    )
    fitted = fit(module, signature, task, recipe, score_of(task, select, teacher), course)
    if fitted.best is None:
        raise Refused("not one epoch of training ended within the time; give a larger --budget")
    return fitted
