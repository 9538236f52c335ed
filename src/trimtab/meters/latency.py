"""Reads how long one call takes, how long the start takes, and how many cores are busy meanwhile."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from trimtab.core.protocols import Arrays, Informed, Samples, Session
from trimtab.core.values import Reading, Task, Trace, Variant, Workload
from trimtab.meters.feed import timing_inputs
from trimtab.meters.readings import WORKER_CLOCK, timed, unavailable
from trimtab.meters.warm import warm_up
from trimtab.stats import percentiles

_KEPT = 2000
_CHUNK_S = 0.25
PERCENTILES = {"latency_p90": 0.90, "latency_p99": 0.99}


class LatencyMeter:
    """Reads the time of one call, warm, at the workload's batch, and the cold start of the session's process.

    Args:
        calls: how many calls are timed after the warm-up; p90 needs 64 of them, p99 662.
        seconds: timing ends after about this long, though fewer calls were made.
        percentile: so many calls are made in any case that this one can be told (0.99 is p99), whatever `seconds` says.
    """

    name = "latency"
    readings: ClassVar = {
        **dict.fromkeys(("latency_mean", "latency_p50", *PERCENTILES, "load_time", "first_call"), "s"),
        "cpu_use": "cores",
    }

    def __init__(self, calls: int = 700, seconds: float = 5.0, percentile: float | None = None) -> None:
        self._calls = calls
        self._seconds = seconds
        self._least = 1 if percentile is None else percentiles.samples_needed(percentile)

    def read(self, session: Session, variant: Variant, task: Task, workload: Workload) -> Sequence[Reading | Trace]:
        """Return mean and percentiles of the time of a call, processor use, cold start, and the samples themselves."""
        inputs = timing_inputs(variant, task, workload)
        _, state = warm_up(session, inputs)
        samples = time_calls(session, inputs, self._calls, self._seconds, self._least)
        scope = f"batch {workload.batch}, one call at a time, warm" + ("" if state == "steady" else ", no steady state")
        return [*latency_readings(samples, scope), *cold_start(session), latency_trace(samples)]


def time_calls(session: Session, inputs: Arrays, calls: int, seconds: float, least: int = 1) -> Samples:
    """Time that many calls, fewer when the seconds are over, but never fewer than the least."""
    parts = [session.time(inputs, 1)]
    spent_s = float(parts[0].wall_ns.sum()) / 1e9
    done = 1
    while done < least or (done < calls and spent_s < seconds):
        # small portions, so that the end is not missed by much
        left_s = min(_CHUNK_S, seconds - spent_s) if spent_s < seconds else _CHUNK_S
        portion = int(left_s / max(spent_s / done, 1e-9))
        parts.append(session.time(inputs, max(1, min(portion, max(calls, least) - done))))
        done += len(parts[-1].wall_ns)
        spent_s += float(parts[-1].wall_ns.sum()) / 1e9
    return Samples(np.concatenate([p.wall_ns for p in parts]), np.concatenate([p.cpu_ns for p in parts]))


def latency_readings(samples: Samples, scope: str) -> list[Reading]:
    """Return mean, p50, p90, p99 in seconds and the cores in use.

    p90 and p99 are upper bounds at 99 % confidence (MLPerf's early-stopping rule), `low` is the percentile as observed;
    with too few calls they are unavailable.
    """
    times = samples.wall_ns / 1e9
    return [
        timed("latency_mean", percentiles.mean(times), scope),
        timed("latency_p50", percentiles.median(times), scope),
        *(_percentile(name, times, share, scope) for name, share in PERCENTILES.items()),
        _cpu_use(samples, scope),
    ]


def latency_trace(samples: Samples) -> Trace:
    """Return the seconds of each call over the seconds since the first; of more than 2,000, every so many-th."""
    times = samples.wall_ns / 1e9
    kept = np.unique(np.linspace(0, len(times) - 1, min(len(times), _KEPT)).astype(int))
    starts = np.concatenate([[0.0], np.cumsum(times)[:-1]])
    return Trace(name="latency", times=tuple(starts[kept].tolist()), values=tuple(times[kept].tolist()), unit="s")


def cold_start(session: Session) -> list[Reading]:
    """Return the seconds that loading and the first call took in the session's process."""
    told = session.info() if isinstance(session, Informed) else {}
    wanted = (("load_time", "load_s", "reading and compiling"), ("first_call", "first_call_s", "the first call"))
    found = []
    for name, key, what in wanted:
        value = told.get(key, math.nan)
        if math.isnan(value):
            found.append(unavailable(name, f"the session does not tell how long {what} took", "s"))
        else:
            scope = f"{what} in a fresh process, files cached"
            found.append(Reading(name=name, value=value, unit="s", direction="lower", source=WORKER_CLOCK, scope=scope))
    return found


def _percentile(name: str, times: NDArray[np.float64], share: float, scope: str) -> Reading:
    bound, calls = percentiles.upper_bound(times, share), len(times)
    if bound is None:
        return unavailable(name, f"n too small: {calls} of {percentiles.samples_needed(share)}", "s", samples=calls)
    observed = float(np.quantile(times, share))
    scope = f"upper bound at 99 % confidence, {scope}"
    found = percentiles.Estimate(
        value=bound, low=min(observed, bound), high=bound, level=percentiles.CONFIDENCE, samples=calls
    )
    return timed(name, found, scope)


def _cpu_use(samples: Samples, scope: str) -> Reading:
    """Return processor seconds per wall-clock second, with the interval of that ratio of sums."""
    wall, cpu = samples.wall_ns / 1e9, samples.cpu_ns / 1e9
    use = float(cpu.sum() / wall.sum())
    width = 1.96 * float(np.sqrt(np.sum((cpu - use * wall) ** 2)) / wall.sum())
    return Reading(
        name="cpu_use",
        value=use,
        unit="cores",
        direction="lower",
        low=max(0.0, use - width),
        high=use + width,
        samples=len(wall),
        source="processor time of the worker process",
        scope=scope,
    )
