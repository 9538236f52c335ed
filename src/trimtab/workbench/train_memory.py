"""Tells what a training step holds in memory, and what each measure saves of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from trimtab.core.codec import dumps
from trimtab.core.errors import BadInput
from trimtab.core.files import new_folder, owned, write_text
from trimtab.core.machine import machine as this_machine
from trimtab.reports import figures
from trimtab.reports.figures.memory import memory as drawn
from trimtab.training.memory import Memory, measures, step_memory
from trimtab.workbench.opening import open_model
from trimtab.workbench.task import given_task
from trimtab.workbench.train import Training, trainable

MEMORY = "memory.json"


def train_memory(asked: Training) -> Memory:
    """Read what one step of a training holds, and write it with its figure into the output folder; nothing is trained.

    Every measure is read in a process of its own: activation checkpointing, bf16 autocast, accumulated gradients, and
    gradients that are set to zero instead of being freed.

    Raises:
        BadInput: the model can't be trained, or there is nothing to train on.
    """
    if asked.processes > 1:
        raise BadInput("--memory looks into one process: leave --processes out")
    work = asked.output / "work"
    with new_folder(asked.output, MEMORY), owned(asked.output):
        model = open_model(asked.model, work / "model", asked.model_request).model
        task = given_task(asked.data, model, work / "data", replace(asked.data_request, max_drop=None))
        trainable(model)
        first, *others = measures(asked.recipe)
        found = Memory(
            items=asked.recipe.batch,
            steps=(step_memory(model, task, first), *(step_memory(model, task, other) for other in others)),
            machine=this_machine(),
            time=datetime.now(UTC).isoformat(timespec="seconds"),
            command=asked.command,
        )
        write_text(asked.output / MEMORY, dumps(found, indent=1))
        figures.save({"memory": drawn(found)}, asked.output)
    return found
