"""Trains a network on data, and writes its weights, its curves and what it takes to continue."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import trimtab
from trimtab.core.codec import dumps, loads
from trimtab.core.errors import BadInput
from trimtab.core.files import new_folder, owned, write_text
from trimtab.core.machine import machine as this_machine
from trimtab.core.protocols import Array
from trimtab.core.values import Model, Reading, Run, Scalar, Split, Task, Trace, content_digest
from trimtab.data.batches import groups as groups_of
from trimtab.data.batches import labels as labels_of
from trimtab.data.request import DataRequest
from trimtab.formats.torch_tracing import load_live
from trimtab.meters.predict import answers
from trimtab.meters.quality import quality_readings, tuned
from trimtab.meters.scores import estimate, lower_is_better
from trimtab.meters.user_metric import user_metric
from trimtab.reports import figures
from trimtab.reports.figures.confusion import between
from trimtab.reports.figures.curves import curves
from trimtab.training.checkpoint import FILE, Epoch
from trimtab.training.fit import Course, Fitted, fit, fitted
from trimtab.training.group import ALONE, WAYS, Group, started_by_torchrun
from trimtab.training.items import Keeping
from trimtab.training.launch import Meeting, Say, together
from trimtab.training.network import answers_of, seeded
from trimtab.training.recipe import Recipe
from trimtab.training.teacher import teacher_of
from trimtab.training.weights import WEIGHTS, save_trained
from trimtab.workbench.opening import ModelRequest, open_model
from trimtab.workbench.task import given_task
from trimtab.workbench.track import Log, named, trackers
from trimtab.workbench.train_notes import cautions, kept, probabilities, rarest

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RUN = "run.json"
UNTAUGHT = "a teacher teaches nothing by itself: add -o distill=0.5, or -o hints=features"
_SERIES = {
    "train_loss": ("loss", "1"),
    "learning_rate": ("rate", "1"),
    "epoch_time": ("seconds", "s"),
    "epoch_cpu_time": ("cpu_s", "s"),
    "loader_time": ("read_s", "s"),
    "loader_wait": ("waited_s", "s"),
}
"""The traces of a run by the field of an epoch, with their units; the score's is called by the metric."""


