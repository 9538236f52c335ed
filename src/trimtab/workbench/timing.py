"""The final timing: fresh processes, all variants in turn in one run, a baseline against itself as a control."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from trimtab.core.files import whole_file
from trimtab.core.protocols import Array, Arrays
from trimtab.core.values import Ratio, Variant
from trimtab.meters.interleave import interleave
from trimtab.meters.warm import warm_up
from trimtab.runtimes.session import open_session
from trimtab.search.race import as_ratio
from trimtab.stats.ratios import Estimate, precise, ratio

_MOST_PROCESSES = 9
_WARM_S = 3.0
_LEAST_S = 1.0
_EACH_S = 2.0


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Timing:
    """Block times of several variants: per process an array of (variants + 1) × rounds; the last row is the self-test.

    The self-test is a second process of the variant `control`.
    """

    variants: tuple[Variant, ...]
    control: int
    wall_s: tuple[Array, ...]
    cpu_s: tuple[Array, ...]
    seed: int
    margin: float

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
        return as_ratio(found, other, self.variants[baseline], self.margin)

    def self_test(self) -> Ratio:
        """Return the ratio of the control to itself."""
        return self.ratio(len(self.variants), self.control)


@dataclass(frozen=True, slots=True, kw_only=True)
class TimingPlan:
    """How a final timing is made. `seconds` bounds all of it; every process is kept in `folder` when it ends."""

    folder: Path
    seconds: float
    margin: float
    control: int = 0
    seed: int = 0
    processes: int = 5


def time_finally(variants: Sequence[Variant], inputs: Sequence[Arrays], plan: TimingPlan) -> Timing:
    """Time the variants in as many fresh processes each as planned, more while the intervals are too wide.

    Processes differ more than the blocks of one, so the seconds rather buy another process than more of the same: once
    warm each gets two seconds a variant, less when they must be shared among those to come, a second in all at least.
    """
    rounds: list[tuple[Array, Array]] = []
    until = time.monotonic() + plan.seconds
    while True:
        done = len(rounds)
        left = max(0.0, until - time.monotonic()) / max(1, plan.processes - done)
        rounds.append(_kept(plan.folder / f"{done}.npz", partial(_fresh, variants, inputs, plan, done, left)))
        timing = Timing(
            variants=tuple(variants),
            control=plan.control,
            wall_s=tuple(wall for wall, _ in rounds),
            cpu_s=tuple(cpu for _, cpu in rounds),
            seed=plan.seed,
            margin=plan.margin,
        )
        enough = len(rounds) >= _MOST_PROCESSES or time.monotonic() > until or _precise(timing)
        if len(rounds) >= plan.processes and enough:
            return timing


def _kept(path: Path, make: Callable[[], tuple[Array, Array]]) -> tuple[Array, Array]:
    """Return the wall-clock and processor times kept at `path`, or make and keep them."""
    if path.is_file():
        with np.load(path, allow_pickle=False) as kept:
            return kept["wall"], kept["cpu"]
    wall, cpu = make()
    with whole_file(path) as file:
        np.savez(file, wall=wall, cpu=cpu)
    return wall, cpu


def _fresh(
    variants: Sequence[Variant], inputs: Sequence[Arrays], plan: TimingPlan, number: int, seconds: float
) -> tuple[Array, Array]:
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
        sessions = [stack.enter_context(open_session(v, plan.folder / f"{i}.log")) for i, v in enumerate(chosen)]
        latencies = [0.0] * len(chosen)
        for index in order:
            sessions[index].run(feeds[index])
            latencies[index], _ = warm_up(sessions[index], feeds[index], most_s=warm_s)
        seconds = max(_LEAST_S, min(_EACH_S * len(chosen), until - time.monotonic()))
        found = interleave(sessions, feeds, latencies, seconds=seconds, rng=rng)
    return found.wall_s, found.cpu_s


def _precise(timing: Timing) -> bool:
    """Say whether every interval against the control is narrow enough to stop, whatever its verdict."""
    others = [i for i in range(len(timing.variants)) if i != timing.control] or [len(timing.variants)]
    return all(precise(timing.estimate(index, timing.control), timing.margin) for index in others)
