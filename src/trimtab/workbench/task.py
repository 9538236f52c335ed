"""The data as they were given, and whether a goal makes sense for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trimtab.core.errors import BadInput
from trimtab.core.values import Goal, Model, Task
from trimtab.data.request import DataRequest
from trimtab.data.task import open_task
from trimtab.meters.judge import judged_metric
from trimtab.meters.scores import bounds, check_metric
from trimtab.search.race import TIMED, foreign_meters

_COUNTED = ("bytes", "peak_memory", "macs", "macs_nonzero", "parameters")


def given_task(data: Any, model: Model, folder: Path, request: DataRequest) -> Task:
    """Return the data as a task for the model; an opened task as it is, and without data one that can only be timed."""
    if isinstance(data, Task):
        return data
    if data is None:
        return Task()
    task = open_task(data, model, folder, request)
    check_metric(task.metric)
    return task


def check_goal(goal: Goal, task: Task) -> None:
    """Raise `BadInput` when nothing reads what the goal improves, or it allows a drop that no test can be about."""
    if goal.objective not in (*TIMED, *_COUNTED) and not foreign_meters():
        raise BadInput(
            f"a search can't improve {goal.objective!r}: give --minimize latency, size, memory, macs or parameters, "
            "or --maximize throughput; any reading can be a --limit"
        )
    metric, drop = judged_metric(task), goal.max_drop
    share = bounds(metric) == (0.0, 1.0) and ":" not in metric
    if task.splits and drop is not None and not 0 < drop < (1 if share else float("inf")):
        unit = "between 0 and 1 (0.01 is one point)" if share else "above 0, in its own unit"
        raise BadInput(f"max_drop={drop:g} says nothing about {metric}: give a number {unit}")
