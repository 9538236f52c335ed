"""Applies a technique in another process, once: the variant it made is kept for every later use."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from trimtab.core import plugins
from trimtab.core.errors import Refused
from trimtab.core.files import disk_errors, make_folder
from trimtab.core.memo import remembered
from trimtab.core.process import Limits, Process
from trimtab.core.protocols import Array, Context, Technique
from trimtab.core.values import Goal, NoWorse, Step, Task, Variant, content_digest
from trimtab.data.batches import groups as groups_of
from trimtab.meters.feed import timing_inputs
from trimtab.meters.judge import Watch, judge_items, reference_labels
from trimtab.meters.predict import answers, predictions
from trimtab.runtimes.session import ProcessSession, open_session
from trimtab.search.cluster import Cluster, most_s

SHARED = "shared"
"""The folder, beside those of the variants, of what several techniques use."""

_ENOUGH = 100  # equal answers of the same weights on another engine: the proof will ask for all of them


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A variant, and the seconds that its last step took."""

    variant: Variant
    seconds: float


class Makers:
    """The processes in which techniques are applied: each in one of its own, but those that are `tidy` share one.

    Such a technique leaves nothing behind in its process, and the next one finds PyTorch loaded. In between the process
    stands still, so that it disturbs nothing that is timed. One in which something failed is used no more.
    """

    def __init__(self) -> None:
        self._waiting: Process | None = None

    def __enter__(self) -> Makers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process that waits."""
        if self._waiting is not None:
            self._waiting.close()
            self._waiting = None

    def make(self, shop: Shop, parent: Variant, step: Step, folder: Path, seconds: float, log: Path) -> Variant:
        """Return the variant that a step makes of its parent within some seconds; its files go to the folder."""
        tidy = bool(getattr(plugins.plugin_class("techniques", step.technique), "tidy", False))
        if not tidy:
            self.close()
        process, self._waiting = self._waiting, None
        if process is None:
            limits = Limits(call_s=None, memory_bytes=shop.memory_bytes)
            process = Process("trimtab.search.making:Maker", shop, log=log, limits=limits)
        process.log = log
        made: Variant | None = None
        try:
            made = process.call("make", parent, step, folder, seconds, log, timeout_s=most_s(seconds))
        finally:
            if made is None or not tidy:
                process.close()
        if tidy:
            process.pause()
            self._waiting = process
        return made


def make(
    shop: Shop,
    parent: Variant,
    step: Step,
    seconds: float,
    log: Path,
    *,
    cluster: Cluster | None = None,
    makers: Makers | None = None,
) -> Made:
    """Return the variant that a step makes of its parent within some seconds, or has made before.

    It is made on a `cluster` where one is given, unless the technique has to time on this machine, or by `makers` whose
    processes go on.

    Raises `Refused` when the technique can't do it, and `WorkerError` when it crashes, hangs or takes too much memory.
    """
    technique: Technique = plugins.make("techniques", step.technique, step.options)
    if reason := technique.refuses(parent, shop.task):
        raise Refused(f"{step.technique}: {reason}")
    kept = _kept(shop, parent, step)

    def anew() -> Made:
        if not getattr(technique, "resumes", False):
            shutil.rmtree(kept.parent, ignore_errors=True)  # what a killed run left half made
        make_folder(kept.parent)
        start = time.monotonic()
        if cluster is not None and not needs_target(technique):
            made = cluster.make(shop, parent, step, kept.parent, seconds, log)
            return Made(variant=made, seconds=time.monotonic() - start)
        with Makers() if makers is None else nullcontext(makers) as able:
            variant = able.make(shop, parent, step, kept.parent, seconds, log)
        return Made(variant=variant, seconds=time.monotonic() - start)

    return remembered(kept, Made, anew)


def begin(shop: Shop, parent: Variant, step: Step, seconds: float, cluster: Cluster) -> None:
    """Begin to make a variant on a cluster, for a later `make` that asks for it."""
    technique: Technique = plugins.make("techniques", step.technique, step.options)
    refused = technique.refuses(parent, shop.task) is not None
    if not refused and not needs_target(technique) and not is_made(shop, parent, step):
        cluster.begin(shop, parent, step, _kept(shop, parent, step).parent, seconds)


def needs_target(technique: Technique) -> bool:
    """Say whether a technique times while it makes, which only the machine may do that the goal is about."""
    return bool(getattr(technique, "needs_target", False))


def is_made(shop: Shop, parent: Variant, step: Step) -> bool:
    """Say whether `make` has only to read what it made before."""
    return _kept(shop, parent, step).is_file()


def _kept(shop: Shop, parent: Variant, step: Step) -> Path:
    """Return the file that is written, into the variant's own folder, when it is made."""
    name = content_digest(parent.key, repr(step), shop.task.digest, shop.goal.max_drop)
    return shop.folder / name / "variant.json"


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Judged:
    """What a variant answered on the select split, as far as it was asked, what came of it, and why it is hopeless."""

    outputs: Array
    found: NoWorse
    doubt: str | None


