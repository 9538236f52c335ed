"""One technique on one model, without a search."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path

import trimtab
from trimtab.core import plugins
from trimtab.core.errors import BadInput
from trimtab.core.files import make_folder, owned
from trimtab.core.machine import machine as this_machine
from trimtab.core.values import Goal, Options, Scalar, Step, Task, Variant
from trimtab.search.making import Shop, make
from trimtab.serving.bundle import write_bundle
from trimtab.workbench.proof import answers_on


def apply(
    original: Variant, technique: str, task: Task, output: Path, *, options: Options = (), seed: int = 0
) -> Variant:
    """Apply a technique and write the variant as a bundle (without a certificate) to the output folder."""
    work = make_folder(output) / "work"
    goal = Goal()
    with owned(work):
        split = task.split("select")
        answers = None
        if split is not None:
            answers_on(task, split, original, goal, work)
            answers = work / "answers" / f"{original.key}-{split.digest}.npy"
        shop = Shop(task=task, goal=goal, original=original, folder=work / "variants", answers=answers)
        variant = make(
            shop, original, Step(technique=technique, options=options, seed=seed), 3600.0, work / "apply.log"
        )
        write_bundle(
            output,
            variant,
            task,
            measurement=None,
            certificate=None,
            machine=this_machine(),
            version=trimtab.__version__,
        )
    return variant


def typed_options(technique: str, given: Sequence[str]) -> dict[str, Scalar]:
    """Return options typed as "name=value", with the types of the technique's own signature."""
    parameters = inspect.signature(plugins.plugin_class("techniques", technique)).parameters
    found: dict[str, Scalar] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or name not in parameters:
            raise BadInput(f"{technique} has no option {text!r}; its options are: {', '.join(parameters) or 'none'}")
        found[name] = _typed(value, parameters[name].default, technique, name)
    return found


def _typed(value: str, default: object, technique: str, name: str) -> Scalar:
    words: dict[str, Scalar] = {"true": True, "false": False, "none": None}
    if value.lower() in words and not isinstance(default, str):
        return words[value.lower()]
    try:
        return float(value) if isinstance(default, float) else int(value) if isinstance(default, int) else value
    except ValueError as error:
        raise BadInput(f"{technique}'s option {name} takes a number, not {value!r}") from error
