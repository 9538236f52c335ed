"""Tries one variant: can it run, is it fast, is it good enough so far? It dies as soon as the evidence says so."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from trimtab.core import plugins
from trimtab.core.errors import BadInput, MissingExtra, Refused, TrimtabError, WorkerError
from trimtab.core.process import Limits
from trimtab.core.protocols import Array, Arrays, Meter
from trimtab.core.values import (
    Goal,
    Limit,
    Machine,
    Measurement,
    NoWorse,
    Ratio,
    Reading,
    Settings,
    Step,
    Trial,
    Variant,
)
from trimtab.data.batches import feeds
from trimtab.data.batches import groups as groups_of
from trimtab.data.synthetic import inputs as synthetic_inputs
from trimtab.meters.interleave import interleave
from trimtab.meters.judge import Watch, judge, judge_items, reference_labels
from trimtab.meters.predict import answers, fixed_batch, predict, predictions
from trimtab.meters.warm import warm_up
from trimtab.runtimes.session import ProcessSession, open_session
from trimtab.search.budget import Budget
from trimtab.search.journal import Journal
from trimtab.search.making import Shop, make
from trimtab.search.progress import Progress
from trimtab.stats.ratios import Estimate, ratio

STATIC_METERS = ("size", "compute")
BUILT_IN_METERS = (*STATIC_METERS, "memory", "latency", "throughput", "end-to-end", "quality")
TIMED = ("latency_p50", "latency", "throughput")
_SCREEN_S = 2.5
_PRECISION = 0.01
_WARM_S = 3.0
_ENOUGH = 100  # equal answers of the same weights on another engine: the proof will ask for all of them


@dataclass(slots=True, kw_only=True)
class Race:
    """One search: what all its trials share, and what they have found so far.

    The reference is the model as given; its worker stays open, so that every candidate is timed in turn with it.
    """

    shop: Shop
    journal: Journal
    budget: Budget
    progress: Progress
    machine: Machine
    seed: int = 0
    outputs: Array | None = None
    latency_s: float = 0.0
    names: list[str] = field(default_factory=list)
    _reference: ProcessSession | None = None
    _inputs: Arrays | None = None

    @property
    def goal(self) -> Goal:
        """The goal of the search."""
        return self.shop.goal

    @property
    def trials(self) -> list[Trial]:
        """What was tried so far in this search, in its order."""
        found = (self.journal.get(name) for name in self.names)
        return [trial for trial in found if trial is not None]

    def close(self) -> None:
        """End the reference's worker process."""
        if self._reference is not None:
            self._reference.close()
            self._reference = None

    def made(self, parent: Variant, step: Step) -> Variant | None:
        """Return the variant that the step makes, or None; why it can't be made becomes a failed trial."""
        name = (
            Variant(model=parent.model, settings=parent.settings, steps=(*parent.steps, step)).label().split(" on ")[0]
        )
        known = self._known(name)
        if known is not None:
            return None
        log = self._log(name)
        self.progress.begin(f"making {name}", self.budget.elapsed(), self.budget.seconds)
        start = time.monotonic()
        try:
            return make(self.shop, parent, step, max(10.0, self.budget.left()), log)
        except (Refused, WorkerError, BadInput, MissingExtra) as error:
            self._end(
                Trial(
                    name=name,
                    steps=(*parent.steps, step),
                    settings=parent.settings,
                    variant=None,
                    state="failed",
                    reason=str(error),
                    log=log,
                    seconds=time.monotonic() - start,
                )
            )
            return None

    def run(self, variant: Variant) -> Trial:
        """Try a variant, or return what an earlier part of this run found out about it."""
        name = variant.label()
        if (known := self._known(name)) is not None:
            return known
        self.progress.begin(name, self.budget.elapsed(), self.budget.seconds)
        log = self._log(name)
        start = time.monotonic()
        blank = Trial(
            name=name,
            steps=variant.steps,
            settings=variant.settings,
            variant=variant,
            state="failed",
            reason="",
            log=log,
        )
        self._open_reference()
        try:
            with open_session(variant, log, self._limits()) as session:
                trial = self._stages(blank, session)
        except (WorkerError, BadInput, MissingExtra) as error:
            trial = replace(blank, state="failed", reason=str(error))
        return self._end(replace(trial, seconds=time.monotonic() - start))

    def best(self) -> Trial | None:
        """Return the best trial that keeps the goal so far."""
        return min((t for t in self.trials if t.state == "kept"), key=self.score, default=None)

    def score(self, trial: Trial) -> float:
        """Return what the goal wants small: the time ratio to the reference, or the reading to improve."""
        if self.goal.objective in TIMED:
            return trial.screening.value if trial.screening else np.inf
        value = trial.measurement.value(self.goal.objective) if trial.measurement else None
        if value is None:
            return np.inf
        return value if self.goal.direction == "minimize" else -value

    def feed(self, variant: Variant) -> Arrays:
        """Return the inputs that variants are timed on: items of the select split, random ones without data."""
        split = self.shop.task.split("select")
        signature = variant.model.signature
        batch = fixed_batch(signature) or self.goal.workload.batch
        if split is None:
            return synthetic_inputs(signature, replace(self.goal.workload, batch=batch), self.seed)
        rows = np.arange(batch) % len(split)
        return dict(feeds(self.shop.task, split, rows))

    def _stages(self, blank: Trial, session: ProcessSession) -> Trial:
        """Ask the cheap questions first: sizes, a first answer, the time, the answers."""
        variant = session.variant
        readings = self._static(session, variant)
        trial = replace(blank, measurement=self._measurement(variant, readings))
        if broken := broken_limit(readings, self.goal.limits):
            return replace(trial, state="dropped", reason=broken)
        inputs = self.feed(variant)
        runtime = plugins.plugin_class("runtimes", variant.settings.runtime)
        session.run(inputs, timeout_s=self._patience() + 3 * getattr(runtime, "startup_s", 0.0))
        latency, _ = warm_up(session, inputs, timeout_s=10 * self._patience(), most_s=_WARM_S)
        screening = self._screen(session, inputs, latency)
        trial = replace(trial, screening=screening)
        if reason := self._too_slow(variant, screening):
            return replace(trial, state="dropped", reason=reason)
        try:
            quality = self._quality(session)
        except Dead as dead:
            return replace(trial, state="dropped", reason=str(dead))
        trial = replace(trial, quality=quality)
        if quality is not None and self.goal.max_drop is not None and -quality.difference > self.goal.max_drop:
            return replace(trial, state="dropped", reason=quality.reason)
        return replace(trial, state="kept")

    def _static(self, session: ProcessSession, variant: Variant) -> list[Reading]:
        names = [*STATIC_METERS, *foreign_meters()]
        if self.goal.objective == "peak_memory":
            names.append("memory")
        found: list[Reading] = []
        for name in names:
            meter: Meter = plugins.make("meters", name)
            read = meter.read(session, variant, self.shop.task, self.goal.workload)
            found.extend(item for item in read if isinstance(item, Reading))
        return found

    def _screen(self, session: ProcessSession, inputs: Arrays, latency: float) -> Ratio:
        """Time the candidate in turn with the reference, in one process each."""
        reference = self._open_reference()
        assert self._inputs is not None
        rng = np.random.default_rng(self.seed)
        seconds = min(_SCREEN_S, max(0.5, 40 * (latency + self.latency_s)))
        rounds = interleave(
            [session, reference],
            [inputs, self._inputs],
            [latency, self.latency_s],
            seconds=seconds,
            rng=rng,
            stop=lambda wall: _half_width(wall) <= _PRECISION,
        )
        found: Estimate = ratio([rounds.wall_s[0]], [rounds.wall_s[1]], margin=self.goal.margin, seed=self.seed)
        return as_ratio(found, session.variant, reference.variant, processes=1, margin=self.goal.margin)

    def _open_reference(self) -> ProcessSession:
        if self._reference is None:
            original = self.shop.original
            session = open_session(original, self._log("reference"), self._limits())
            self._inputs = self.feed(original)
            session.run(self._inputs)
            self.latency_s, _ = warm_up(session, self._inputs)
            self._reference = session
        return self._reference

    def _too_slow(self, variant: Variant, screening: Ratio) -> str | None:
        """Say why the candidate can't win on time any more, when its interval says so.

        Untouched variants race among themselves: the baseline must be the best of them, whatever else is faster.
        """
        plain = same_weights(variant)
        rivals = [t for t in self.trials if t.state == "kept" and t.variant and (not plain or same_weights(t.variant))]
        best = min(rivals, key=self.score, default=None)
        if self.goal.objective not in TIMED or best is None or best.screening is None:
            return None
        if screening.low > best.screening.high * (1 + self.goal.margin):
            times = screening.value / best.screening.value
            return f"about {times:.2g}× the time of {best.name} (interval clear of it)"
        return None

    def _quality(self, session: ProcessSession) -> NoWorse | None:
        """Judge the answers on the select split; raise `Dead` as soon as the drop is beyond doubt."""
        task, split = self.shop.task, self.shop.task.split("select")
        if split is None:
            return None
        names = (session.variant.key, self.shop.original.key)
        patience = self._patience()
        if self.outputs is None:
            outputs = predict(session, task, split, self.goal.workload, patience)
            labels = reference_labels(task, split, outputs)
            return judge(task, split, labels, outputs, outputs, goal=self.goal, names=names)
        labels = reference_labels(task, split, self.outputs)
        watch = Watch(task, labels, self.outputs, self.goal.max_drop)
        chunks: list[Array] = []
        for rows, chunk in predictions(session, task, split, self.goal.workload, patience):
            chunks.append(chunk)
            if (reason := watch.add(rows, chunk)) is not None:
                raise Dead(reason)
            if rows.stop >= _ENOUGH and same_weights(session.variant) and self._agrees(chunks):
                break
        outputs = np.concatenate(chunks)
        seen = len(outputs)
        groups = groups_of(split)
        return judge_items(
            task,
            None if groups is None else groups[:seen],
            labels[:seen],
            self.outputs[:seen],
            outputs,
            goal=self.goal,
            names=names,
        )

    def _agrees(self, chunks: Sequence[Array]) -> bool:
        """Say whether all answers so far are those of the original; for numbers there is no such thing."""
        task = self.shop.task
        if self.outputs is None or task.kind not in ("classification", "binary"):
            return False
        given = np.concatenate(chunks)
        return bool((answers(task, given) == answers(task, self.outputs[: len(given)])).all())

    def _patience(self) -> float:
        """Return how long one call may take: a thousand times slower than the baseline is gone after one call."""
        return max(2.0, 50 * self.latency_s) if self.latency_s else 120.0

    def _limits(self) -> Limits:
        return Limits(start_s=max(30.0, min(180.0, self.budget.left())), memory_bytes=self.shop.memory_bytes)

    def _measurement(self, variant: Variant, readings: Sequence[Reading]) -> Measurement:
        return Measurement(
            variant=variant,
            task=self.shop.task.digest,
            workload=self.goal.workload,
            readings=tuple(readings),
            machine=self.machine,
            time=datetime.now(UTC).isoformat(timespec="seconds"),
        )

    def _known(self, name: str) -> Trial | None:
        trial = self.journal.get(name)
        if trial is not None and name not in self.names:
            self.names.append(name)
        return trial

    def _end(self, trial: Trial) -> Trial:
        self.journal.add(trial)
        self.names.append(trial.name)
        self.progress.done(trial, self.best())
        return trial

    def _log(self, name: str) -> Path:
        safe = "".join(c if c.isalnum() or c in "-=." else "_" for c in name)[:120]
        return self.shop.folder.parent / "logs" / f"{safe}.log"