def judged(
    session: ProcessSession,
    shop: Shop,
    original: Array,
    most: float | None,
    *,
    alike: bool = False,
    twin: Judged | None = None,
    least: tuple[int, int] = (0, 0),
    timeout_s: float | None = None,
) -> Judged:
    """Judge a session's answers to the select split, and say why when they are beyond hope.

    Given the `most` that may be lost, no more items are looked at than it takes to tell. Answers that should be
    `alike`, of the same weights, are looked at until a hundred are; `original` are those of the original to all items.
    A `twin` is the same variant on another number of threads: where a hundred answers are the twin's, all are. At
    `least` so many items are looked at before it is given up, and before it is believed, or its twin's were.
    """
    task, split = shop.task, shop.task.split("select")
    assert split is not None
    labels, groups = reference_labels(task, split, original), groups_of(split)
    watch, doubt = Watch(task, labels, original, most, groups), None
    if task.kind not in ("classification", "binary"):
        alike, twin = False, None  # numbers are never the same
    names = (session.variant.key, shop.original.key)
    chunks: list[Array] = []
    for rows, chunk in predictions(session, task, split, shop.goal.workload, timeout_s):
        chunks.append(chunk)
        doubt = watch.add(rows, chunk) or doubt
        alike = alike and _agree(task, chunk, original[rows])
        same = alike and rows.stop >= _ENOUGH and len(np.unique(labels[: rows.stop])) > 1
        if twin is not None and not _agree(task, chunk, twin.outputs[rows]):
            twin = None
        if twin is not None and rows.stop >= _ENOUGH:
            return replace(twin, found=replace(twin.found, variant=names[0]))
        over = doubt is not None and rows.stop >= least[0]
        if over or ((watch.clear or same) and rows.stop >= least[1]):
            break
    outputs = np.concatenate(chunks)
    seen = slice(len(outputs))
    found = judge_items(
        task,
        None if groups is None else groups[seen],
        labels[seen],
        original[seen],
        outputs,
        goal=shop.goal,
        names=names,
    )
    return Judged(outputs=outputs, found=found, doubt=doubt)


def _agree(task: Task, outputs: Array, others: Array) -> bool:
    """Say whether all answers are the same; they are not where the others are fewer."""
    return np.array_equal(answers(task, outputs), answers(task, others))


def changes(technique: str, before: Variant, after: Variant) -> Sequence[str]:
    """Return what a technique changed, line by line, where it tells (`changes`)."""
    tell = getattr(plugins.make("techniques", technique), "changes", None)
    return () if tell is None else tuple(tell(before, after))


class Maker:
    """The object in the worker process that applies techniques."""

    def __init__(self, shop: Shop) -> None:
        self._shop = shop

    def make(self, parent: Variant, step: Step, folder: Path, seconds: float, log: Path | None = None) -> Variant:
        """Apply the step to the parent; files go to the folder, and what is printed to the log.

        A full disk is no fault of the technique's.
        """
        if log is not None:
            _print_into(log)
        technique: Technique = plugins.make("techniques", step.technique, step.options)
        context = Context(
            task=self._shop.task,
            original=self._shop.original,
            folder=folder,
            seed=step.seed,
            deadline=time.monotonic() + seconds,
            evaluate=self.evaluate,
            time=self.time,
            shared=make_folder(self._shop.folder / SHARED),
        )
        with disk_errors(folder):
            made = technique.apply(parent, context)
        for line in changes(step.technique, parent, made):
            print(line)  # into the log
        return made

    def evaluate(self, variant: Variant, most: float | None = None) -> float:
        """Return what the variant loses on the select split, in the metric's unit.

        Given the most that may be lost, no more items are looked at than it takes to tell.
        """
        if self._shop.task.split("select") is None or self._shop.answers is None:
            raise Refused("there is no select split to evaluate on: give data with --data")
        original = np.load(self._shop.answers, allow_pickle=False)
        with open_session(variant) as session:
            return -judged(session, self._shop, original, most).found.difference

    def time(self, variant: Variant) -> float:
        """Return the median seconds of one call at the goal's workload."""
        feed = timing_inputs(variant, self._shop.task, self._shop.goal.workload)
        with open_session(variant) as session:
            session.time(feed, 5)
            return float(np.median(session.time(feed, 20).wall_ns)) / 1e9


def _print_into(log: Path) -> None:
    """Let all that this process prints from now on go to a file."""
    make_folder(log.parent)
    with log.open("ab") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
