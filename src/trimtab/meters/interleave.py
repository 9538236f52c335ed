"""Times several variants in turn, in short blocks of random order, so that a noisy machine hits all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trimtab.core.protocols import Arrays, Pausable, Session

BLOCK_S = 0.015
_MOST_CALLS = 200
_CHECK_EVERY = 8
_FEWEST_ROUNDS = 16

Stop = Callable[[NDArray[np.float64]], bool]
"""Given the wall-clock block times so far (sessions × rounds, seconds), says whether they are enough."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Rounds:
    """Median seconds per call of each block: arrays of shape (sessions, rounds), from one process per session."""

    wall_s: NDArray[np.float64]
    cpu_s: NDArray[np.float64]


def block_calls(latency_s: float) -> tuple[int, int]:
    """Return how many calls of a block count, and how many before them are thrown away, for a block of about 15 ms."""
    counted = int(np.clip(round(BLOCK_S / max(latency_s, 1e-9)), 1, _MOST_CALLS))
    thrown = 2 if latency_s < 0.002 else 1 if latency_s < 0.1 else 0
    return counted, thrown


def interleave(
    sessions: Sequence[Session],
    inputs: Sequence[Arrays],
    latencies_s: Sequence[float],
    *,
    seconds: float,
    rng: np.random.Generator,
    stop: Stop | None = None,
) -> Rounds:
    """Time warm sessions in rounds, each round one block of every session in random order.

    A session stands still while it is not its turn, so that no engine pays for another one's idling threads.

    Args:
        sessions: the warm sessions.
        inputs: what each session is fed; keep the objects the same from call to call.
        latencies_s: about how long one call of each takes, to size the blocks.
        seconds: the budget; at least 3 rounds are made whatever it is.
        rng: the order of each round.
        stop: asked every few rounds from 16 rounds on; it must look at the precision, never at the verdict.
    """
    sizes = [block_calls(latency) for latency in latencies_s]
    wall: list[list[float]] = []
    cpu: list[list[float]] = []
    for session in sessions:
        _pause(session)
    end = time.monotonic() + seconds
    while len(wall) < 3 or time.monotonic() < end:
        wall_round, cpu_round = [0.0] * len(sessions), [0.0] * len(sessions)
        for index in rng.permutation(len(sessions)):
            counted, thrown = sizes[index]
            samples = sessions[index].time(inputs[index], counted + thrown)
            _pause(sessions[index])
            wall_round[index] = _seconds(samples.wall_ns[thrown:])
            cpu_round[index] = _seconds(samples.cpu_ns[thrown:])
        wall.append(wall_round)
        cpu.append(cpu_round)
        due = len(wall) >= _FEWEST_ROUNDS and len(wall) % _CHECK_EVERY == 0
        if stop is not None and due and stop(np.asarray(wall).T):
            break
    return Rounds(wall_s=np.asarray(wall).T, cpu_s=np.asarray(cpu).T)


def _pause(session: Session) -> None:
    if isinstance(session, Pausable):
        session.pause()


def _seconds(nanoseconds: NDArray[Any]) -> float:
    return float(np.median(nanoseconds)) / 1e9