class Dead(TrimtabError):
    """The candidate's answers are worse than allowed, beyond doubt."""


def unread_limit(readings: Sequence[Reading], limits: Sequence[Limit]) -> str | None:
    """Return which limit nothing was read for, in words, or None."""
    known = {reading.name for reading in readings if reading.value is not None}
    missing = next((limit.reading for limit in limits if limit.reading not in known), None)
    return None if missing is None else f"the limit on {missing} can't be checked: no meter could read it"


def foreign_meters() -> tuple[str, ...]:
    """Return the meters that other distributions brought."""
    return tuple(name for name in plugins.names("meters") if name not in BUILT_IN_METERS)


def same_weights(variant: Variant) -> bool:
    """Say whether every step of a variant is an export, so that only an engine's rounding can change its answers."""
    return all(getattr(plugins.plugin_class("techniques", step.technique), "lossless", False) for step in variant.steps)


def broken_limit(readings: Sequence[Reading], limits: Sequence[Limit]) -> str | None:
    """Return which limit the readings break, in words, or None; readings that aren't there break nothing yet."""
    for limit in limits:
        for reading in readings:
            known = reading.name == limit.reading and reading.place is None and reading.value is not None
            if known and reading.value is not None and not limit.holds(reading.value):
                return f"{limit.reading} is {reading.value:.6g}, the limit is {limit.relation} {limit.bound:.6g}"
    return None


