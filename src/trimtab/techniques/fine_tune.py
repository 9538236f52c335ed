"""Trains a network again after its structure was changed, with the original as its teacher."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Annotated

import numpy as np

from trimtab.core.errors import Refused
from trimtab.core.protocols import Array, Choices, Context
from trimtab.core.values import Model, Split, Step, Task, Variant, content_digest, options
from trimtab.data.batches import labels as labels_of
from trimtab.formats.torch import save_changed
from trimtab.formats.torch_tracing import load_live
from trimtab.training.fit import Course, fit
from trimtab.training.network import answers_of
from trimtab.training.recipe import Recipe
from trimtab.training.teacher import teacher_of


@dataclass(frozen=True, slots=True, kw_only=True)
class FineTune:
    """Training on the train split, by labels and by what the original answers (distillation).

    The options are those of `trimtab train` (see `training/recipe.py`). Without labels the original is the only
    teacher, whatever `distill` says; the original itself learns by labels alone.
    """

    epochs: Annotated[int, Choices(3, 10)] = 3
    batch: int = 64
    optimizer: str = "adam"
    lr: float = 1e-3
    schedule: str = "cosine"
    augment: str = "none"
    distill: Annotated[float, Choices(0.5, 0.9)] = 0.5
    temperature: float = 4.0

    name = "fine-tune"
    trains = True

    def refuses(self, variant: Variant, task: Task) -> str | None:
        """Refuse models that can't be trained, and data without items to train on."""
        if variant.model.format != "torch":
            return f"it trains PyTorch models that a factory builds, this one is {variant.model.format}"
        if task.split("train") is None:
            return "there are no items in the data to train on: give them with --train"
        return None

    def apply(self, variant: Variant, context: Context) -> Variant:
        """Return the trained variant: the weights of the epoch that did best on the select split.

        Raises:
            Refused: not one epoch ended within the time.
        """
        task, teacher = context.task, context.original.model
        select = task.split("select")
        if select is None:
            raise Refused("training needs items to select by: give data with --data")
        teaches = teacher.format in ("torch", "huggingface") and teacher.digest != variant.model.digest
        if not task.labelled and not teaches:
            raise Refused("the items have no labels, and there is no other PyTorch model that could teach")
        recipe = Recipe(**{**asdict(self), "distill": self._share(task) if teaches else 0.0}, seed=context.seed)
        augmented = bool(recipe.augmentations)
        course = Course(
            folder=context.folder / "checkpoint",
            start=content_digest(variant.model.digest, teacher.digest),
            teacher=teacher_of([teacher], task, context.folder, augmented=augmented) if recipe.distill else None,
            deadline=context.deadline,
            heard=lambda epoch: print(f"epoch {epoch.number}: loss {epoch.loss:.4f}, score {epoch.score:.4f}"),
        )
        module, signature = load_live(variant.model), variant.model.signature
        fitted = fit(module, signature, task, recipe, score_of(task, select, teacher), course)
        if fitted.best is None:
            raise Refused("not one epoch of training ended within the time; give a larger --budget")
        done = replace(self, epochs=len(fitted.history), distill=recipe.distill)
        step = Step(technique=self.name, options=options(asdict(done)), seed=context.seed)
        return variant.after(save_changed(variant.model, module, context.folder), step)

    def _share(self, task: Task) -> float:
        return self.distill if task.labelled else 1.0


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
