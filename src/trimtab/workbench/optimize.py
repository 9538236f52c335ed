"""The main job: find the fastest variant that is proven to keep the goal."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import psutil

import trimtab
from trimtab.core.codec import dumps
from trimtab.core.errors import BadInput
from trimtab.core.files import home, make_folder, owned, write_text
from trimtab.core.machine import machine as this_machine
from trimtab.core.values import Goal, Machine, Result, Task, Trial, Variant, content_digest
from trimtab.data.batches import labels as labels_of
from trimtab.data.checks import near_chance
from trimtab.data.request import DataRequest
from trimtab.data.task import open_task
from trimtab.meters.predict import answers, settled
from trimtab.meters.quality import tune_threshold
from trimtab.search import plan
from trimtab.search.budget import Budget
from trimtab.search.journal import Journal
from trimtab.search.making import Shop
from trimtab.search.progress import Progress, Silent
from trimtab.search.race import Race
from trimtab.workbench.final import Ending, conclude
from trimtab.workbench.opening import ModelRequest, open_model
from trimtab.workbench.proof import answers_file, answers_on

WORK = "work"


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How much a search may spend and what it may use.

    `only` names the runtimes and techniques it may use (all by default); `poor_model` goes on although the original
    scores near chance.
    """

    seconds: float = 600.0
    trials: int | None = None
    only: tuple[str, ...] = ()
    seed: int = 0
    poor_model: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Everything one optimization was asked: equal jobs in one folder are the same run, continued."""

    model: Any
    data: Any = None
    goal: Goal = field(default_factory=Goal)
    output: Path
    data_request: DataRequest = field(default_factory=DataRequest)
    model_request: ModelRequest = field(default_factory=ModelRequest)
    effort: Effort = field(default_factory=Effort)
    command: str = ""


def optimize_job(job: Job, progress: Progress | None = None) -> Result:
    """Run a job, or continue it where it was killed, and return what it found.

    The output folder gets the bundle, `result.json` and, under `work/`, everything the run needs to continue.
    """
    progress = progress or Silent()
    with owned(make_folder(job.output) / WORK):
        race, warnings = prepare(job, progress)
        tools = plan.toolbox(job.effort.only)
        try:
            interrupted = explore(race, plan.everything(race, tools), progress)
            if interrupted:
                warnings.append("interrupted: the search ended early, the best so far was proven")
            ending = Ending(
                race=race,
                folder=job.output / WORK,
                untouched=best_untouched(race, tools),
                warnings=tuple(warnings),
                command=job.command,
                verify=verify_command(job),
                progress=progress,
            )
            result = conclude(ending, job.output)
        finally:
            race.close()
    write_text(job.output / "result.json", dumps(result))
    return result


def prepare(job: Job, progress: Progress) -> tuple[Race, list[str]]:
    """Open model and data, check them against each other, and return the race that is about to start."""
    work = job.output / WORK
    make_folder(home())  # the ledger of looks must be writable: better told now than after the search
    progress.stage("opening the model and the data")
    original = open_model(job.model, work / "model", job.model_request)
    task = open_given_task(job, original, work / "data")
    machine = this_machine()
    _same_run(work, original, task, job, machine)
    goal = job.goal if task.splits else replace(job.goal, max_drop=None)
    warnings = list(task.notes)
    if not task.splits:
        warnings.insert(0, "no data was given: this is about speed only, nothing is known about quality")
    outputs, task = original_answers(task, original, goal, work, job, warnings)
    shop = Shop(
        task=task,
        goal=goal,
        original=original,
        folder=work / "variants",
        memory_bytes=_memory_limit(),
        answers=_answers_file(work, original, task),
    )
    journal = Journal(work / "journal.jsonl")
    budget = Budget(seconds=job.effort.seconds, trials=job.effort.trials, spent_s=journal.seconds)
    race = Race(
        shop=shop,
        journal=journal,
        budget=budget,
        progress=progress,
        machine=machine,
        seed=job.effort.seed,
        outputs=outputs,
    )
    return race, warnings


def open_given_task(job: Job, original: Variant, folder: Path) -> Task:
    """Return the task of a job; one without data can only be timed."""
    if isinstance(job.data, Task):
        return job.data
    if job.data is None:
        return Task()
    request = replace(job.data_request, max_drop=job.goal.max_drop, error=job.goal.error)
    return open_task(job.data, original.model, folder, request)


def original_answers(
    task: Task, original: Variant, goal: Goal, work: Path, job: Job, warnings: list[str]
) -> tuple[Any, Task]:
    """Return the original's outputs on the select split, and the task with its threshold settled by them."""
    split = task.split("select")
    if split is None:
        return None, task
    outputs = answers_on(task, split, original, goal, work)
    task = settled(task, outputs)
    labels = labels_of(split)
    if labels is None:
        return outputs, task
    if task.kind == "binary" and job.data_request.threshold is None and (task.costs or task.metric != "accuracy"):
        task = replace(task, threshold=tune_threshold(task, labels, outputs))
    if task.kind in ("classification", "binary") and not job.effort.poor_model:
        doubt = near_chance(labels, answers(task, outputs), task.classes)
        if doubt:
            raise BadInput(f"{doubt} (if the model really is that poor, add --poor-model)")
    return outputs, task


