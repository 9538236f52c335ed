"""Trains a network again after its structure was changed, with the original as its teacher."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

from trimtab.core.machine import machine
from trimtab.core.memo import remembered
from trimtab.core.protocols import Context
from trimtab.core.values import Options, Split, Step, Task, Variant, content_digest, options
from trimtab.formats.torch import save_changed
from trimtab.formats.torch_tracing import load_live
from trimtab.techniques import learning
from trimtab.training.invariance import indifferent
from trimtab.training.recipe import Recipe

_RATE, _RATE_OF_TOKENS = 2e-3, 2e-4  # of Adam; transformers forget what they know at higher ones
_AUGMENTED = 10  # epochs from which augmentation brings more than it costs
_BATCHES, _STEPS = (128, 64, 32, 16), 50
_DECIDED = {"augment", "batch", "lr", "precision"}  # by the data and the machine, as a rule
_NARROW = {"avx512_bf16", "amx_bf16"}  # flags of processors that multiply bf16


@dataclass(frozen=True, slots=True, kw_only=True)
class FineTune:
    """Training on the train split, by labels and by what the original answers (distillation).

    The options are those of `trimtab train` (see `training/recipe.py`). Without labels the original is the only
    teacher, whatever `distill` says; the original itself learns by labels alone. `augment` auto takes none for fewer
    than ten epochs, which hardly see an item often enough to learn it by heart; from then on those that the original is
    indifferent to, so that what it answered to the items as they are is right for them augmented. `precision` auto is
    bf16 where the processor multiplies such numbers. `hints` (features, attention) lets inner layers follow the
    original's as well. `batch` none is 128 items, or fewer where an epoch would have less than 50 steps; `lr` none is
    2e-3, for transformers on sequences 2e-4 (of adam).
    """

    epochs: int = 3
    share: float = 1.0
    batch: int | None = None
    optimizer: str = "adam"
    lr: float | None = None
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

    @staticmethod
    def told(given: Options) -> Options:
        """Return the options as a label tells them: a chain has several trainings, and what differs is how long."""
        return tuple((name, value) for name, value in given if name not in _DECIDED)

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
        recipe = self._recipe(variant, context)
        module, start = load_live(variant.model), variant.model.digest
        alike = self.augment == "auto"
        fitted = learning.learn(module, variant.model.signature, recipe, context, start, alike=alike)
        done = replace(
            self,
            epochs=len(fitted.history),
            batch=recipe.batch,
            lr=recipe.lr,
            distill=recipe.distill,
            augment=recipe.augment,
            precision=recipe.precision,
            hints=recipe.hints,
        )
        step = Step(technique=self.name, options=options(asdict(done)), seed=context.seed)
        return variant.after(save_changed(variant.model, module, context.folder), step)

    def _recipe(self, variant: Variant, context: Context) -> Recipe:
        """Return the recipe with everything decided that is left to the data and the machine."""
        task, teacher = context.task, context.original.model
        share = learning.share(self.distill, context, variant.model)
        chosen = asdict(self) | {"distill": share, "hints": self.hints if share else "none"}
        if self.precision == "auto":
            chosen["precision"] = "bf16" if _NARROW & set(machine().flags) else "fp32"
        if self.augment == "auto":
            select = task.split("select")
            asks = self.epochs >= _AUGMENTED and select is not None and teacher.format in learning.TRAINABLE
            known = _indifferent(context, select) if asks and select is not None else ()
            chosen["augment"] = "+".join(known) or "none"
        inputs = variant.model.signature.data_inputs
        if self.batch is None:
            split = task.split("train")
            chosen["batch"] = fitting_batch(0 if split is None else round(self.share * len(split)))
        if self.lr is None and self.optimizer in ("adam", "adamw"):
            chosen["lr"] = _RATE_OF_TOKENS if any(spec.dtype.startswith("int") for spec in inputs) else _RATE
        images = any(len(spec.shape) == 4 for spec in inputs)
        return Recipe(**chosen, channels_last=images, seed=context.seed)


def _indifferent(context: Context, select: Split) -> tuple[str, ...]:
    """Return the augmentations that the original is indifferent to, found once in a run."""
    teacher, task = context.original.model, context.task
    name = f"indifferent-{content_digest(teacher.digest, task.digest, context.seed)[:16]}.json"

    def find() -> tuple[str, ...]:
        return indifferent(teacher, task, select, context.seed)

    return remembered((context.shared or context.folder) / name, tuple[str, ...], find)


def fitting_batch(items: int) -> int:
    """Return how many items a step sees: a power of two up to 128 that leaves an epoch enough steps."""
    return next((size for size in _BATCHES if items >= _STEPS * size), _BATCHES[-1])
