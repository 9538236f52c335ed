"""Decides which changed network to train next, and how long: successive halving by what is hoped of a second.

Candidates climb rungs; each trains a few times as long as the one below, going on from the weights that it left (Li et
al. 2020, "A system for massively parallel hyperparameter tuning", climb by rank). Here the candidate climbs next that
promises most for its cost: the gain in log time over the best so far, times the chance that its loss comes down to
what is allowed, by the seconds of all the training that is left to it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.stats import norm

STEP = 3
"""How many times as long a rung trains as the one below (Li et al. 2018 take 3 or 4)."""

_FLOOR = 0.25  # of what is allowed: a loss below that is as good as none, and its logarithm would say too much
_FALL, _FALL_SD = 0.7, 0.35  # log loss that a rung takes away, and how much that differs among candidates
_DOUBT = 0.3  # how far the usual fall of a rung may lie from that, until climbs were seen
_SLOPE, _SLOPE_SD = -0.7, 0.4  # log loss by log work after the first rung: half the work, 1.6 times the loss
_START, _START_SD = math.log(2.0), 1.0  # log loss (in what is allowed) of a candidate as large as the original
_CARRY, _CARRY_SD = 0.3, 0.2  # log loss by that before training: what was refitted well is half way there
_BROKEN = math.log(50.0)  # log loss (in what is allowed) before training of a network that was not refitted
_SPREAD = 0.6  # of the log losses of candidates of the same work
_MOST_EPOCHS = 100  # of one rung: more hardly ever help
_WORTH = 0.02  # a gain in log time below that is not worth training for


@dataclass(slots=True, kw_only=True)
class Candidate:
    """A network that could be trained.

    `time` is its latency as a ratio to the model as given, `work` its multiply-accumulates likewise, `epoch_s` what
    an epoch on all items costs it. `losses` are those on the select split after each rung, `before` the one before any
    training, None where it isn't known.
    """

    name: str
    time: float
    work: float
    epoch_s: float
    before: float | None = None
    losses: list[float] = field(default_factory=list)
    out: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A candidate to be trained on a rung, and why: the gain in time, the chance of keeping the goal, the cost."""

    name: str
    rung: int
    gain: float
    chance: float
    seconds: float

    @property
    def worth(self) -> float:
        """What is hoped of a second."""
        return self.gain * self.chance / max(self.seconds, 1e-9)

    def words(self) -> str:
        """Return why it is this one."""
        return (
            f"{(1 - math.exp(-self.gain)):.0%} less time than the best so far, a chance of {self.chance:.0%} to keep "
            f"the goal, about {self.seconds:.0f} s of training left"
        )