def verify_command(job: Job) -> str:
    """Return what to type to run the certificate of a job again; DATA stands for what was given in Python."""
    data = job.data if isinstance(job.data, str | Path) else "DATA"
    given = {"--data": data, "--labels": job.data_request.labels, "--groups": job.data_request.groups}
    words = ["trimtab", "verify", str(job.output)]
    for option, value in given.items():
        words += [] if value is None else [option, str(value)]
    return shlex.join([*words, *["--trust-pickle"] * job.model_request.trust_pickle])


def explore(race: Race, candidates: Any, progress: Progress) -> bool:
    """Try candidates until the budget is gone; return whether the user interrupted."""
    progress.stage("searching")
    first = True
    try:
        for variant in candidates:
            trial = race.run(variant)
            if first and trial.state == "failed":
                raise BadInput(f"the model as given can't be run: {trial.reason}")
            if first and trial.state == "kept" and not np.isfinite(race.score(trial)):
                raise BadInput(f"no meter reads {race.goal.objective!r} of this model, so it can't be improved")
            if first:
                race.budget.reserve_s = _reserve(race)
            first = False
            if race.budget.over(len(race.trials)):
                break
    except KeyboardInterrupt:
        if first:
            raise
        return True
    return False


def preview_job(job: Job) -> list[str]:
    """Return the plan of a job in words, without running anything."""
    with TemporaryDirectory(prefix="trimtab-") as temporary:
        folder = Path(temporary)
        original = open_model(job.model, folder / "model", job.model_request)
        task = open_given_task(job, original, folder / "data")
    tools = plan.toolbox(job.effort.only)
    sizes = ", ".join(f"{len(split)} to {split.name}" for split in task.splits) or "none: speed only"
    lines = [f"items: {sizes}", *task.notes, f"budget: {job.effort.seconds:g} s for search, proof and final timing"]
    return lines + plan.preview(original, task, job.goal.workload, this_machine(), tools)


def best_untouched(race: Race, tools: plan.Toolbox) -> Trial:
    """Return the best trial that runs the weights as they were given; the model as given when there is no other."""
    kept = [trial for trial in plan.untouched_trials(race, tools) if trial.state == "kept"]
    return min(kept, key=race.score, default=race.trials[0])


def _reserve(race: Race) -> float:
    """Return the seconds to keep back for proof, final timing and measurements."""
    certify = race.shop.task.split("certify")
    items = len(certify) if certify else 0
    proof = 2.5 * items * race.latency_s / max(1, race.goal.workload.batch)
    return min(0.6 * race.budget.seconds, max(0.25 * race.budget.seconds, proof + 0.15 * race.budget.seconds))


def _same_run(work: Path, original: Variant, task: Task, job: Job, machine: Machine) -> None:
    """Refuse to continue another run's folder; write down what this run is when the folder is new."""
    digest = content_digest(
        original.key, task.digest, repr(job.goal), job.effort.seed, machine.digest, trimtab.__version__
    )
    path = work / "run.txt"
    if path.is_file() and path.read_text().strip() != digest:
        raise BadInput(
            f"{work.parent} holds another run (another model, data, goal, machine or version); "
            f"choose another --output or free it with: trimtab clean {work.parent}"
        )
    write_text(path, digest + "\n")


def _answers_file(work: Path, original: Variant, task: Task) -> Path | None:
    split = task.split("select")
    return None if split is None else answers_file(work, original, split)


def _memory_limit() -> int:
    """Return what one worker may use: four fifths of what is free now."""
    return int(0.8 * psutil.virtual_memory().available)
