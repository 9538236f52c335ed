"""Puts a known light network in the place of an image classifier, to be trained with the original as its teacher."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from trimtab.core.errors import BadInput, NothingToGain, Refused
from trimtab.core.protocols import Choices, Context, Range
from trimtab.core.values import Signature, Step, Task, Variant, Workload
from trimtab.formats.torch import TorchFormat, save_built
from trimtab.formats.torch_structure import Arguments
from trimtab.formats.torch_tracing import import_torch, load_live
from trimtab.students.inherit import inherit
from trimtab.students.networks import FACTORY, KINDS, build
from trimtab.techniques.int8 import options_of
from trimtab.techniques.structure import answers

_LEAST_SIDE, _SMALL = 4, 64  # pixels


@dataclass(frozen=True, slots=True, kw_only=True)
class Student:
    """A light classifier of images instead of the given one, fitted to its images and classes; nothing is trained yet.

    `kind` is resnet (of few channels, for small images), mobilenetv2, mobilenetv3-small, shufflenetv2,
    efficientnet-lite0, or auto: resnet up to 64 pixels a side, else mobilenetv2. `width` multiplies the channels,
    `depth` the blocks of each stage. Layers of the same kind and kernel as the original's start with its weights where
    they are no larger, the others are drawn.
    """

    width: Annotated[float, Range(0.1, 2.0, 0.01)] = 0.5
    kind: Annotated[str, Choices(*KINDS)] = "auto"
    depth: Annotated[float, Range(0.25, 1.0, 0.25)] = 1.0

    name = "student"
    order = 8
    needs_training = True
    afresh = True
    tidy = True

    def __post_init__(self) -> None:
        for name, value in (("width", self.width), ("depth", self.depth)):
            if not 0 < value <= 8:
                raise BadInput(f"{name}={value:g} is no multiplier of a network's {name}; type one such as 0.5")

    def refuses(self, variant: Variant, task: Task) -> str | None:
        """Refuse unknown kinds, models of other formats, and what does not map one image to one number per class."""
        model = variant.model
        if self.kind not in ("auto", *KINDS):
            return f"there is no student {self.kind!r}: choose auto, {', '.join(KINDS)}"
        if model.format not in ("torch", "huggingface"):
            return f"a student replaces PyTorch modules, this one is {model.format}"
        if task.splits and task.kind not in ("classification", "binary"):
            return f"students classify, and the task is {task.kind}"
        return None if _shapes(model.signature) else _UNFIT

    def apply(self, variant: Variant, context: Context) -> Variant:
        """Return the student with inputs and outputs named as before.

        Raises:
            NothingToGain: it would take as many multiply-accumulates as the given network.
        """
        torch, signature = import_torch("building a student"), variant.model.signature
        arguments, teacher = self._arguments(signature), load_live(variant.model)
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(context.seed)
            made = build(**dict(arguments))  # type: ignore[arg-type] # each has its own type
        inherit(made, teacher)
        made.eval()
        found, (answer,) = answers(made, signature), signature.outputs
        if found is None or [(dtype, shape[1:]) for _, dtype, shape in found] != [(answer.dtype, answer.shape[1:])]:
            raise Refused("a student can't answer as this model does: one number per class for any batch of images")
        model = save_built(FACTORY, arguments, made, signature, context.folder)
        before, after = (_macs(each) for each in (variant.model, model))
        if before is not None and after is not None and after >= before:
            raise NothingToGain(
                f"this student takes {after / 1e6:.1f} million multiply-accumulates and the model {before / 1e6:.1f}: "
                "give a smaller width or depth"
            )
        chosen = options_of(self, kind=dict(arguments)["kind"])
        return variant.after(model, Step(technique=self.name, options=chosen, seed=context.seed))

    def changes(self, before: Variant, after: Variant) -> tuple[str, ...]:
        """Return what the student is, what it costs, and which of its layers start with weights of the original."""
        given = dict(after.steps[-1].options)
        old, new = load_live(before.model), load_live(after.model)
        chosen = Student(**given)  # type: ignore[arg-type] # options are those of this class
        sizes = (sum(weight.numel() for weight in module.parameters()) for module in (old, new))
        lines = [f"{chosen.kind} × {chosen.width:g}: {' → '.join(f'{size:,}' for size in sizes)} parameters"]
        macs = [_macs(each.model) for each in (before, after)]
        if None not in macs:
            lines.append(f"{' → '.join(f'{each / 1e6:.1f}' for each in macs if each)} million multiply-accumulates")
        pairs = inherit(new, old)
        return (*lines, *(f"{name}: starts with weights of {source}" for name, source in pairs))

    def _arguments(self, signature: Signature) -> Arguments:
        image, classes = _shapes(signature) or ((0, 0, 0), 0)
        usual = "resnet" if min(image[1:]) <= _SMALL else "mobilenetv2"
        return (
            ("kind", usual if self.kind == "auto" else self.kind),
            ("width", self.width),
            ("depth", self.depth),
            ("image", image),
            ("classes", classes),
            ("called", signature.inputs[0].name),
        )


_UNFIT = (
    "students take one input of images [items, channels, height, width] (float32, at least "
    f"{_LEAST_SIDE} pixels a side) and give one output [items, classes]; this model does not"
)


def _shapes(signature: Signature) -> tuple[tuple[int, int, int], int] | None:
    """Return channels, height and width of the images and the number of classes, None where it is not about those."""
    if signature.states or len(signature.inputs) != 1 or len(signature.outputs) != 1:
        return None
    (given,), (answer,) = signature.inputs, signature.outputs
    sizes = tuple(size for size in given.shape[1:] if isinstance(size, int))
    classes = answer.shape[1] if len(answer.shape) == 2 else None
    if given.dtype != "float32" or len(given.shape) != 4 or len(sizes) != 3 or not isinstance(classes, int):
        return None
    channels, height, width = sizes
    sensible = min(height, width) >= _LEAST_SIDE and given.name.isidentifier()
    return ((channels, height, width), classes) if sensible else None


def _macs(model: Any) -> int | None:
    """Return the multiply-accumulates of one item, None where the network can't be traced: a search times it anyway."""
    try:
        return TorchFormat().work(model, Workload()).macs
    except BadInput:
        return None
