"""Trains a network again after its structure was changed, with the original as its teacher."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

import numpy as np

from trimtab.core.errors import Refused
from trimtab.core.machine import machine
from trimtab.core.protocols import Array, Context
from trimtab.core.values import Model, Split, Step, Task, Variant, content_digest, options
from trimtab.data.batches import labels as labels_of
from trimtab.formats.torch import save_changed
from trimtab.formats.torch_tracing import load_live
from trimtab.training.fit import Course, fit
from trimtab.training.invariance import indifferent
from trimtab.training.network import answers_of
from trimtab.training.recipe import Recipe
from trimtab.training.teacher import Teacher, teacher_of

_NARROW = {"avx512_bf16", "amx_bf16"}  # flags of processors that multiply bf16


@dataclass(frozen=True, slots=True, kw_only=True)
class FineTune:
    """Training on the train split, by labels and by what the original answers (distillation).

    The options are those of `trimtab train` (see `training/recipe.py`). Without labels the original is the only
    teacher, whatever `distill` says; the original itself learns by labels alone. `augment` auto takes the
    augmentations that the original is indifferent to, so that what it answered to the items as they are, kept from
    before, is right for them augmented; `precision` auto is bf16 where the processor multiplies such numbers. `hints`
    (features, attention) lets inner layers follow the original's as well.
    """

    epochs: int = 3
    share: float = 1.0
    batch: int = 128
    optimizer: str = "adam"
    lr: float = 2e-3
    schedule: str = "cosine"
    augment: str = "auto"
    distill: float = 0.7
    temperature: float = 4.0
    precision: str = "auto"
    hints: str = "none"
    hint_weight: float = 1.0

    name = "fine-tune"
    trains = True
    resumes = True  # from the checkpoint in its folder

    def refuses(self, variant: Variant, task: Task) -> str | None:
        """Refuse models that can't be trained, and data without items to train on."""
        if variant.model.format != "torch":
            return f"it trains PyTorch models that a factory builds, this one is {variant.model.format}"
        if task.split("train") is None:
            return "there are no items to train on: give them with --train"
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
        recipe = self._recipe(task, select, teacher, distils=teaches, seed=context.seed)
        course = Course(
            folder=context.folder / "checkpoint",
            start=content_digest(variant.model.digest, teacher.digest),
            teacher=self._teacher(recipe, variant, context) if recipe.taught else None,
            deadline=context.deadline,
            heard=lambda epoch: print(f"epoch {epoch.number}: loss {epoch.loss:.4f}, score {epoch.score:.4f}"),
        )
        module = load_live(variant.model)
        fitted = fit(module, variant.model.signature, task, recipe, score_of(task, select, teacher), course)
        if fitted.best is None:
            raise Refused("not one epoch of training ended within the time; give a larger --budget")
        done = replace(
            self,
            epochs=len(fitted.history),
            distill=recipe.distill,
            augment=recipe.augment,
            precision=recipe.precision,
            hints=recipe.hints,
        )
        step = Step(technique=self.name, options=options(asdict(done)), seed=context.seed)
        return variant.after(save_changed(variant.model, module, context.folder), step)

    def _teacher(self, recipe: Recipe, variant: Variant, context: Context) -> Teacher:
        """Return what the original answers: kept from before where it answers the same to augmented items."""
        kept = self.augment == "auto" and recipe.hints == "none"
        folder = context.shared or context.folder
        models, signature = [context.original.model], variant.model.signature
        return teacher_of(models, signature, context.task, folder, live=recipe.live and not kept)

    def _share(self, task: Task) -> float:
        return self.distill if task.labelled else 1.0

    def _recipe(self, task: Task, select: Split, teacher: Model, *, distils: bool, seed: int) -> Recipe:
        """Return the recipe with everything decided that is left to the data and the machine."""
        chosen = asdict(self) | ({"distill": self._share(task)} if distils else {"distill": 0.0, "hints": "none"})
        if self.precision == "auto":
            chosen["precision"] = "bf16" if _NARROW & set(machine().flags) else "fp32"
        if self.augment == "auto":
            known = indifferent(teacher, task, select, seed) if teacher.format in ("torch", "huggingface") else ()
            chosen["augment"] = "+".join(known) or "none"
        images = any(len(spec.shape) == 4 for spec in teacher.signature.data_inputs)
        return Recipe(**chosen, channels_last=images, seed=seed)


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