class Halving:
    """What was learnt about some candidates so far, and what to train next.

    Args:
        allowed: the loss on the select split that keeps the goal, in the metric's unit; above 0.
        rungs: the epochs that each rung trains, a fraction of one for a part of the items.
        setup_s: the seconds that every training takes besides its epochs.
    """

    def __init__(self, allowed: float, rungs: Sequence[float], setup_s: float = 0.0) -> None:
        self._allowed, self.rungs, self.setup_s = allowed, tuple(rungs), setup_s
        self.candidates: dict[str, Candidate] = {}

    def add(self, candidate: Candidate) -> None:
        """Take a candidate in."""
        self.candidates[candidate.name] = candidate

    def told(self, name: str, loss: float) -> None:
        """Note what a candidate loses after its next rung."""
        self.candidates[name].losses.append(loss)

    def extend(self, rungs: Sequence[float]) -> None:
        """Take other rungs above those that somebody has climbed already."""
        used = max((len(each.losses) for each in self.candidates.values()), default=0)
        kept = self.rungs[:used]
        self.rungs = (*kept, *(each for each in rungs if not kept or each > kept[-1]))

    def drop(self, name: str) -> None:
        """Train a candidate no further."""
        self.candidates[name].out = True

    def next(self, best: float, left_s: float) -> Job | None:
        """Return what to train next, None where nothing is worth it within the seconds that are left.

        Args:
            best: the time ratio of the best network so far that keeps the goal; faster ones are wanted.
            left_s: the seconds that all training may still take.
        """
        jobs = (self._job(each, best) for each in self.candidates.values() if not each.out)
        able = [job for job in jobs if job is not None and job.gain > _WORTH and self._fits(job, left_s)]
        return max(able, key=lambda job: job.worth, default=None)

    def final_loss(self, name: str) -> float:
        """Return the loss that is expected of a candidate in the end, its median."""
        mean, _ = self._outlook(self.candidates[name])
        return float(math.exp(mean) - _FLOOR) * self._allowed

    def _fits(self, job: Job, left_s: float) -> bool:
        """Say whether the next rung of a job can end in time; the rungs above it may not."""
        return self._cost(self.candidates[job.name], job.rung) <= left_s

    def _job(self, candidate: Candidate, best: float) -> Job | None:
        rung = len(candidate.losses)
        if rung >= len(self.rungs):
            return None
        mean, spread = self._outlook(candidate)
        chance = float(norm.cdf((math.log(1 + _FLOOR) - mean) / spread))
        seconds = sum(self._cost(candidate, each) for each in range(rung, len(self.rungs)))
        gain = math.log(best / candidate.time)
        return Job(name=candidate.name, rung=rung, gain=gain, chance=chance, seconds=seconds)

    def _cost(self, candidate: Candidate, rung: int) -> float:
        return self.setup_s + candidate.epoch_s * self.rungs[rung]

    def _outlook(self, candidate: Candidate) -> tuple[float, float]:
        """Return mean and standard deviation of a candidate's log loss after the last rung.

        Candidates differ in how they fall from one rung to the next; how they usually do is not known either, and
        that doubt is one and the same at every rung that nobody has climbed yet.
        """
        known = len(candidate.losses)
        falls = [self._fall(rung) for rung in range(max(known, 1), len(self.rungs))]
        mean, variance = (self._log(candidate.losses[-1]), 0.0) if known else self._first(candidate)
        mean -= sum(fall for fall, _ in falls)
        doubt = sum(doubt for _, doubt in falls)
        return mean, math.sqrt(variance + len(falls) * _FALL_SD**2 + doubt**2 + 0.01)

    def _log(self, loss: float) -> float:
        """Return the logarithm of a loss in units of what is allowed."""
        return math.log(max(loss, 0.0) / self._allowed + _FLOOR)

    def _fall(self, rung: int) -> tuple[float, float]:
        """Return how much log loss a rung usually takes away, and the standard deviation of that knowledge.

        That is the posterior of a normal mean, as in Bishop 2006, section 2.3.6.
        """
        seen = [
            self._log(each.losses[rung - 1]) - self._log(each.losses[rung])
            for each in self.candidates.values()
            if len(each.losses) > rung
        ]
        precision = 1 / _DOUBT**2 + len(seen) / _FALL_SD**2
        mean = (_FALL / _DOUBT**2 + sum(seen) / _FALL_SD**2) / precision
        return mean, math.sqrt(1 / precision)

    def _first(self, candidate: Candidate) -> tuple[float, float]:
        """Return mean and variance of the log loss after the first rung, by what is known of those that were there.

        That is a Bayesian line, as in Bishop 2006, section 3.3.
        """
        seen = [each for each in self.candidates.values() if each.losses]
        x = np.array([self._known(each) for each in seen]).reshape(-1, 3)
        y = np.array([self._log(each.losses[0]) for each in seen])
        prior = np.diag([1 / _START_SD**2, 1 / _SLOPE_SD**2, 1 / _CARRY_SD**2])
        covariance = np.linalg.inv(prior + x.T @ x / _SPREAD**2)
        weights = covariance @ (prior @ np.array([_START, _SLOPE, _CARRY]) + x.T @ y / _SPREAD**2)
        at = np.array(self._known(candidate))
        return float(at @ weights), float(at @ covariance @ at + _SPREAD**2)

    def _known(self, candidate: Candidate) -> tuple[float, float, float]:
        """Return what is known of a candidate before it is trained: 1, log work, log loss against a broken one's."""
        lost = _BROKEN if candidate.before is None else min(self._log(candidate.before), _BROKEN)
        return 1.0, math.log(candidate.work), lost - _BROKEN


def rungs_of(epoch_s: float, seconds: float, *, share: float = 0.4, first: float = 0.03) -> tuple[float, ...]:
    """Return the epochs of each rung, for candidates whose epoch takes some seconds.

    The first rung takes about a share `first` of the seconds, a quarter of an epoch at least; each further one
    `STEP` times as long, while it takes at most a share `share`. Rungs of an epoch and more are whole.
    """
    start = max(0.25, min(first * seconds / epoch_s, 8.0))
    start = round(start) if start >= 1 else float(f"{start:.1g}")
    rungs = [float(start)]
    while rungs[-1] * STEP * epoch_s <= share * seconds and rungs[-1] * STEP <= _MOST_EPOCHS:
        following = rungs[-1] * STEP
        rungs.append(float(round(following)) if following >= 1 else following)
    return tuple(rungs)
