"""What it takes to train a network: expected before the first one was trained, then learnt from those that were."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import nnls

_SETUP_S = 10.0  # until the first step: a process, its libraries, the data, what the teacher answers
_FIXED = 0.05  # of the original's epoch: what an epoch costs whatever the network
_BACKWARD = 2.0  # a step of training takes about three times as long as answering, in batches that save a third
_DOUBT = 0.3  # how much what was expected counts beside one training that was seen


@dataclass(slots=True)
class TrainingCost:
    """Seconds to begin a training, and seconds an epoch in proportion to the work of a network.

    `answer_s` is what the original takes to answer all items to train on. Work is in units of the original's.
    """

    answer_s: float
    setup_s: float = _SETUP_S
    rate_s: float = 0.0
    _seen: list[tuple[float, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rate_s = _BACKWARD * self.answer_s

    def epoch_s(self, work: float) -> float:
        """Return the seconds that an epoch of a network is expected to take, without the setup."""
        return self.rate_s * (work + _FIXED)

    def learn(self, work: float, epochs: float, seconds: float) -> None:
        """Take in what a training took in all: least squares of relative errors, no part below nothing."""
        if seconds <= 0:
            return
        self._seen.append((epochs * (work + _FIXED), seconds))
        expected = [(_DOUBT / _SETUP_S, 0.0), (0.0, _DOUBT / max(_BACKWARD * self.answer_s, 1e-9))]
        rows = [*((1 / taken, effort / taken) for effort, taken in self._seen), *expected]
        (self.setup_s, self.rate_s), _ = nnls(np.array(rows), np.array([1.0] * len(self._seen) + [_DOUBT] * 2))
        self.rate_s = max(float(self.rate_s), 1e-9)
