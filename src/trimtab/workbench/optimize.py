"""The main job: find the fastest variant that is proven to keep the goal."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import psutil

import trimtab
from trimtab.core import plugins
from trimtab.core.codec import dumps
from trimtab.core.errors import BadInput
from trimtab.core.files import home, make_folder, new_folder, owned, write_text
from trimtab.core.machine import machine as this_machine
from trimtab.core.memo import remembered
from trimtab.core.process import Limits
from trimtab.core.protocols import Array, Store
from trimtab.core.values import Goal, Machine, Result, Scalar, Task, Trial, Variant, content_digest, options
from trimtab.data.batches import labels as labels_of
from trimtab.data.request import DataRequest
from trimtab.data.task import items_to_certify, sample
from trimtab.meters.judge import BLIND_CHECK
from trimtab.meters.predict import settled
from trimtab.meters.quality import chance_warnings, tuned
from trimtab.search import plan
from trimtab.search.ahead import begin_ahead
from trimtab.search.budget import Budget
from trimtab.search.cluster import connected
from trimtab.search.journal import Journal
from trimtab.search.limits import unread_limit
from trimtab.search.making import Shop
from trimtab.search.progress import Progress, Silent
from trimtab.search.race import Race
from trimtab.serving.bundle import MANIFEST, check_place
from trimtab.serving.evidence import EVIDENCE
from trimtab.workbench.batch import Batch, is_open, open_batch
from trimtab.workbench.clean import MARK
from trimtab.workbench.final import Ending, conclude, tail_s
from trimtab.workbench.inspect import contents_of
from trimtab.workbench.opening import ModelRequest, open_model
from trimtab.workbench.playoff import play_off, share_s
from trimtab.workbench.proof import answers_file, answers_on, measure_s, once_s
from trimtab.workbench.report import REPORT, RESULT, read_result, write_report
from trimtab.workbench.task import check_goal, given_task, lost_limits
from trimtab.workbench.track import Track, named, trackers, trial_readings

WORK = "work"
_DONE = "finished.txt"  # the effort by which a run came to its end
_INTERRUPTED = "interrupted: the search ended early, the best so far was proven"
_PROOF_SHARE = 0.22  # of the budget, at most
_PROVEN = 2.6  # as many times the certify split is answered: by the original, the best untouched and those that gain
_RESERVE_S = 240.0  # what proof, final timing and measurements take at least, where the budget is long
_MEMORY_SHARE = 0.8  # of what is free now, for one worker


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How much a search may spend and what it may use.

    `only` names the runtimes and techniques it may use (all by default); `poor_model` goes on although the original
    scores near chance. `track` names the trackers that log the run (none by default), `store` what keeps the
    measurements of the finalists ("folder" is a folder of the run): "name", or "name:option=value,option=value".
    `cluster` is the address of a Ray cluster whose machines make the variants.
    """

    seconds: float = 600.0
    trials: int | None = None
    only: tuple[str, ...] = ()
    seed: int = 0
    poor_model: bool = False
    track: tuple[str, ...] = ()
    store: str = "folder"
    cluster: str | None = None


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

    The output folder gets the bundle, the report, `result.json` and, under `work/`, everything the run needs to
    continue.
    """
    work = job.output / WORK
    chosen, store = trackers(job.effort.track), store_of(job.effort.store, work / "measurements")
    with (
        new_folder(job.output, f"{WORK}/{MARK}"),
        new_folder(work, MARK),
        owned(work),
        Track(chosen, progress or Silent()) as track,
        connected(job.effort.cluster, work / "logs" / "cluster.log") as cluster,
    ):
        race, warnings = prepare(job, track)
        race.cluster = cluster
        if (found := _finished(job)) is not None:
            race.close()
            track.stage(f"{job.output} holds this run, finished: a longer --budget or more --trials would go on")
            return found
        track.start(work, configuration(job, race), [trial_readings(trial) for trial in race.journal.trials])
        try:
            result = search(job, race, warnings, store)
        finally:
            race.close()
        track.conclude(result)
        written = _written(job, result, track.warnings)
        track.end("finished", [job.output / REPORT, job.output / RESULT])
        late = len(written.warnings) < len(result.warnings) + len(track.warnings)
        told = _written(job, result, track.warnings) if late else written
        if _INTERRUPTED not in told.warnings:
            write_text(work / _DONE, repr(job.effort))
        return told


def _finished(job: Job) -> Result | None:
    """Return the result of a run that came to its end by the same effort, None when there is something left to do."""
    done = job.output / WORK / _DONE
    whole = all((job.output / name).is_file() for name in (RESULT, REPORT))
    if not whole or not done.is_file() or done.read_text() != repr(job.effort):
        return None
    found = read_result(job.output)
    return found if found.winner is None or (job.output / MANIFEST).is_file() else None


def search(job: Job, race: Race, warnings: list[str], store: Store) -> Result:
    """Try everything that the budget allows, let the leaders play off, and prove what is best."""
    work, tools = job.output / WORK, plan.toolbox(job.effort.only, train=job.data_request.train is not None)
    begin_ahead(race, tools)
    interrupted = explore(race, plan.everything(race, tools))
    if race.short:
        left = plan.not_tried(race, tools)
        what = f"{', '.join(left)} could be tried" if left else "all was tried"
        warnings.append(f"the budget ended the search before {what}: a longer --budget may find more")
    if (calls_s := tail_s(race)) > 0.5 * race.budget.seconds:
        warnings.append(
            f"a limit on a percentile needs so many calls that they take about {calls_s:.0f} s, more than half of the "
            "budget; they are made all the same"
        )
    start, batch = time.monotonic(), batch_of(job, race.shop.original, race.shop.task)
    if interrupted or decide(race, work):
        warnings.append(_INTERRUPTED)
    ending = Ending(
        race=race,
        folder=work,
        untouched=best_untouched(race),
        warnings=tuple(warnings),
        command=job.command,
        verify=verify_command(job),
        play_off_s=time.monotonic() - start,
        store=store,
        notes=() if batch is None else (batch.words(),),
    )
    return conclude(ending, job.output)


def _written(job: Job, result: Result, warnings: Sequence[str]) -> Result:
    """Write the result and its report with these warnings as well, and return it as it was written."""
    result = replace(result, warnings=(*result.warnings, *warnings))
    write_text(job.output / RESULT, dumps(result))
    write_report(result, job.output)
    return result


def store_of(typed: str, folder: Path) -> Store:
    """Return the store typed as "name" or "name:option=value"; "folder" is this folder unless another is named."""
    name, given = plugins.typed("stores", typed)
    own = {"folder": str(folder)} if name == "folder" else {}
    store: Store = plugins.make("stores", name, options({**own, **given}))
    return store


def configuration(job: Job, race: Race) -> dict[str, Scalar]:
    """Return what a run was asked and where it runs, for those who log it."""
    goal, effort, machine = race.goal, job.effort, race.machine
    return {
        "model": named(job.model), "model_digest": race.shop.original.model.digest, "data": named(job.data),
        "data_digest": race.shop.task.digest, "metric": race.shop.task.metric, "objective": goal.objective,
        "direction": goal.direction, "max_drop": goal.max_drop, "batch": goal.workload.batch,
        "limits": "; ".join(f"{limit.reading} {limit.relation} {limit.bound:g}" for limit in goal.limits),
        "seconds": effort.seconds, "trials": effort.trials, "only": ", ".join(effort.only), "seed": effort.seed,
        "cpu": machine.cpu, "cores": machine.cores, "command": job.command, "version": trimtab.__version__,
    }  # fmt: skip


def prepare(job: Job, progress: Progress) -> tuple[Race, list[str]]:
    """Open model and data, check them against each other, and return the race that is about to start."""
    work = job.output / WORK
    if not (work / MARK).is_file():
        check_place(job.output, EVIDENCE, RESULT, REPORT)
        if (job.output / MANIFEST).is_file() and not (job.output / RESULT).is_file():
            raise BadInput(f"{job.output} holds a bundle that trimtab apply made; choose another --output")
    make_folder(home())  # the ledger of looks must be writable: better told now than after the search
    progress.stage("opening the model and the data")
    original = open_model(job.model, work / "model", job.model_request)
    task = given_task(job.data, original.model, work / "data", _data_request(job))
    check_goal(job.goal, task)
    machine = this_machine()
    _same_run(work, original, task, job, machine)
    goal = job.goal if task.splits else replace(job.goal, max_drop=None)
    if (batch := batch_of(job, original, task)) is not None:
        progress.stage(batch.words())
        goal = replace(goal, workload=replace(goal.workload, batch=batch.size))
    warnings = cautions(task, original)
    start = time.monotonic()
    outputs, task = original_answers(task, original, goal, work, job)
    task = affordable(task, time.monotonic() - start, job, work, warnings)
    split = task.split("select")
    shop = Shop(
        task=task,
        goal=goal,
        original=original,
        folder=work / "variants",
        memory_bytes=_memory(),
        answers=None if split is None else answers_file(work, original, split),
    )
    journal = Journal(work / "journal.jsonl")
    if len(journal):
        progress.stage(
            f"{job.output} holds this run already: going on after its {len(journal)} trials (to start anew, choose "
            f"another --output or delete the folder)"
        )
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


def batch_of(job: Job, original: Variant, task: Task) -> Batch | None:
    """Return the batch that the goal of a job leaves open, None where it doesn't; a continued run keeps it."""
    limits = Limits(memory_bytes=_memory())
    return open_batch(job.goal, original, task, job.output / WORK, seconds=job.effort.seconds, limits=limits)


