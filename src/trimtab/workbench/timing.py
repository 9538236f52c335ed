"""The final timing: fresh processes, all variants in turn in one run, a baseline against itself as a control."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from trimtab.core.errors import BadInput, MissingExtra, WorkerError
from trimtab.core.files import whole_file, write_text
from trimtab.core.process import Limits
from trimtab.core.protocols import Array, Arrays
from trimtab.core.values import Ratio, Reading, Trial, Variant, content_digest
from trimtab.meters.feed import timing_inputs
from trimtab.meters.interleave import interleave
from trimtab.meters.readings import timed
from trimtab.meters.warm import warm_up
from trimtab.reports.lineup import distinct_names
from trimtab.runtimes.session import open_session
from trimtab.search.race import UNSETTLED, Race, as_ratio
from trimtab.stats.percentiles import median
from trimtab.stats.ratios import Estimate, precise, ratio

_MOST_PROCESSES = 9
_WARM_S = 3.0
_LEAST_S = 1.0
_EACH_S = 2.0
_PATIENCE_S = 180.0  # with one call of an engine that ran before


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Timing:
    """Block times of several variants: per process an array of (variants + 1) × rounds; the last row is the self-test.

    The self-test is a second process of the variant `control`. `unsettled` says of each process which of the rows
    were still changing after 300 calls of warm-up.
    """

    variants: tuple[Variant, ...]
    control: int
    wall_s: tuple[Array, ...]
    cpu_s: tuple[Array, ...]
    seed: int
    margin: float
    unsettled: tuple[Array, ...] = ()

    def estimate(self, index: int, baseline: int) -> Estimate:
        """Return how one variant's times compare with another's."""
        return ratio(
            [wall[index] for wall in self.wall_s],
            [wall[baseline] for wall in self.wall_s],
            cpu_a=[cpu[index] for cpu in self.cpu_s],
            cpu_b=[cpu[baseline] for cpu in self.cpu_s],
            margin=self.margin,
            seed=self.seed,
        )

    def ratio(self, index: int, baseline: int) -> Ratio:
        """Return the ratio of one variant's times to another's."""
        found = self.estimate(index, baseline)
        other = self.variants[index if index < len(self.variants) else self.control]
        made = as_ratio(found, other, self.variants[baseline], self.margin)
        unsettled = any(rows[[index, baseline]].any() for rows in self.unsettled)
        return replace(made, cache=UNSETTLED) if unsettled else made

    def self_test(self) -> Ratio:
        """Return the ratio of the control to itself."""
        return self.ratio(len(self.variants), self.control)

    def latency(self, index: int) -> Reading:
        """Return the median time of one call in seconds; the interval is over processes, which differ more than calls.

        It goes with the ratios: read of one variant after the other, it would compare moments.
        """
        medians = [float(np.median(wall[index])) for wall in self.wall_s]
        return timed("latency_p50", median(medians), f"timed in turn, warm, {len(medians)} fresh processes")

    def warnings(self) -> tuple[str, ...]:
        """Return which variants had no steady state when their timing began, in words."""
        processes = len(self.unsettled)
        counts = [sum(bool(rows[place]) for rows in self.unsettled) for place in range(len(self.variants))]
        names = distinct_names(self.variants)
        named = [f"{name} ({n} of {processes} processes)" for name, n in zip(names, counts, strict=True) if n]
        if not named:
            return ()
        return (f"no steady state: the times of {', '.join(named)} still changed after 300 calls of warm-up",)


@dataclass(frozen=True, slots=True, kw_only=True)
class TimingPlan:
    """How a final timing is made. `seconds` bounds all of it; every process is kept in `folder` when it ends."""

    folder: Path
    seconds: float
    margin: float
    control: int = 0
    seed: int = 0
    processes: int = 5
    limits: Limits = field(default_factory=Limits)


def time_trials(
    race: Race, trials: Sequence[Trial], plan: TimingPlan, control: Trial | None = None
) -> tuple[list[Trial], Timing]:
    """Time trials in one run; return those that ran. One whose worker fails has failed, and the others run again.

    The first, which all are compared with, has to run, and is the control when no other is named. What was timed of a
    field is kept in a folder of its own.
    """
    running = list(trials)
    while True:
        variants = [trial.variant for trial in running if trial.variant is not None]
        feeds = [timing_inputs(variant, race.shop.task, race.goal.workload) for variant in variants]
        keys = [variant.key for variant in variants]
        place = running.index(control) if control in running else 0
        limits = Limits(start_s=_PATIENCE_S, call_s=_PATIENCE_S, memory_bytes=race.shop.memory_bytes)
        its = replace(plan, folder=field_folder(plan.folder, running), control=place, limits=limits)
        try:
            return running, time_finally(variants, feeds, its)
        except (WorkerError, BadInput, MissingExtra) as error:
            lost = keys.index(error.variant) if error.variant in keys else 0
            if lost == 0:
                raise
            race.fail(running.pop(lost), f"failed when it was timed again: {error}")


def field_folder(folder: Path, trials: Sequence[Trial]) -> Path:
    """Return where the times of a field are kept."""
    return folder / content_digest([trial.variant.key for trial in trials if trial.variant is not None])[:16]


def time_finally(variants: Sequence[Variant], inputs: Sequence[Arrays], plan: TimingPlan) -> Timing:
    """Time the variants in as many fresh processes each as planned, more while the intervals are too wide.

    Processes differ more than the blocks of one, so the seconds rather buy another process than more of the same: once
    warm each gets two seconds a variant, less when they must be shared among those to come, a second in all at least.
    """
    rounds: list[tuple[Array, Array, Array]] = []
    until = time.monotonic() + plan.seconds
    ended = plan.folder / "processes.txt"  # how many there were when it ended: run again it ends there, too
    before = int(ended.read_text()) if ended.is_file() else None
    while True:
        done = len(rounds)
        left = max(0.0, until - time.monotonic()) / max(1, plan.processes - done)
        rounds.append(_kept(plan.folder / f"{done}.npz", partial(_fresh, variants, inputs, plan, done, left)))
        timing = Timing(
            variants=tuple(variants),
            control=plan.control,
            wall_s=tuple(wall for wall, _, _ in rounds),
            cpu_s=tuple(cpu for _, cpu, _ in rounds),
            seed=plan.seed,
            margin=plan.margin,
            unsettled=tuple(unsettled for _, _, unsettled in rounds),
        )
        enough = len(rounds) >= _MOST_PROCESSES or time.monotonic() > until or _precise(timing)
        if len(rounds) == before or (len(rounds) >= plan.processes and enough):
            write_text(ended, str(len(rounds)))
            return timing


def _kept(path: Path, make: Callable[[], tuple[Array, Array, Array]]) -> tuple[Array, Array, Array]:
    """Return the wall-clock and processor times, and which were unsettled, kept at `path`, or make and keep them."""
    if path.is_file():
        with np.load(path, allow_pickle=False) as kept:
            wall, cpu = kept["wall"], kept["cpu"]
            return wall, cpu, kept["unsettled"] if "unsettled" in kept else np.zeros(len(wall), dtype=bool)
    wall, cpu, unsettled = make()
    with whole_file(path) as file:
        np.savez(file, wall=wall, cpu=cpu, unsettled=unsettled)
    return wall, cpu, unsettled


def _fresh(
    variants: Sequence[Variant], inputs: Sequence[Arrays], plan: TimingPlan, number: int, seconds: float
) -> tuple[Array, Array, Array]:
    """Start one process of every variant and of the control, in an order that alternates, and time them in turn."""
    chosen = [*variants, variants[plan.control]]
    feeds = [*inputs, inputs[plan.control]]
    order = list(range(len(chosen)))
    if number % 2:
        order.reverse()
    rng = np.random.default_rng([plan.seed, number])
    until = time.monotonic() + seconds
    warm_s = min(_WARM_S, max(0.2, 0.4 * seconds / len(chosen)))
    with ExitStack() as stack:
        logs = [plan.folder / f"{place}.log" for place in range(len(chosen))]
        opened = (open_session(v, log, plan.limits) for v, log in zip(chosen, logs, strict=True))
        sessions = [stack.enter_context(session) for session in opened]
        latencies, unsettled = [0.0] * len(chosen), np.zeros(len(chosen), dtype=bool)
        for index in order:
            sessions[index].run(feeds[index])
            latencies[index], state = warm_up(sessions[index], feeds[index], most_s=warm_s)
            sessions[index].pause()
            unsettled[index] = state == "unsteady"
        seconds = max(_LEAST_S, min(_EACH_S * len(chosen), until - time.monotonic()))
        found = interleave(sessions, feeds, latencies, seconds=seconds, rng=rng)
    return found.wall_s, found.cpu_s, unsettled


def _precise(timing: Timing) -> bool:
    """Say whether every interval against the control is narrow enough to stop, whatever its verdict."""
    others = [i for i in range(len(timing.variants)) if i != timing.control] or [len(timing.variants)]
    return all(precise(timing.estimate(index, timing.control), timing.margin) for index in others)
