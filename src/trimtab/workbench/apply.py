"""One technique on one model, without a search."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import get_args, get_type_hints

import trimtab
from trimtab.core import plugins
from trimtab.core.errors import BadInput
from trimtab.core.files import new_folder, owned
from trimtab.core.machine import machine as this_machine
from trimtab.core.values import Goal, Options, Scalar, Step, Task, Variant
from trimtab.meters.predict import settled
from trimtab.search.making import Shop, make
from trimtab.serving.bundle import MANIFEST, bundled_variant, check_place, read_manifest, write_bundle
from trimtab.workbench.clean import MARK
from trimtab.workbench.proof import answers_file, answers_on
from trimtab.workbench.report import RESULT

_MOST_S = 3600.0


def apply(
    original: Variant, technique: str, task: Task, output: Path, *, options: Options = (), seed: int = 0
) -> Variant:
    """Apply a technique and write the variant as a bundle, without a certificate, to the output folder.

    Returns the variant as it lies in the bundle; nothing else is left on the disk.
    """
    _check_free(output)
    with (
        new_folder(output, MANIFEST),
        owned(output),
        TemporaryDirectory(dir=output, prefix=".applying-") as temporary,
    ):
        work, goal, split = Path(temporary), Goal(), task.split("select")
        shop = Shop(task=task, goal=goal, original=original, folder=work / "variants")
        if split is not None:
            task = settled(task, answers_on(task, split, original, goal, work))
            shop = replace(shop, task=task, answers=answers_file(work, original, split))
        step = Step(technique=technique, options=options, seed=seed)
        made = make(shop, original, step, _MOST_S, work / "apply.log")
        write_bundle(
            output,
            made.variant,
            task,
            measurement=None,
            certificate=None,
            machine=this_machine(),
            version=trimtab.__version__,
        )
    return bundled_variant(output, read_manifest(output), trust_pickle=True)  # it was made a moment ago


def _check_free(output: Path) -> None:
    """Raise `BadInput` when the folder holds a run of `optimize`, whose bundle must not be mixed with another one."""
    if (output / RESULT).exists() or (output / "work" / MARK).exists():
        raise BadInput(f"{output} holds a run of trimtab optimize; choose another --output")
    check_place(output)


def typed_options(technique: str, given: Sequence[str]) -> dict[str, Scalar]:
    """Return options typed as "name=value", with the types of the technique's own signature."""
    hints = get_type_hints(plugins.plugin_class("techniques", technique).__init__)
    hints.pop("return", None)
    found: dict[str, Scalar] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or name not in hints:
            raise BadInput(f"{technique} has no option {text!r}; its options are: {', '.join(hints) or 'none'}")
        found[name] = _typed(value, get_args(hints[name]) or (hints[name],), f"{technique}'s option {name}")
    return found


def _typed(value: str, kinds: Sequence[type], option: str) -> Scalar:
    """Return what was typed as the first of the types, the narrowest before the wider ones, that it fits."""
    for kind, read in _READERS.items():
        if kind in kinds:
            with suppress(KeyError, ValueError):
                return read(value)
    wanted = " or ".join(_WORDS[kind] for kind in _READERS if kind in kinds)
    raise BadInput(f"{option} takes {wanted}, not {value!r}")


_READERS: dict[type, Callable[[str], Scalar]] = {
    type(None): lambda value: {"none": None}[value.lower()],
    bool: lambda value: {"true": True, "false": False}[value.lower()],
    int: int,
    float: float,
    str: str,
}
_WORDS = {type(None): "none", bool: "true or false", int: "a whole number", float: "a number", str: "a word"}