def _memory() -> int:
    """Return the bytes that one worker may take."""
    return int(_MEMORY_SHARE * psutil.virtual_memory().available)


def cautions(task: Task, original: Variant) -> list[str]:
    """Return what to be careful about, as far as the data and the model tell."""
    found = list(task.notes)
    if not task.splits:
        said = "no data was given: this is about speed only, nothing is known about quality"
        found.insert(0, f"{said}; {BLIND_CHECK}")
    contents = contents_of(original.model)
    if contents is not None and contents.quantization is not None:
        found.append(
            f"the model is quantized already ({contents.quantization}), and techniques that quantize refuse it: give "
            "the float model that it was made of to gain more"
        )
    return found


def _data_request(job: Job) -> DataRequest:
    return replace(job.data_request, max_drop=job.goal.max_drop, error=job.goal.error)


def original_answers(task: Task, original: Variant, goal: Goal, work: Path, job: Job) -> tuple[Array | None, Task]:
    """Return the original's outputs on the select split, and the task with its threshold settled by them."""
    split = task.split("select")
    if split is None:
        return None, task
    outputs = answers_on(task, split, original, goal, work)
    task, labels = settled(task, outputs), labels_of(split)
    if labels is None:
        return outputs, task
    task = tuned(task, labels, outputs)
    doubts = () if job.effort.poor_model else chance_warnings(task, labels, outputs)
    if doubts:
        raise BadInput(f"{doubts[0]} (if the model really is that poor, add --poor-model)")
    return outputs, task