Heard = Callable[[Epoch, str], None]
"""Hears of every epoch that ends, its score as the metric is read, and of that metric."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """Everything one training was asked: equal ones in one folder are the same run, continued.

    `teachers` are models that a recipe with distill or hints learns from, each as it is opened: "nets:large", or
    "nets:large=large.safetensors" with the weights of a factory. `processes` train together on this machine, dividing
    the work as `parallel` says (one of `training.group.WAYS`).
    """

    model: Any
    data: Any
    output: Path
    teachers: tuple[Any, ...] = ()
    recipe: Recipe = field(default_factory=Recipe)
    data_request: DataRequest = field(default_factory=DataRequest)
    model_request: ModelRequest = field(default_factory=ModelRequest)
    seconds: float = math.inf
    track: tuple[str, ...] = ()
    processes: int = 1
    parallel: str = "ddp"
    command: str = ""


def train(asked: Training, heard: Heard = lambda epoch, metric: None) -> Run:
    """Train a network, or continue where it was killed or its time was up, and return how it went.

    The output folder gets `weights.safetensors` (or, for a Hugging Face model, a folder of its kind), the curves, the
    confusion matrix of a network of classes, `run.json` and, under `work/`, the data and the checkpoint.

    Raises:
        BadInput: the model can't be trained, there is nothing to train on, or the folder holds another training.
    """
    begun = time.monotonic()
    if asked.parallel not in WAYS:
        raise BadInput(f"--parallel {asked.parallel!r} is not known; type one of {', '.join(WAYS)}")
    if asked.processes < 1:
        raise BadInput(f"--processes {asked.processes} makes no sense; give at least 1")
    with started_by_torchrun(asked.parallel) as group:
        if group.size > 1 and asked.processes > 1:
            raise BadInput("torchrun has started the processes already; leave --processes out")
        if group.rank:
            return _follow(group)
        chosen = trackers(asked.track)
        with new_folder(asked.output, f"work/checkpoint/{FILE}"), owned(asked.output), Log(chosen) as log:
            run = _train(asked, begun + asked.seconds, heard, log, group)
        group.told(dumps(run))
    return run


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """What is learnt, as every process that takes part is told it; `work` is a folder that all of them see."""

    model: Model
    teachers: tuple[Model, ...]
    task: Task
    recipe: Recipe
    work: Path

    def course(self, group: Group) -> Course:
        """Return where it is learnt, and from whom, by a process of a group."""
        teacher = None
        if self.teachers:
            teacher = teacher_of(
                self.teachers, self.model.signature, self.task, self.work, live=self.recipe.live, device=group.device
            )
        parts = (self.model.digest, *(each.digest for each in self.teachers))
        start = content_digest(*parts) if self.teachers else self.model.digest
        return Course(folder=self.work / "checkpoint", start=start, teacher=teacher, group=group)

    def judge(self, select: Split) -> Callable[[Array], float]:
        """Return what scores the outputs on the select split: against labels, or what the teachers answer there."""
        return score_of(self.task, select, self.wanted(select))

    def wanted(self, select: Split) -> Array | None:
        """Return what the teachers answer where items have no labels, else None."""
        return None if self.task.labelled else mean_answers(self.teachers, self.task, select)


def _train(asked: Training, deadline: float, heard: Heard, log: Log, group: Group) -> Run:
    """Train in a folder of our own, and leave there what is known of it."""
    work = asked.output / "work"
    seeded(asked.recipe.seed)
    model = open_model(asked.model, work / "model", asked.model_request).model
    task = given_task(asked.data, model, work / "data", replace(asked.data_request, max_drop=None))
    module, select = trainable(model), task.split("select")
    if select is None:
        raise BadInput("training needs data: give items with --data")
    careful, teachers = cautions(task), tuple(opened_teachers(asked, work / "teachers"))
    lesson = Lesson(model=model, teachers=teachers, task=task, recipe=asked.recipe, work=work)
    judge, before = lesson.judge(select), answers_of(module, model.signature, task, select)
    if np.isfinite(before).all():
        judge(before)  # what can't be judged is refused before anything is learnt

    def begun(history: tuple[Epoch, ...]) -> None:
        earlier = [epoch_readings(epoch, task.metric) for epoch in history]
        log.start(work, _configuration(asked, model, task), earlier)

    def told(epoch: Epoch) -> None:
        heard(replace(epoch, score=_sign(task.metric) * epoch.score), task.metric)
        log.log(epoch_readings(epoch, task.metric), epoch.number)

    course = replace(lesson.course(group), deadline=deadline, begun=begun, heard=told)
    done = _fitted(asked, lesson, module, judge, course)
    made = save_trained(model, module, asked.output) if done.finished else None
    after = answers_of(module, model.signature, task, select)
    run = Run(
        configuration=asked.recipe.options(),
        traces=traces(done.history, task.metric),
        readings=_readings(done, task, select, after, lesson.wanted(select)),
        notes=(*task.notes, *careful, *kept(done.keeping), *done.notes, *probabilities(task, after)),
        model=made,
        finished=done.finished,
        checkpoint=course.folder,
        machine=this_machine(),
        time=datetime.now(UTC).isoformat(timespec="seconds"),
        command=asked.command,
    )
    run = replace(run, notes=(*run.notes, *rarest(task, run.readings)))
    return _left(asked.output, run, drawn(run, task, select, before), log)


def _fitted(asked: Training, lesson: Lesson, module: Any, judge: Callable[[Array], float], course: Course) -> Fitted:
    """Fit a module, here or in several processes, and return how it went."""
    model, task, recipe, group = lesson.model, lesson.task, lesson.recipe, course.group
    if asked.processes > 1:
        meeting = Meeting(size=asked.processes, parallel=asked.parallel, logs=lesson.work / "logs")
        together(
            meeting,
            partial(_learn, lesson, course.deadline),
            lambda said: course.begun(said) if isinstance(said, tuple) else course.heard(said),
        )
    elif group.size > 1:
        group.told(dumps(lesson))
        fit(trainable(model), model.signature, task, recipe, judge, course)
    else:
        return fit(module, model.signature, task, recipe, judge, course)
    return fitted(module, model.signature, task, recipe, replace(course, group=ALONE))


def _follow(group: Group) -> Run:
    """Train with the first process of a group, on what it has opened."""
    _learn(loads(Lesson, group.told()), math.inf, group)
    return loads(Run, group.told())


def _learn(lesson: Lesson, deadline: float, group: Group, say: Say = lambda what: None) -> None:
    """Fit as one of several processes; the first says what epochs there were, and then how every one ended."""
    select = lesson.task.split("select")
    assert select is not None
    judge = lesson.judge(select) if group.rank == 0 else lambda outputs: math.nan  # it is the first that judges
    course = replace(lesson.course(group), deadline=deadline, begun=say, heard=say)
    fit(trainable(lesson.model), lesson.model.signature, lesson.task, lesson.recipe, judge, course)


def drawn(run: Run, task: Task, select: Split, before: Array) -> dict[str, Figure]:
    """Return the figures of a training by name: its curves and, of classes, which was taken for which."""
    if not run.traces:
        return {}
    found = {"curves": curves({"": [run]}, task.metric)}
    labels = labels_of(select)
    if task.kind in ("classification", "binary") and labels is not None and np.isfinite(before).all():
        first = quality_readings(tuned(task, labels, before), labels, before)
        figure = between(("before training", first), ("after training", run.readings), task.classes)
        if figure is not None:
            found["confusion"] = figure
    return found


def _left(output: Path, run: Run, found: Mapping[str, Figure], log: Log) -> Run:
    """Write what a training leaves and log it; return the run with what is to be said of that."""
    write_text(output / RUN, dumps(run, indent=1))
    pictures = [path for path in figures.save(found, output) if path.suffix == ".png"]
    if run.finished:
        result = [replace(reading, place="result") for reading in run.readings if reading.place is None]
        log.log(result, len(run.traces[0].times) + 1)
    weights = [path for path in (output / WEIGHTS, output / "model") if run.finished and path.exists()][:1]
    log.end("finished" if run.finished else "killed", [output / RUN, *pictures, *weights])
    if log.warnings:
        run = replace(run, notes=(*run.notes, *log.warnings))
        write_text(output / RUN, dumps(run, indent=1))
    return run


def _configuration(asked: Training, model: Model, task: Task) -> dict[str, Scalar]:
    """Return what a training was asked and where it runs, for those who log it."""
    machine = this_machine()
    return {
        "model": named(asked.model), "model_digest": model.digest, "data": named(asked.data),
        "data_digest": task.digest, "metric": task.metric, **dict(asked.recipe.options()),
        "cpu": machine.cpu, "cores": machine.cores, "command": asked.command, "version": trimtab.__version__,
    }  # fmt: skip


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


def epoch_readings(epoch: Epoch, metric: str) -> list[Reading]:
    """Return what a tracker is told of an epoch: its loss, its score as the metric is read, learning rate and times."""
    return [
        Reading(name=trace.name, value=trace.values[0], unit=trace.unit, source="the fit loop",
                scope=f"epoch {epoch.number}, {epoch.optimizer}")
        for trace in traces((epoch,), metric)
    ]  # fmt: skip


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
        "loader_time": sum(epoch.read_s for epoch in fitted.history),
        "loader_wait": sum(epoch.waited_s for epoch in fitted.history),
    }
    taken = [Reading(name=name, value=value, unit="s", direction="lower", source="the fit loop, validation left out")
             for name, value in spent.items()]  # fmt: skip
    return (*judged, *taken, *_kept_readings(fitted.keeping))


def _kept_readings(keeping: Keeping | None) -> list[Reading]:
    """Return the bytes of the items to train on and the time of a batch, as they are kept and as they were given."""
    if keeping is None:
        return []
    found = [
        ("items_bytes", keeping.store, float(keeping.bytes), "B"),
        ("items_bytes", "as given", float(keeping.given_bytes), "B"),
        ("items_bytes", "prepared", float(keeping.prepared_bytes), "B"),
        ("loader_batch_time", keeping.store, keeping.batch_s, "s"),
        ("loader_batch_time", "as given", keeping.given_batch_s, "s"),
    ]
    return [Reading(name=name, place=place, value=value, unit=unit, direction="lower", source="the loader")
            for name, place, value, unit in found]  # fmt: skip
