"""Applies a technique in a process of its own, once: the variant it made is kept for every later use."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trimtab.core import plugins
from trimtab.core.codec import dumps, loads
from trimtab.core.errors import Refused
from trimtab.core.files import make_folder, write_text
from trimtab.core.process import Limits, Process
from trimtab.core.protocols import Context, Technique
from trimtab.core.values import Goal, Step, Task, Variant, content_digest
from trimtab.data.synthetic import inputs as synthetic_inputs
from trimtab.meters.judge import judge, reference_labels
from trimtab.meters.predict import predict
from trimtab.runtimes.session import open_session

_KEPT = "variant.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shop:
    """What every application of a technique shares: task, goal, the original and its answers, and a folder.

    `answers` is the file with the original's outputs on the select split, None when there is no data.
    """

    task: Task
    goal: Goal
    original: Variant
    folder: Path
    answers: Path | None = None
    memory_bytes: int | None = None


def make(shop: Shop, parent: Variant, step: Step, seconds: float, log: Path) -> Variant:
    """Return the variant that a step makes of its parent.

    Raises `Refused` when the technique can't do it, and `WorkerError` when it crashes, hangs or takes too much memory.
    """
    technique: Technique = plugins.make("techniques", step.technique, step.options)
    if reason := technique.refuses(parent, shop.task):
        raise Refused(f"{step.technique}: {reason}")
    name = content_digest(parent.key, repr(step), shop.task.digest, shop.goal.max_drop)
    folder = shop.folder / name
    kept = folder / _KEPT
    if kept.is_file():
        return loads(Variant, kept.read_text())
    limits = Limits(call_s=seconds, memory_bytes=shop.memory_bytes)
    if folder.exists():
        shutil.rmtree(folder)  # what a killed run left half made
    make_folder(folder)
    with Process("trimtab.search.making:Maker", shop, log=log, limits=limits) as maker:
        variant: Variant = maker.call("make", parent, step, folder, seconds)
    write_text(kept, dumps(variant))
    return variant


class Maker:
    """The object in the worker process that applies techniques."""

    def __init__(self, shop: Shop) -> None:
        self._shop = shop

    def make(self, parent: Variant, step: Step, folder: Path, seconds: float) -> Variant:
        """Apply the step to the parent; files go to the folder."""
        technique: Technique = plugins.make("techniques", step.technique, step.options)
        context = Context(
            task=self._shop.task,
            original=self._shop.original,
            folder=folder,
            seed=step.seed,
            deadline=time.monotonic() + seconds,
            evaluate=self.evaluate,
            time=self.time,
        )
        return technique.apply(parent, context)

    def evaluate(self, variant: Variant) -> float:
        """Return what the variant loses on the select split, in the metric's unit."""
        task, goal = self._shop.task, self._shop.goal
        split = task.split("select")
        if split is None or self._shop.answers is None:
            raise Refused("there is no select split to evaluate on: give data with --data")
        original = np.load(self._shop.answers, allow_pickle=False)
        with open_session(variant) as session:
            outputs = predict(session, task, split, goal.workload)
        labels = reference_labels(task, split, original)
        found = judge(task, split, labels, original, outputs, goal=goal, names=(variant.key, self._shop.original.key))
        return -found.difference

    def time(self, variant: Variant) -> float:
        """Return the median seconds of one call at the goal's workload."""
        feed = synthetic_inputs(variant.model.signature, self._shop.goal.workload, 0)
        with open_session(variant) as session:
            session.time(feed, 5)
            return float(np.median(session.time(feed, 20).wall_ns)) / 1e9