def affordable(task: Task, select_s: float, job: Job, work: Path, warnings: list[str]) -> Task:
    """Return the task with no more items to certify than the budget lets the finalists answer, drawn at random.

    `select_s` is what answering the select split took; the time of an item is kept, so that a run that goes on within
    the same budget proves the same.
    """
    select, certify = task.split("select"), task.split("certify")
    if select is None or certify is None:
        return task
    each_s = remembered(work / "seconds-per-item.json", float, lambda: max(select_s / len(select), 1e-9))
    planned = int(_PROOF_SHARE * job.effort.seconds / _PROVEN / each_s)
    least = 4 * items_to_certify(task, certify, job.goal.max_drop or 0.5, job.goal.error)
    items = max(planned, least)
    if items >= len(certify):
        return task
    warnings.append(
        f"the proof takes {items:,} of the {len(certify):,} items to certify, drawn at random: the budget of "
        f"{job.effort.seconds:g} s is too short for the finalists to answer more (see --budget)"
    )
    fewer = sample(certify, items, job.effort.seed, work / "data")
    return replace(task, splits=tuple(fewer if split is certify else split for split in task.splits))


def verify_command(job: Job) -> str:
    """Return what to type to run the certificate of a job again; DATA stands for what was given in Python."""
    data = job.data if isinstance(job.data, str | Path) else "DATA"
    given = {"--data": data, "--labels": job.data_request.labels, "--groups": job.data_request.groups}
    words = ["trimtab", "verify", str(job.output)]
    for option, value in given.items():
        words += [] if value is None else [option, str(value)]
    return shlex.join([*words, *["--trust-pickle"] * job.model_request.trust_pickle])


