"""Tries one variant: can it run, is it fast, is it good enough so far? It dies as soon as the evidence says so."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from trimtab.core import plugins
from trimtab.core.codec import dumps, loads
from trimtab.core.errors import BadInput, MissingExtra, NothingToGain, Refused, WorkerError
from trimtab.core.files import write_text
from trimtab.core.process import Limits
from trimtab.core.protocols import Array, Arrays, Meter
from trimtab.core.values import (
    Goal,
    Limit,
    Machine,
    Measurement,
    Ratio,
    Reading,
    Settings,
    Step,
    Trace,
    Trial,
    TrialState,
    Variant,
)
from trimtab.data.batches import groups as groups_of
from trimtab.data.batches import labels as labels_of
from trimtab.meters.feed import timing_inputs
from trimtab.meters.foreign import read_foreign
from trimtab.meters.interleave import interleave
from trimtab.meters.judge import unlike
from trimtab.meters.quality import quality_readings
from trimtab.meters.size import compression
from trimtab.meters.warm import warm_up
from trimtab.runtimes.session import ProcessSession, open_session
from trimtab.search.budget import Budget
from trimtab.search.cluster import Cluster
from trimtab.search.journal import Journal
from trimtab.search.limits import broken_limit, hopeless_limit, quality_limits
from trimtab.search.making import Judged, Makers, Shop, is_made, judged, make
from trimtab.search.progress import Progress
from trimtab.stats.percentiles import median
from trimtab.stats.ratios import Estimate, ratio

STATIC_METERS = ("size", "compute")
METERS = (*STATIC_METERS, "memory", "latency", "throughput", "end-to-end", "quality")
"""Our own meters, in the order in which they are read."""

TIMED = ("latency_p50", "latency", "throughput")
UNSETTLED = "blocks of several calls, no steady state before them"
"""What a ratio says of the caches where 300 warm-up calls were not enough."""
_SCREEN_S = 2.5
_PRECISION = 0.01
_WARM_S = 3.0
_LEARNT_FROM = 1000  # items answered by what was trained: those it is given up after say too much of its loss


@dataclass(slots=True, kw_only=True)
class Race:
    """One search: what all its trials share, and what they have found so far.

    The reference is the model as given; its worker stays open, so that every candidate is timed in turn with it.
    `latency_s` is what a call of it takes, kept for a run that goes on; `outputs` are its answers on the select split,
    None without data. `names` are the trials of the plan so far: a run that continues another one meets those in the
    journal again, in their order. `short` says that something was not tried for want of time or trials. `variants` are
    those that techniques made, by their steps, and `making_s` the seconds that the last step of each took. On a
    `cluster` variants are made, never timed.
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
    short: bool = False
    corrected: dict[str, Trial] = field(default_factory=dict)
    variants: dict[tuple[Step, ...], Variant] = field(default_factory=dict)
    making_s: dict[tuple[Step, ...], float] = field(default_factory=dict)
    cluster: Cluster | None = None
    _makers: Makers = field(default_factory=Makers)
    _reference: tuple[ProcessSession, Arrays] | None = None
    _twins: dict[tuple[tuple[Step, ...], str, str | None], Judged] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.latency_s and self._latency_file.is_file():
            self.latency_s = loads(float, self._latency_file.read_text("utf-8"))

    @property
    def goal(self) -> Goal:
        """The goal of the search."""
        return self.shop.goal

    @property
    def trials(self) -> list[Trial]:
        """What was tried so far in this search, in its order, as far as the play-off corrected it."""
        found = (self.corrected.get(name) or self.journal.get(name) for name in self.names)
        return [trial for trial in found if trial is not None]

    @property
    def failed(self) -> set[str]:
        """The names of the trials that failed, in the search or after it."""
        return {trial.name for trial in self.trials if trial.state == "failed"}

    def close(self) -> None:
        """End the worker processes, of the reference and of what makes variants."""
        self._makers.close()
        if self._reference is not None:
            self._reference[0].close()
            self._reference = None

    def affords(self, variant: Variant) -> bool:
        """Say whether a variant may be tried: it was before, or trials and the time to start its engine are left."""
        dear = self.budget.over(len(self.trials)) or 4 * _startup_s(variant) > self.budget.left()
        found = self.journal.get(variant.label()) is not None or not dear
        self.short = self.short or not found
        return found

    def made(self, parent: Variant, step: Step, share: float = 1.0) -> Variant | None:
        """Return the variant that the step makes in a share of the time left, or None.

        Why it can't be made becomes a failed trial, or a skipped one where there is nothing to gain; when the budget
        is spent, only what was made before is returned.
        """
        steps = (*parent.steps, step)
        name = made_name(steps)
        spent = self.budget.over(len(self.trials)) and not is_made(self.shop, parent, step)
        self.short = self.short or spent
        if self._known(name) is not None or spent:
            return None
        self.progress.begin(f"making {name}", self.budget.elapsed(), self.budget.seconds)
        blank, start = self._blank(name, steps, parent.settings), time.monotonic()
        try:
            seconds, log = share * self.budget.left(), self._log(name)
            found = make(self.shop, parent, step, seconds, log, cluster=self.cluster, makers=self._makers)
        except (Refused, WorkerError, BadInput, MissingExtra) as error:
            state: TrialState = "skipped" if isinstance(error, NothingToGain) else "failed"
            self._end(replace(blank, state=state, reason=str(error)), start)
            return None
        self.making_s[found.variant.steps] = found.seconds
        self.variants[found.variant.steps] = found.variant
        return found.variant

    def run(self, variant: Variant) -> Trial:
        """Try a variant, or return what an earlier part of this run found out about it."""
        name = variant.label()
        if (known := self._known(name)) is not None:
            return known
        self.progress.begin(name, self.budget.elapsed(), self.budget.seconds)
        blank, start = self._blank(name, variant.steps, variant.settings, variant), time.monotonic()
        self._open_reference()
        self._begin_log(blank)
        try:
            with open_session(variant, blank.log, self._limits()) as session:
                trial = self._stages(blank, session)
        except (WorkerError, BadInput, MissingExtra) as error:
            trial = replace(blank, reason=str(error))
            if isinstance(error, WorkerError):
                self.close()  # it may be the reference that died: the next trial opens another
        return self._end(trial, start)

    def retimed(self, trial: Trial, screening: Ratio) -> Trial:
        """Return a trial with a better estimate of its time; one that only seemed too slow is judged after all."""
        variant, start = trial.variant, time.monotonic()
        trial = replace(trial, screening=screening)
        if variant is not None and outpaced(trial):
            self.progress.begin(trial.name, self.budget.elapsed(), self.budget.seconds)
            try:
                with open_session(variant, self._log(trial.name), self._limits()) as session:
                    trial = self._judged(trial, session)
            except (WorkerError, BadInput, MissingExtra) as error:
                trial = replace(trial, state="failed", reason=str(error))
        return replace(trial, seconds=trial.seconds + time.monotonic() - start)

    def fail(self, trial: Trial, reason: str) -> None:
        """Note that a trial that was kept failed after the search: it goes on without it."""
        self.corrected[trial.name] = replace(trial, state="failed", reason=reason)

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

    def _stages(self, blank: Trial, session: ProcessSession) -> Trial:
        """Ask the cheap questions first: sizes, a first answer, the time, the answers."""
        variant = session.variant
        readings = self._static(session, variant)
        measured = Measurement(
            variant=variant,
            task=self.shop.task.digest,
            workload=self.goal.workload,
            readings=tuple(readings),
            machine=self.machine,
            time=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        trial = replace(blank, measurement=measured)
        first = self.trials[0].measurement if self.trials else measured
        rates = compression(first.readings if first else (), readings)
        if broken := broken_limit([*readings, *rates], self.goal.limits):
            return replace(trial, state="dropped", reason=broken)
        inputs = timing_inputs(variant, self.shop.task, self.goal.workload)
        outputs = session.run(inputs, timeout_s=self._patience() + 3 * _startup_s(variant))
        if self._blind and (doubt := self._doubt(outputs)):
            return replace(trial, state="dropped", reason=doubt)
        latency, state = warm_up(session, inputs, timeout_s=10 * self._patience(), most_s=_WARM_S)
        screening, median_s = self._screen(session, inputs, latency)
        trial = replace(trial, screening=replace(screening, cache=UNSETTLED) if state == "unsteady" else screening)
        if reason := self._too_slow(variant, screening):
            return replace(trial, state="dropped", reason=reason)
        trial = self._judged(trial, session)
        hopeless = hopeless_limit(median_s, self.goal.workload.batch, self.goal.limits)
        return replace(trial, state="dropped", reason=hopeless) if hopeless and trial.state == "kept" else trial

    @property
    def _blind(self) -> bool:
        """Whether there are no items to judge answers by."""
        return self.outputs is None or self.shop.task.split("select") is None

    def _doubt(self, outputs: Arrays) -> str | None:
        """Say why the outputs of the first call can't be right, given those of the model as given."""
        reference, given = self._open_reference()
        return unlike(outputs, reference.run(given))

    def _judged(self, trial: Trial, session: ProcessSession) -> Trial:
        """Keep a trial, or drop it for its answers."""
        if self.outputs is None or self._blind:
            return replace(trial, state="kept", reason="")
        settings, alike = trial.settings, same_weights(trial.steps)
        kin = (trial.steps, settings.runtime, settings.precision)
        limits = quality_limits(self.goal.limits)
        found = judged(
            session,
            self.shop,
            self.outputs,
            self.goal.max_drop,
            alike=alike,
            twin=self._twins.get(kin),
            least=(_LEARNT_FROM if trained(trial.steps) else 0, len(self.outputs) if limits else 0),
            timeout_s=self._patience(),
        )
        self._twins.setdefault(kin, found)
        quality = found.found
        trial = replace(trial, quality=quality)
        if found.doubt is not None:
            return replace(trial, state="dropped", reason=found.doubt)
        if self.goal.max_drop is not None and -quality.difference > self.goal.max_drop:
            return replace(trial, state="dropped", reason=quality.reason)
        readings = self._quality(found.outputs, limits)
        if trial.measurement is not None:
            known = trial.measurement
            trial = replace(trial, measurement=replace(known, readings=(*known.readings, *readings)))
        if broken := broken_limit(readings, limits):
            return replace(trial, state="dropped", reason=f"{broken} (select split)")
        return replace(trial, state="kept", reason="")

    def _quality(self, outputs: Array, limits: Sequence[Limit]) -> list[Reading]:
        """Return the quality that limits are on, of answers to the whole select split."""
        task, split = self.shop.task, self.shop.task.split("select")
        wanted = {limit.reading for limit in limits}
        if split is None or not wanted:
            return []
        read = quality_readings(task, labels_of(split), outputs, self.outputs, groups_of(split), "select split")
        return [reading for reading in read if reading.name in wanted and reading.place is None]

    def _static(self, session: ProcessSession, variant: Variant) -> list[Reading]:
        wanted = (self.goal.objective, *(limit.reading for limit in self.goal.limits))
        memory = ("memory",) if "peak_memory" in wanted else ()
        task, workload = self.shop.task, self.goal.workload
        found: list[Reading | Trace] = []
        for name in (*STATIC_METERS, *memory):
            meter: Meter = plugins.make("meters", name)
            found.extend(meter.read(session, variant, task, workload))
        for name in foreign_meters():
            found.extend(read_foreign(name, session, variant, task, workload))
        return [item for item in found if isinstance(item, Reading)]

    def _screen(self, session: ProcessSession, inputs: Arrays, latency: float) -> tuple[Ratio, float]:
        """Time the candidate in turn with the reference, in one process each; return also its least median seconds."""
        reference, given = self._open_reference()
        seconds = min(_SCREEN_S, max(0.5, 40 * (latency + self.latency_s)))
        rounds = interleave(
            [session, reference],
            [inputs, given],
            [latency, self.latency_s],
            seconds=seconds,
            rng=np.random.default_rng(self.seed),
            stop=lambda wall: _half_width(wall) <= _PRECISION,
        )
        found = ratio([rounds.wall_s[0]], [rounds.wall_s[1]], margin=self.goal.margin, seed=self.seed)
        screening = as_ratio(found, session.variant, reference.variant, self.goal.margin)
        return screening, median(rounds.wall_s[0]).low

    def _open_reference(self) -> tuple[ProcessSession, Arrays]:
        if self._reference is None:
            original = self.shop.original
            inputs = timing_inputs(original, self.shop.task, self.goal.workload)
            session = open_session(original, self._log("reference"), self._limits())
            self._reference = session, inputs
            session.run(inputs)
            self.latency_s, _ = warm_up(session, inputs)
            write_text(self._latency_file, dumps(self.latency_s))
        return self._reference

    def _too_slow(self, variant: Variant, screening: Ratio) -> str | None:
        """Say why the candidate can't win on time any more, when its interval says so.

        Untouched variants race among themselves: the baseline must be the best of them, whatever else is faster. So do
        networks that were changed and trained: what makes others faster than them, int8 for instance, is yet to come.
        """
        alike = next((kind for kind in (same_weights, unrounded) if kind(variant.steps)), lambda steps: True)
        rivals = [trial for trial in self.trials if trial.state == "kept" and alike(trial.steps)]
        best = min(rivals, key=self.score, default=None)
        if self.goal.objective not in TIMED or best is None or best.screening is None:
            return None
        if screening.low > best.screening.high * (1 + self.goal.margin):
            times = screening.value / best.screening.value
            return f"about {times:.3g}× the time of {best.name} (interval clear of it)"
        return None

    def _patience(self) -> float:
        """Return how long one call may take: a thousand times slower than the baseline is gone after one call."""
        return max(2.0, 50 * self.latency_s) if self.latency_s else 120.0

    @property
    def _latency_file(self) -> Path:
        return self.shop.folder.parent / "reference-latency.json"

    def _limits(self) -> Limits:
        return Limits(start_s=max(30.0, min(180.0, self.budget.left())), memory_bytes=self.shop.memory_bytes)

    def _known(self, name: str) -> Trial | None:
        trial = self.journal.get(name)
        if trial is not None and name not in self.names:
            self.names.append(name)
        return trial

    def _blank(self, name: str, steps: tuple[Step, ...], settings: Settings, variant: Variant | None = None) -> Trial:
        """Return a trial that has failed unless more becomes of it."""
        return Trial(
            name=name,
            steps=steps,
            settings=settings,
            variant=variant,
            state="failed",
            reason="",
            log=self._log(name),
            making_s=tuple(self.making_s.get(steps[:end], 0.0) for end in range(1, len(steps) + 1)),
        )

    def _end(self, trial: Trial, start: float) -> Trial:
        trial = replace(trial, seconds=time.monotonic() - start)
        self.journal.add(trial)
        self.names.append(trial.name)
        self.progress.done(trial, self.best())
        return trial

    def _begin_log(self, trial: Trial) -> None:
        """Let the log of a trial begin with what was written while its variant was made."""
        made = [self._log(made_name(trial.steps[:end])) for end in range(1, len(trial.steps) + 1)]
        told = "".join(path.read_text("utf-8", errors="replace") for path in made if path.is_file())
        if told and trial.log is not None and not trial.log.exists():
            write_text(trial.log, told)

    def _log(self, name: str) -> Path:
        safe = "".join(c if c.isascii() and (c.isalnum() or c in "-=.") else "_" for c in name)[:120]
        return self.shop.folder.parent / "logs" / f"{safe}.log"


def foreign_meters() -> tuple[str, ...]:
    """Return the meters that other distributions brought."""
    return tuple(name for name in plugins.names("meters") if name not in METERS)


def same_weights(steps: Sequence[Step]) -> bool:
    """Say whether every step keeps the weights as they are (an export): only an engine's rounding changes answers."""
    return all(marked(step, "lossless") for step in steps)


def unrounded(steps: Sequence[Step]) -> bool:
    """Say whether every step keeps the weights or changes a network to be trained: it can still be quantized."""
    return all(marked(step, "lossless", "needs_training", "trains") for step in steps)


def marked(step: Step, *marks: str) -> bool:
    """Say whether the class of a step's technique has one of these marks."""
    kind = plugins.plugin_class("techniques", step.technique)
    return any(getattr(kind, mark, False) for mark in marks)


def trained(steps: Sequence[Step]) -> bool:
    """Say whether one of the steps trained the network."""
    return any(marked(step, "trains") for step in steps)


def as_ratio(found: Estimate, variant: Variant, baseline: Variant, margin: float) -> Ratio:
    """Return an estimate of block ratios as a value."""
    return Ratio(reading="latency", variant=variant.key, baseline=baseline.key, margin=margin, **asdict(found))


def outpaced(trial: Trial) -> bool:
    """Say whether a trial was dropped for its time alone, so that its answers were never judged."""
    return trial.state == "dropped" and trial.screening is not None and trial.quality is None


def made_name(steps: Sequence[Step]) -> str:
    """Return the name under which the last of some steps is made."""
    return " → ".join(step.label() for step in steps)


def _startup_s(variant: Variant) -> float:
    return float(getattr(plugins.plugin_class("runtimes", variant.settings.runtime), "startup_s", 0.0))


def _half_width(wall: Array) -> float:
    """Return about half the width of the 95 % interval of the log ratio of the first two rows."""
    logs = np.log(wall[0] / wall[1])
    low, high = np.quantile(logs, [0.25, 0.75])
    return float(1.96 * 1.2533 * (high - low) / 1.349 / np.sqrt(len(logs)))
