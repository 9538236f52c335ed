"""Predicts the latency of a model on this machine from what was measured on it before, in this run and earlier ones.

A call costs something by itself, something for every operator, every multiply-accumulate and every byte of weights.
The costs are learnt, for all models that ran on the same settings, by non-negative least squares of relative errors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import nnls

from trimtab.core.codec import dumps, loads
from trimtab.core.errors import BadInput
from trimtab.core.values import Settings, Work, Workload

Features = tuple[float, ...]
"""One call, and its operators, multiply-accumulates and bytes of weights."""

_ENOUGH = 8  # measurements of different models, fewer predict nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One measurement: where it was made, what of, and the seconds of a call."""

    where: str
    features: Features
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """The seconds of a call, with the interval that 90 % of models like those that were seen lie in."""

    seconds: float
    low: float
    high: float
    seen: int


class Predictor:
    """What was measured on one machine, kept in a file of JSON lines, and what it lets expect."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen = _read(path)

    def learn(self, where: str, features: Features, seconds: float) -> None:
        """Keep a measurement, unless the same was made before."""
        if seconds > 0 and not any(each.where == where and each.features == features for each in self._seen):
            seen = Seen(where=where, features=features, seconds=seconds)
            self._seen.append(seen)
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(dumps(seen) + "\n")

    def predict(self, where: str, features: Features) -> Prediction | None:
        """Return how long a call will take, None where too little was measured to tell."""
        known = [each for each in self._seen if each.where == where]
        if len(known) < _ENOUGH:
            return None
        x = np.array([each.features for each in known])
        y = np.array([each.seconds for each in known])
        scale = np.maximum(x.max(axis=0), 1e-12)
        costs, _ = nnls(x / scale / y[:, None], np.ones(len(y)))
        expected = float(np.array(features) / scale @ costs)
        if expected <= 0:
            return None
        off = np.log(np.maximum(x / scale @ costs, 1e-12) / y)
        freedom = max(len(y) - int(np.count_nonzero(costs)), 1)
        spread = 1.645 * math.sqrt(float(off @ off) / freedom * (1 + 1 / len(y)))
        return Prediction(
            seconds=expected, low=expected * math.exp(-spread), high=expected * math.exp(spread), seen=len(known)
        )


def where(settings: Settings, workload: Workload) -> str:
    """Return what must be the same for one measurement to tell about another."""
    return f"{settings.label()}, batch {workload.batch}"


def features(work: Work, weight_bytes: float) -> Features:
    """Return what the latency of a model depends on."""
    operators = len(work.layers) + sum(count for _, count in work.excluded)
    return 1.0, float(operators), float(work.macs), float(weight_bytes)


def _read(path: Path) -> list[Seen]:
    """Return what a file holds; a last line that a killed run left half written is passed over."""
    if not path.is_file():
        return []
    found = []
    for line in path.read_text("utf-8").splitlines():
        try:
            found.append(loads(Seen, line))
        except BadInput:
            continue
    return found