def explore(race: Race, candidates: Iterator[Variant]) -> bool:
    """Try candidates until the budget is gone; return whether the user interrupted.

    A run that goes on meets what it has tried before in the same order, whatever is left of its budget.
    """
    race.progress.stage("searching")
    try:
        for variant in candidates:
            if race.trials and not race.affords(variant):
                continue
            trial = race.run(variant)
            if len(race.trials) == 1:
                _check_first(race, trial)
                race.budget.reserve_s = _reserve(race) + share_s(race)
            if race.budget.over(len(race.trials)) and len(race.trials) == len(race.journal):
                race.short = True
                break
    except KeyboardInterrupt:
        if not race.trials:
            raise
        return True
    return False


def decide(race: Race, work: Path) -> bool:
    """Let the leaders play off in the time kept back for that; return whether the user interrupted."""
    race.budget.reserve_s = _reserve(race)
    try:
        play_off(race, plan.kept_untouched(race)[:2], work / "playoff")
    except KeyboardInterrupt:
        return True
    return False


def _check_first(race: Race, trial: Trial) -> None:
    """Raise `BadInput` when the model as given does not run, or can't be improved in what the goal wants."""
    if trial.state == "failed":
        raise BadInput(f"the model as given can't be run: {trial.reason}")
    if trial.state == "kept" and not np.isfinite(race.score(trial)):
        read = trial.measurement.reading(race.goal.objective) if trial.measurement else None
        why = f" ({read.scope})" if read is not None and read.scope else ""
        raise BadInput(f"no meter reads {race.goal.objective!r} of this model, so it can't be improved{why}")
    found = trial.measurement.readings if trial.measurement else ()
    unread = unread_limit(found, lost_limits(race.goal, found, judged=trial.state == "kept"))
    if unread is not None:
        raise BadInput(f"{unread}; leave that limit out, or set one on another reading")


def preview_job(job: Job) -> list[str]:
    """Return the plan of a job in words, without running anything."""
    with TemporaryDirectory(prefix="trimtab-") as temporary:
        folder = Path(temporary)
        original = open_model(job.model, folder / "model", job.model_request)
        task = given_task(job.data, original.model, folder / "data", _data_request(job))
    check_goal(job.goal, task)
    tools = plan.toolbox(job.effort.only, train=job.data_request.train is not None)
    sizes = ", ".join(f"{len(split)} to {split.name}" for split in task.splits) or "none: speed only"
    lines = [f"items: {sizes}", *task.notes, f"budget: {job.effort.seconds:g} s for search, proof and final timing"]
    if is_open(job.goal):
        lines.append("batch: as no --batch was given, the one at which the model as given has the most throughput")
    goal = job.goal if task.splits else replace(job.goal, max_drop=None)
    return lines + plan.preview(original, task, goal, this_machine(), tools)


def best_untouched(race: Race) -> Trial:
    """Return the best trial that runs the weights as they were given; the model as given when there is no other."""
    return next(iter(plan.kept_untouched(race)), race.trials[0])


def _reserve(race: Race) -> float:
    """Return the seconds to keep back for proof, final timing and measurements."""
    needed = _PROVEN * once_s(race) + measure_s(race) + tail_s(race)
    return float(np.clip(needed, min(0.25 * race.budget.seconds, _RESERVE_S), 0.6 * race.budget.seconds))


def _same_run(work: Path, original: Variant, task: Task, job: Job, machine: Machine) -> None:
    """Refuse to continue another run's folder; write down what this run is when the folder is new."""
    parts = {
        "model": original.key, "data or metric": task.digest, "goal": repr(job.goal), "seed": str(job.effort.seed),
        "machine": machine.digest, "version": trimtab.__version__,
    }  # fmt: skip
    lines = [f"{name} {content_digest(part)}" for name, part in parts.items()]
    path = work / MARK
    if path.is_file() and (before := path.read_text().split("\n")[:-1]) != lines:
        other = [name for name, line in zip(parts, lines, strict=True) if line not in before]
        raise BadInput(
            f"{work.parent} holds a run with another {' and '.join(other)}; choose another --output or free it with: "
            f"trimtab clean --yes {work.parent}"
        )
    write_text(path, "\n".join(lines) + "\n")
