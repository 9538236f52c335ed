"""How a network is trained: the options of a fit, checked when they are made."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import get_args, get_type_hints

from trimtab.core.errors import BadInput
from trimtab.core.plugins import read_value
from trimtab.core.values import Options, Scalar, options

OPTIMIZERS = ("sgd", "adam", "adamw", "rmsprop", "adam-then-sgd")
SCHEDULES = ("cosine", "step", "one-cycle", "constant")
AUGMENTATIONS = ("crop", "flip", "rotate", "scale", "erase", "mixup")
PRECISIONS = ("fp32", "bf16")
HINTS = ("none", "features", "attention")
CLASS_WEIGHTS = ("none", "balanced")
STORES = ("as-given", "float32", "bf16", "uint8")
LEARNING_RATES = {"sgd": 0.05, "adam": 1e-3, "adamw": 1e-3, "rmsprop": 3e-4}
"""What is taken when no learning rate is given, by optimizer."""

_SWITCH = re.compile(r"flat|(epoch|step):([1-9]\d*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """The options of a fit.

    Attributes:
        epochs: passes over the train split, or over a share of it.
        share: part of the train split that an epoch sees, another one each time.
        batch: items a step of the optimizer sees.
        accumulate: equal parts that a batch is seen in, one after the other, so that less is in memory at once.
        optimizer: sgd (momentum, Nesterov), adam, adamw, rmsprop, or adam-then-sgd.
        lr: the highest learning rate; None takes the optimizer's usual one.
        sgd_lr: the learning rate that SGD goes on with in adam-then-sgd; None takes SGD's usual one.
        switch: when adam-then-sgd switches: "epoch:5", "step:2000", or "flat", when the validation curve flattens.
        momentum: of sgd and rmsprop.
        weight_decay: L2 penalty (decoupled for adamw); biases and normalization layers are left out.
        l1: weight of the L1 penalty on the same tensors.
        schedule: how the learning rate decays after the warm-up: cosine, step, one-cycle, constant.
        warmup: epochs (a fraction is allowed) over which the learning rate rises from zero.
        augment: names joined by "+" of crop, flip, rotate, scale, erase, mixup; "none" for none.
        label_smoothing: probability mass that is spread over all classes.
        dropout: sets the rate of every dropout layer; None leaves them as they are.
        class_weights: "balanced" weighs every class alike in the loss, whatever its number of items.
        distill: share of the loss that is about a teacher's answers instead of labels; 1 needs no labels.
        temperature: softens the answers of both in distillation.
        hints: what is learnt from inside a teacher: features (maps of activations), attention (where it looks), none.
        hint_weight: what the loss of the hints is multiplied by before it is added to the rest.
        clip: the largest norm of all gradients together; None clips nothing.
        ema: decay of the exponential moving average of the weights that is validated and kept; 0 for none.
        patience: epochs without a better validation score after which the fit stops; None goes on to the end.
        precision: fp32, or bf16 for autocast.
        channels_last: lays images out as NHWC, which convolutions on CPUs prefer.
        compile: trains the module as torch.compile compiles it.
        checkpointing: recomputes activations in the backward pass instead of keeping them.
        store: how the items are kept on disk: as-given, float32, bf16 (rounded) or uint8 (only where it is exact).
        seed: of the order of items, of augmentation and of dropout.
    """

    epochs: int = 10
    share: float = 1.0
    batch: int = 64
    accumulate: int = 1
    optimizer: str = "adam"
    lr: float | None = None
    sgd_lr: float | None = None
    switch: str = "flat"
    momentum: float = 0.9
    weight_decay: float = 5e-4
    l1: float = 0.0
    schedule: str = "cosine"
    warmup: float = 0.5
    augment: str = "none"
    label_smoothing: float = 0.0
    dropout: float | None = None
    class_weights: str = "none"
    distill: float = 0.0
    temperature: float = 4.0
    hints: str = "none"
    hint_weight: float = 1.0
    clip: float | None = None
    ema: float = 0.0
    patience: int | None = None
    precision: str = "fp32"
    channels_last: bool = False
    compile: bool = False
    checkpointing: bool = False
    store: str = "as-given"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, known in _WORDS.items():
            if getattr(self, name) not in known:
                raise BadInput(f"{name}={getattr(self, name)!r} is not known; type one of {', '.join(known)}")
        for name, (least, most, inside) in _RANGES.items():
            value = getattr(self, name)
            if value is not None and not (least <= value < (math.inf if most is None else most)):
                raise BadInput(f"{name}={value:g} makes no sense: it must be {inside}")
        for name in self.augmentations:
            if name not in AUGMENTATIONS:
                raise BadInput(f"augment={name!r} is not known; join some of {', '.join(AUGMENTATIONS)} with +")
        if not _SWITCH.fullmatch(self.switch):
            raise BadInput(f'switch={self.switch!r} is not understood; type "flat", "epoch:5" or "step:2000"')
        if self.batch % self.accumulate:
            raise BadInput(f"batch={self.batch} can't be divided into {self.accumulate} equal parts; change accumulate")
        if self.compile and self.hints != "none":
            raise BadInput("hints can't look into a compiled network: leave hints or compile out")

    @property
    def augmentations(self) -> tuple[str, ...]:
        """The names of the augmentations, in the order in which they were typed."""
        return () if self.augment == "none" else tuple(name.strip() for name in self.augment.split("+"))

    @property
    def taught(self) -> bool:
        """Whether a teacher is needed."""
        return self.distill > 0 or self.hints != "none"

    @property
    def live(self) -> bool:
        """Whether a teacher must answer anew in every step: it is to see augmented items, or to be looked into."""
        return bool(self.augmentations) or self.hints != "none"

    @property
    def switches_at(self) -> tuple[str, int] | None:
        """("epoch" or "step", its number) of the switch to SGD; None where the validation curve decides."""
        kind, _, number = self.switch.partition(":")
        return (kind, int(number)) if number else None

    def options(self) -> Options:
        """Return every option by name."""
        return options(asdict(self))

    def changed(self) -> Options:
        """Return the options that differ from the defaults, as a person would type them."""
        usual = dict(Recipe().options())
        return tuple((name, value) for name, value in self.options() if value != usual[name])


_WORDS = {
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
    "precision": PRECISIONS,
    "class_weights": CLASS_WEIGHTS,
    "hints": HINTS,
    "store": STORES,
}
_TINY = 1e-12
_RANGES: dict[str, tuple[float, float | None, str]] = {
    "epochs": (1, None, "at least 1"),
    "share": (_TINY, 1 + _TINY, "above 0 and at most 1"),
    "batch": (1, None, "at least 1"),
    "accumulate": (1, None, "at least 1"),
    "lr": (_TINY, None, "above 0"),
    "sgd_lr": (_TINY, None, "above 0"),
    "momentum": (0, 1, "at least 0 and below 1"),
    "weight_decay": (0, None, "at least 0"),
    "l1": (0, None, "at least 0"),
    "warmup": (0, None, "at least 0"),
    "label_smoothing": (0, 1, "at least 0 and below 1"),
    "dropout": (0, 1, "at least 0 and below 1"),
    "distill": (0, 1 + _TINY, "between 0 and 1"),
    "temperature": (_TINY, None, "above 0"),
    "hint_weight": (0, None, "at least 0"),
    "clip": (_TINY, None, "above 0"),
    "ema": (0, 1, "at least 0 and below 1"),
    "patience": (1, None, "at least 1"),
    "seed": (0, None, "at least 0"),
}


def read_recipe(typed: Sequence[str], base: Recipe | None = None) -> Recipe:
    """Return the recipe with the options typed as "name=value" in place of those of `base` (or of the defaults)."""
    hints = get_type_hints(Recipe)
    found: dict[str, Scalar] = {}
    for text in typed:
        name, equals, value = text.partition("=")
        if not equals or name not in hints:
            known = ", ".join(field.name for field in fields(Recipe))
            raise BadInput(f"training has no option {text!r}; its options are: {known}")
        found[name] = read_value(value, get_args(hints[name]) or (hints[name],), f"the training option {name}")
    return replace(base or Recipe(), **found)  # type: ignore[arg-type] # read_value gave each its own type
