"""Trains a network on data, and writes its weights, its curves and what it takes to continue."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from trimtab.core.codec import dumps, loads
from trimtab.core.errors import BadInput
from trimtab.core.files import new_folder, owned, write_text
from trimtab.core.machine import machine as this_machine
from trimtab.core.protocols import Array
from trimtab.core.values import Model, Reading, Run, Split, Task, Trace, content_digest
from trimtab.data.batches import groups as groups_of
from trimtab.data.batches import labels as labels_of
from trimtab.data.request import DataRequest
from trimtab.formats.torch_tracing import load_live
from trimtab.meters.predict import answers
from trimtab.meters.quality import quality_readings, tuned
from trimtab.meters.scores import estimate, lower_is_better
from trimtab.meters.user_metric import user_metric
from trimtab.reports import figures
from trimtab.reports.figures.curves import curves
from trimtab.training.checkpoint import FILE, Epoch
from trimtab.training.fit import Course, Fitted, fit
from trimtab.training.network import answers_of, seeded
from trimtab.training.recipe import Recipe
from trimtab.training.teacher import teacher_of
from trimtab.training.weights import save_trained
from trimtab.workbench.opening import ModelRequest, open_model
from trimtab.workbench.task import given_task

RUN = "run.json"
UNTAUGHT = "a teacher teaches nothing by itself: add -o distill=0.5, or -o hints=features"
_IMBALANCED = 10.0  # times as many items in one class as in another, from which it is said
_FEW = 500
_SERIES = {
    "train_loss": ("loss", "1"),
    "learning_rate": ("rate", "1"),
    "epoch_time": ("seconds", "s"),
    "epoch_cpu_time": ("cpu_s", "s"),
    "loader_wait": ("waited_s", "s"),
}
"""The traces of a run by the field of an epoch, with their units; the score's is called by the metric."""


