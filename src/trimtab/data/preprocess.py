"""Spells out `--preprocess`: a preset, a TOML file, a tokenizer, or `module:function`, as a tuple of steps.

A TOML file lists its steps in order; lists of numbers may be written as such:

    [[step]]
    name = "resize"
    size = 256

    [[step]]
    name = "crop"
    size = 224

    [[step]]
    name = "layout"
    to = "NCHW"

    [[step]]
    name = "scale"          # divide by 255

    [[step]]
    name = "normalize"
    mean = [0.485, 0.456, 0.406]
    std = [0.229, 0.224, 0.225]

An `input = "name"` binds a step to one of several model inputs. All steps and their options are in `steps.py`,
and `tokenize` (tokenizer = "tokenizer.json" or its folder, length and width in tokens) in `text.py`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from trimtab.core.errors import BadInput
from trimtab.core.values import Scalar, Signature, Step, TensorSpec, options
from trimtab.data.python import is_reference
from trimtab.data.steps import BY_ITEM, ONCE, check
from trimtab.data.text import tokenize_step, tokenizer_file

Preprocess = str | Path | Sequence[Step] | None
"""What a person may give: a preset's name, a file, `module:function`, or a list of steps."""


def spell(given: Preprocess, signature: Signature) -> tuple[Step, ...]:
    """Return the steps that are meant; raise `BadInput` for an unknown name, step or option."""
    if given is None:
        return ()
    if not isinstance(given, str | Path):
        return tuple(replace(check(step), options=tuple(o for o in step.options if o[0] != ONCE)) for step in given)
    spec = next(iter(signature.data_inputs), None)
    if given in _PRESETS and spec is not None:
        return _PRESETS[str(given)](spec)
    path = Path(given)
    if path.suffix == ".toml":
        return read_toml(path)
    if found := tokenizer_file(path):
        return (tokenize_step(found),)
    if is_reference(str(given)) and not path.exists():
        return (Step(technique="call", options=options(function=str(given))),)
    raise BadInput(
        f"--preprocess {given} is not known; "
        f"give {', '.join(_PRESETS)}, a .toml file, a tokenizer.json or module:function"
    )


def read_toml(path: Path) -> tuple[Step, ...]:
    """Return the steps of a TOML file as the head of this module describes it."""
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadInput(f"{path} can't be read as TOML ({error}); mend it") from error
    listed = content.get("step")
    if not isinstance(listed, list) or not listed or not all(isinstance(one, dict) and "name" in one for one in listed):
        raise BadInput(f"{path} lists no steps; write [[step]] and name = … for each")
    return tuple(_step(one, path) for one in listed)


def marked(steps: Iterable[Step], by_item: bool) -> tuple[Step, ...]:
    """Return the steps with those marked that are done once, when the task is opened, and kept on disk.

    For items read from files (`by_item`) these are the steps up to the last one that can change sizes, because such
    items may differ; for arrays those up to the last `call` of a user's function, whose results must not change later.
    Everything else is done for every batch, so that what is kept stays small.
    """
    listed = tuple(steps)
    kinds = (BY_ITEM if by_item else frozenset(("call",))) | {"tokenize"}
    last = max((position for position, step in enumerate(listed) if step.technique in kinds), default=-1)
    return tuple(
        replace(step, options=options(dict(step.options), **{ONCE: True})) if position <= last else step
        for position, step in enumerate(listed)
    )


def _step(given: dict[str, Any], path: Path) -> Step:
    plain: dict[str, Scalar] = {}
    for name, value in given.items():
        if name == "tokenizer":
            value = str((path.parent / str(value)).resolve())
        if isinstance(value, list):
            value = ", ".join(str(one) for one in value)
        if not isinstance(value, str | int | float | bool):
            raise BadInput(f"{path}: {name} = {value!r} is not a number, a text, or a list of numbers; mend it")
        if name != "name":
            plain[name] = value
    return check(Step(technique=str(given["name"]), options=options(plain)))


def _imagenet(spec: TensorSpec) -> tuple[Step, ...]:
    """Return torchvision's steps for ImageNet: shorter side 256, centre 224 (or in proportion), mean and std."""
    order, side = _order(spec), _side(spec, 224)
    return (
        Step(technique="resize", options=options(size=round(side * 256 / 224))),
        Step(technique="crop", options=options(size=side)),
        Step(technique="rgb"),
        Step(technique="layout", options=options(to=order)),
        Step(technique="scale", options=options(divisor=255.0)),
        Step(
            technique="normalize",
            options=options(mean="0.485, 0.456, 0.406", std="0.229, 0.224, 0.225", axis=1 if order == "NCHW" else -1),
        ),
    )


def _mnist(spec: TensorSpec) -> tuple[Step, ...]:
    """Return the usual steps for MNIST: grey, divided by 255, mean 0.1307, std 0.3081; flat for a flat input."""
    flat = len(spec.shape) == 2
    shaped = (
        Step(technique="reshape", options=options(shape="-1"))
        if flat
        else Step(technique="layout", options=options(to=_order(spec)))
    )
    return (
        Step(technique="grey"),
        shaped,
        Step(technique="scale", options=options(divisor=255.0)),
        Step(technique="normalize", options=options(mean=0.1307, std=0.3081)),
    )


_PRESETS = {"imagenet": _imagenet, "mnist": _mnist}


def _order(spec: TensorSpec) -> str:
    shape = spec.shape
    return "NHWC" if len(shape) == 4 and shape[3] in (1, 3) and shape[1] not in (1, 3) else "NCHW"


def _side(spec: TensorSpec, usual: int) -> int:
    if len(spec.shape) != 4:
        return usual
    side = spec.shape[1 if _order(spec) == "NHWC" else 2]
    return side if isinstance(side, int) else usual