def as_ratio(found: Estimate, variant: Variant, baseline: Variant, *, processes: int, margin: float) -> Ratio:
    """Return an estimate of block ratios as a value."""
    return Ratio(
        reading="latency",
        variant=variant.key,
        baseline=baseline.key,
        value=found.value,
        low=found.low,
        high=found.high,
        level=found.level,
        margin=margin,
        verdict=found.verdict,
        blocks=found.blocks,
        processes=processes,
        noise=found.noise,
    )


def settings_of(trials: Sequence[Trial], runtime: str) -> list[Settings]:
    """Return the settings of a runtime that untouched trials kept, the fastest first, one per precision."""
    kept = [t for t in trials if t.state == "kept" and t.settings.runtime == runtime and t.screening]
    kept.sort(key=lambda trial: trial.screening.value if trial.screening else np.inf)
    found: dict[str | None, Settings] = {}
    for trial in kept:
        found.setdefault(trial.settings.precision, trial.settings)
    return list(found.values())


def _half_width(wall: Array) -> float:
    """Return about half the width of the 95 % interval of the log ratio of the first two rows."""
    logs = np.log(wall[0] / wall[1])
    low, high = np.quantile(logs, [0.25, 0.75])
    return float(1.96 * 1.2533 * (high - low) / 1.349 / np.sqrt(len(logs)))