Heard = Callable[[Epoch, str], None]
"""Hears of every epoch that ends, its score as the metric is read, and of that metric."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """Everything one training was asked: equal ones in one folder are the same run, continued.

    `teachers` are models that a recipe with distill or hints learns from, each as it is opened: "nets:large", or
    "nets:large=large.safetensors" with the weights of a factory.
    """

    model: Any
    data: Any
    output: Path
    teachers: tuple[Any, ...] = ()
    recipe: Recipe = field(default_factory=Recipe)
    data_request: DataRequest = field(default_factory=DataRequest)
    model_request: ModelRequest = field(default_factory=ModelRequest)
    seconds: float = math.inf
    command: str = ""


def train(asked: Training, heard: Heard = lambda epoch, metric: None) -> Run:
    """Train a network, or continue where it was killed or its time was up, and return how it went.

    The output folder gets `weights.safetensors` (or, for a Hugging Face model, a folder of its kind), the curves,
    `run.json` and, under `work/`, the data and the checkpoint.

    Raises:
        BadInput: the model can't be trained, there is nothing to train on, or the folder holds another training.
    """
    begun, work = time.monotonic(), asked.output / "work"
    with new_folder(asked.output, f"work/checkpoint/{FILE}"), owned(asked.output):
        seeded(asked.recipe.seed)
        model = open_model(asked.model, work / "model", asked.model_request).model
        task = given_task(asked.data, model, work / "data", replace(asked.data_request, max_drop=None))
        module, select = trainable(model), task.split("select")
        if select is None:
            raise BadInput("training needs data: give items with --data")
        teachers = opened_teachers(asked, work / "teachers")
        notes = (*task.notes, *cautions(task))
        sign, deadline = _sign(task.metric), begun + asked.seconds

        def told(epoch: Epoch) -> None:
            heard(replace(epoch, score=sign * epoch.score), task.metric)

        course = Course(
            folder=work / "checkpoint",
            start=content_digest(model.digest, *(each.digest for each in teachers)) if teachers else model.digest,
            teacher=teacher_of(teachers, model.signature, task, work, live=asked.recipe.live) if teachers else None,
            deadline=deadline,
            heard=told,
        )
        wanted = None if task.labelled else mean_answers(teachers, task, select)
        judge, before = score_of(task, select, wanted), answers_of(module, model.signature, task, select)
        if np.isfinite(before).all():
            judge(before)  # what can't be judged is refused before anything is learnt
        fitted = fit(module, model.signature, task, asked.recipe, judge, course)
        made = save_trained(model, module, asked.output) if fitted.finished else None
        after = answers_of(module, model.signature, task, select)
        run = Run(
            configuration=asked.recipe.options(),
            traces=traces(fitted.history, task.metric),
            readings=_readings(fitted, task, select, after, wanted),
            notes=(*notes, *fitted.notes, *probabilities(task, after)),
            model=made,
            finished=fitted.finished,
            checkpoint=course.folder,
            machine=this_machine(),
            time=datetime.now(UTC).isoformat(timespec="seconds"),
            command=asked.command,
        )
        write_text(asked.output / RUN, dumps(run, indent=1))
        if run.traces:
            figures.save({"curves": curves({"": [run]}, task.metric)}, asked.output)
    return run


def read_run(folder: Path) -> Run:
    """Return the training whose folder this is."""
    if not (folder / RUN).is_file():
        raise BadInput(f"{folder} holds no training ({RUN} is missing); give the --output of trimtab train")
    return loads(Run, (folder / RUN).read_text("utf-8"))


def trainable(model: Model) -> Any:
    """Return the live module of a model; raise `BadInput` when its format holds nothing to train."""
    if model.signature.states:
        raise BadInput("a network that is fed its own state can't be trained here; train it where it comes from")
    if model.format in ("torch", "huggingface"):
        return load_live(model)
    if model.format == "torch-export":
        raise BadInput(f"{model.path} was exported for inference; give the factory that builds the module instead")
    raise BadInput(
        f"{model.path} is {model.format}, and training needs PyTorch: give package.module:factory (--weights), or a "
        "Hugging Face folder"
    )


def opened_teachers(asked: Training, folder: Path) -> list[Model]:
    """Return the teachers of a training as models; raise `BadInput` where there are some and nothing is learnt of them.

    What is said of how models are opened (such as whether code is trusted) is said of all, their weights apart.
    """
    if asked.teachers and not asked.recipe.taught:
        raise BadInput(UNTAUGHT)
    if asked.recipe.taught and not asked.teachers:
        raise BadInput("distill and hints need a teacher: name one with --teacher")
    found = []
    for number, source in enumerate(asked.teachers):
        name, _, weights = source.rpartition("=") if isinstance(source, str) else ("", "", "")
        request = replace(asked.model_request, weights=Path(weights) if name else None)
        found.append(open_model(name or source, folder / str(number), request).model)
    return found


def mean_answers(teachers: Sequence[Model], task: Task, split: Split) -> Array | None:
    """Return the mean of what some models answer to the items of a split, None without any model."""
    each = [answers_of(load_live(model), model.signature, task, split) for model in teachers]
    return np.asarray(np.mean(each, axis=0)) if each else None


def score_of(task: Task, split: Split, wanted: Array | None = None) -> Callable[[Array], float]:
    """Return a function from outputs on a split to the task's metric there, turned so that higher is better.

    Where the items have no labels, the outputs `wanted` of teachers say what is right.
    """
    labels = labels_of(split)
    if labels is None and wanted is not None:
        labels = answers(task, wanted)
        task = replace(task, metric="accuracy") if task.metric == "agreement" else task
    if labels is None:
        raise BadInput(
            "training needs labels, and the items have none: give some, or learn from --teacher alone by -o distill=1"
        )
    if ":" in task.metric:
        own = user_metric(task.metric)
        return lambda outputs: own(labels, outputs)
    sign = _sign(task.metric)
    return lambda outputs: sign * estimate(tuned(task, labels, outputs), task.metric, labels, outputs).value


def cautions(task: Task) -> tuple[str, ...]:
    """Return what to be careful about in the items to train on: too few of them, or of some of their classes."""
    split = task.split("train")
    labels = None if split is None else labels_of(split)
    if split is None or labels is None:
        return ()
    notes = []
    if len(split) < _FEW:
        notes.append(f"{len(split)} items are few to train on: prefer few epochs, augmentation and a small lr")
    if task.kind in ("classification", "binary"):
        counts = np.bincount(labels.astype(np.int64), minlength=len(task.classes))
        missing = [name for name, count in zip(task.classes, counts, strict=False) if count == 0]
        if missing:
            notes.append(f"no item to train on is of class {', '.join(missing[:5])}: it will be unlearnt")
        present = counts[counts > 0]
        if len(present) and present.max() > _IMBALANCED * present.min():
            notes.append(
                f"the largest class has {present.max() / present.min():.0f} times the items of the smallest; "
                "class_weights=balanced weighs them alike"
            )
    return tuple(notes)


def probabilities(task: Task, outputs: Array) -> tuple[str, ...]:
    """Return what to say of a network of classes that answers probabilities: its loss takes them for logits."""
    flat = outputs.reshape(len(outputs), -1)
    if task.kind not in ("classification", "binary") or flat.min() < 0 or flat.max() > 1:
        return ()
    if flat.shape[1] > 1 and not np.allclose(flat.sum(axis=1), 1, atol=1e-3):
        return ()
    return (
        "the network answers probabilities; it learns better when it answers what goes into its softmax or sigmoid",
    )


def traces(history: Sequence[Epoch], metric: str) -> tuple[Trace, ...]:
    """Return the curves of a fit over its epochs; the validation score is as the metric is read."""
    if not history:
        return ()
    times = tuple(float(epoch.number) for epoch in history)
    sign = _sign(metric)
    found = [Trace(name=metric, times=times, values=tuple(sign * epoch.score for epoch in history))]
    for name, (fieldname, unit) in _SERIES.items():
        found.append(Trace(name=name, times=times, values=tuple(getattr(e, fieldname) for e in history), unit=unit))
    return tuple(found)


def _sign(metric: str) -> float:
    """Return what turns a metric into a score, of which more is better, and back."""
    return -1.0 if lower_is_better(metric) else 1.0


def _readings(fitted: Fitted, task: Task, select: Split, outputs: Array, wanted: Array | None) -> tuple[Reading, ...]:
    labels, scope = labels_of(select), f"select split, of which epoch {fitted.best} was chosen"
    judged: list[Reading] = []
    if fitted.best is not None:
        read = tuned(task, labels, outputs)
        judged = quality_readings(read, labels, outputs, wanted, groups=groups_of(select), scope=scope)
    spent = {
        "train_time": sum(epoch.seconds for epoch in fitted.history),
        "train_cpu_time": sum(epoch.cpu_s for epoch in fitted.history),
        "loader_wait": sum(epoch.waited_s for epoch in fitted.history),
    }
    taken = [Reading(name=name, value=value, unit="s", direction="lower", source="the fit loop, validation left out")
             for name, value in spent.items()]  # fmt: skip
    return (*judged, *taken)
