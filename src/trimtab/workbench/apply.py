"""One technique on one model, without a search."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import trimtab
from trimtab.core.errors import BadInput
from trimtab.core.files import new_folder, owned
from trimtab.core.machine import machine as this_machine
from trimtab.core.values import Goal, Options, Step, Task, Variant
from trimtab.data.batches import labels as labels_of
from trimtab.meters.predict import settled
from trimtab.meters.quality import tuned
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
            outputs = answers_on(task, split, original, goal, work)
            task = tuned(settled(task, outputs), labels_of(split), outputs)
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
