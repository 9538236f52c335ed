"""The data as they were given, and whether a goal makes sense for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from trimtab.core import plugins
from trimtab.core.errors import BadInput
from trimtab.core.values import Goal, Limit, Model, Reading, Task
from trimtab.data.request import DataRequest
from trimtab.data.task import open_task
from trimtab.meters.judge import judged_metric
from trimtab.meters.scores import bounds, check_metric, is_metric, readable
from trimtab.search.race import METERS, TIMED, foreign_meters
from trimtab.serving.bundle import MANIFEST, read_manifest

_COUNTED = ("bytes", "bytes_compressed", "peak_memory", "macs", "macs_nonzero", "parameters")
_RATES = ("compression_parameters", "compression_bytes")


def given_task(data: Any, model: Model, folder: Path, request: DataRequest) -> Task:
    """Return the data as a task for the model; an opened task as it is, and without data one that can only be timed."""
    if isinstance(data, Task):
        return data
    if data is None:
        return Task()
    task = open_task(data, model, folder, request)
    check_metric(task.metric)
    return task


def as_bundled(task: Task, models: Sequence[Any], request: DataRequest) -> Task:
    """Return a binary task with the threshold, and its class, that a bundle among the models answers by.

    A threshold that was given goes before it; `BadInput` is raised where several bundles, or `--positive`, disagree.
    """
    if task.kind != "binary" or task.threshold is not None:
        return task
    folders = [Path(model) for model in models if isinstance(model, str | Path) and (Path(model) / MANIFEST).is_file()]
    known = {folder: read_manifest(folder).task for folder in folders}
    found = {(own.positive, own.threshold): str(folder) for folder, own in known.items() if own.threshold is not None}
    if len(found) > 1:
        told = ", ".join(f"{folder} at {threshold:.3g}" for (_, threshold), folder in found.items())
        raise BadInput(f"the bundles answer at thresholds of their own ({told}); give one for all with --threshold")
    for (positive, threshold), folder in found.items():
        if request.positive is not None and task.positive != positive:
            raise BadInput(f"{folder} was made for the other class: leave out --positive, or give --threshold as well")
        return replace(task, positive=positive, threshold=threshold)
    return task


def unseen(task: Task, models: Sequence[Any]) -> Task:
    """Return the task without the select items where a bundle among the models was chosen on such items."""
    folders = [Path(model) for model in models if isinstance(model, str | Path) and (Path(model) / MANIFEST).is_file()]
    chosen = [str(folder) for folder in folders if read_manifest(folder).certificate is not None]
    if not chosen or task.split("certify") is None or task.split("select") is None:
        return task
    note = f"judged on the certify items alone: the select items may have chosen {', '.join(chosen)}"
    splits = tuple(split for split in task.splits if split.name != "select")
    return replace(task, splits=splits, notes=(*task.notes, note))


def check_goal(goal: Goal, task: Task) -> None:
    """Raise `BadInput` when nothing reads what the goal improves or limits, or no test can be about what it allows."""
    if goal.objective not in (*TIMED, *_COUNTED) and not foreign_meters():
        raise BadInput(
            f"a search can't improve {goal.objective!r}: give --minimize latency, size, compressed, memory, macs or "
            "parameters, or --maximize throughput; any reading can be a --limit"
        )
    metric, drop = judged_metric(task), goal.max_drop
    share = bounds(metric) == (0.0, 1.0) and ":" not in metric
    if task.splits and drop is not None and not 0 < drop < (1 if share else float("inf")):
        unit = "between 0 and 1 (0.01 is one point)" if share else "above 0, in its own unit"
        raise BadInput(f"max_drop={drop:g} says nothing about {metric}: give a number {unit}")
    if goal.workload.concurrency != 1 or goal.workload.arrival_rate_hz is not None:
        raise BadInput("calls are timed one at a time: leave concurrency and arrival_rate_hz out of the workload")
    _check_limits(goal, task)


def _check_limits(goal: Goal, task: Task) -> None:
    """Raise `BadInput` for a limit on what nothing reads of such data.

    What meters of others read is known only when they have read the model as given: see `lost_limits`.
    """
    known = [*_own(), *readable(task)]
    if not task.splits:
        known.remove("latency_end_to_end")
    for name in (limit.reading for limit in goal.limits):
        strange = name in _own() or is_metric(name) or not foreign_meters()
        if name not in known and strange:
            near = get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else "."
            data = "without data" if not task.splits else f"for {task.kind}" + " without labels" * (not task.labelled)
            raise BadInput(f"a limit can't be on {name!r} {data}{hint} What can be read: {', '.join(known)}")


def lost_limits(goal: Goal, readings: Sequence[Reading], *, judged: bool) -> list[Limit]:
    """Return the limits on what none of the readings of the model as given is about, so that none of a variant will be.

    They are on what no meter of others reads and, where its answers were `judged`, on quality that they don't tell.
    """
    named = {reading.name for reading in readings}
    known = {reading.name for reading in readings if reading.value is not None and reading.place is None}
    others = [limit for limit in goal.limits if limit.reading not in _own()]
    lost = [limit for limit in others if limit.reading not in (known if is_metric(limit.reading) else named)]
    return [limit for limit in lost if judged or not is_metric(limit.reading)]


def _own() -> tuple[str, ...]:
    """Return the names of what our meters read of any model."""
    declared = [getattr(plugins.plugin_class("meters", name), "readings", {}) for name in METERS]
    return (*(reading for names in declared for reading in names), *_RATES)
