"""Mixed precision: int8 with the most damaging layers kept in float, as few as the goal allows."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trimtab.core import plugins
from trimtab.core.errors import BadInput, NothingToGain
from trimtab.core.protocols import Array, Context
from trimtab.core.values import Options, Scalar, Step, Task, Variant, options
from trimtab.techniques.int8 import Calibrated, feeds, joined, kept, options_of, quantized

_GROUPS = 8  # the layers are first measured in that many groups
_EVALUATIONS = 64
_FIRST = 16  # the search for how many to keep begins with one layer in so many
_SHARE = 0.4  # of the time left, for the ranking; the rest is for the search on the select split


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepFloat:
    """Quantizes with another technique, and keeps the fewest layers in float with which at most `max_drop` is lost.

    The layers are ranked by the error that quantizing them alone makes in the model's outputs on `probes`
    calibration items; how many of them to keep is found on the select split, by doubling and then by bisection. At
    most half of the layers are kept: beyond that the gain is gone. `arguments` are options of the technique, as
    "name=value, name=value". Given `keep` (separated by |), exactly these layers are kept and nothing is searched. A
    model that loses exactly what it may can never be proven to lose less, so `max_drop` is best half of the goal's.
    """

    technique: str = "static-int8"  # no dimension of the search: the layers kept belong to the one it was
    arguments: str = ""
    max_drop: float = 0.005
    probes: int = 64
    keep: str = ""

    name = "keep-float"

    def rescue(self, step: Step, max_drop: float) -> Step:
        """Return the step that repairs what an int8 quantization lost; it is for the variant before that one.

        Args:
            step: The quantization.
            max_drop: The most that may be lost on the select split, in the metric's unit.
        """
        given = ", ".join(f"{name}={value}" for name, value in step.options if name != "keep" and value is not None)
        return Step(technique=self.name, options=options(technique=step.technique, arguments=given, max_drop=max_drop))

    @staticmethod
    def told(given: Options) -> Options:
        """Return the options as a label tells them: of the quantization's only those that differ from its defaults."""
        chosen: dict[str, Scalar] = {"technique": KeepFloat().technique, "arguments": "", **dict(given)}
        inner = plugins.telling(str(chosen["technique"]), parse(str(chosen["arguments"])))
        return options(chosen, arguments=", ".join(f"{name}={value}" for name, value in inner))

    def refuses(self, variant: Variant, task: Task) -> str | None:
        """Refuse what the technique itself refuses, and missing data to choose the layers with."""
        technique = self._technique()
        if not hasattr(technique, "prepare"):
            return f"{self.technique} can't keep single layers in float"
        if not self.keep and not (task.split("calibrate") and task.split("select")):
            return "keep-float needs data to find the layers that do damage: give --data"
        reason: str | None = technique.refuses(variant, task)
        return reason

    def apply(self, variant: Variant, context: Context) -> Variant:
        """Return the mixed variant, its step naming the layers kept; raise `NothingToGain` when no choice will do."""
        calibrated: Calibrated = self._technique().prepare(variant, context)
        if self.keep:
            return self._mixed(variant, context, calibrated, kept(self.keep), str(context.seed))
        start = time.monotonic()
        until = start + _SHARE * (context.deadline - start)
        loss_of = _loss_on(calibrated, variant, context.task, self.probes)
        ranking = rank_layers(calibrated.layers, loss_of, _EVALUATIONS, lambda: time.monotonic() > until)
        best: dict[int, Variant] = {}

        def passes(count: int) -> bool:
            made = self._mixed(variant, context, calibrated, ranking[:count], f"keep-{count}")
            best[count] = made
            return context.evaluate(made, self.max_drop) <= self.max_drop

        first = max(1, len(ranking) // _FIRST)
        count = fewest(len(ranking) // 2, passes, lambda: time.monotonic() > context.deadline, first)
        if count is None:
            raise NothingToGain(
                f"{self.technique} loses more than {self.max_drop:.4g} even with half of the {len(ranking)} layers in "
                "float; nothing of the gain would be left"
            )
        return best[count]

    def _technique(self) -> Any:
        return plugins.make("techniques", self.technique, parse(self.arguments))

    def _mixed(
        self, variant: Variant, context: Context, calibrated: Calibrated, keep: Sequence[str], folder: str
    ) -> Variant:
        step = Step(
            technique=self.name,
            options=options_of(self, keep=joined(keep, calibrated.layers)),
            seed=context.seed,
        )
        return quantized(variant, calibrated, step, keep, context.folder / folder)


def parse(text: str) -> Options:
    """Return the options in "name=value, name=value"; a value is a truth, a number or a word."""
    found: dict[str, Scalar] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = part.partition("=")
        if not equals:
            raise BadInput(f'{part!r} is not understood; type options like "calibration=entropy, per_channel=False"')
        found[name.strip()] = _scalar(value.strip())
    return options(found)


def _scalar(word: str) -> Scalar:
    named: dict[str, Scalar] = {"True": True, "False": False, "None": None}
    if word in named:
        return named[word]
    for kind in (int, float):
        try:
            return kind(word)
        except ValueError:
            continue
    return word


def rank_layers(
    layers: Sequence[str],
    loss_of: Callable[[Sequence[str]], float],
    evaluations: int,
    stop: Callable[[], bool] = lambda: False,
) -> tuple[str, ...]:
    """Return all layers, the most damaging first, with at most that many calls of `loss_of` beyond the first groups.

    `loss_of(group)` is the loss when that group alone is damaged. Neighbouring layers are measured together; the
    group with the largest loss is halved, again and again, so that the effort goes to where the damage is. Layers
    that were never measured alone share the loss of their group.
    """
    size = -(-len(layers) // _GROUPS)
    groups = [tuple(layers[start : start + size]) for start in range(0, len(layers), size)] if layers else []
    open_groups = [(-loss_of(group), index, group) for index, group in enumerate(groups)]
    heapq.heapify(open_groups)
    ranked: list[tuple[float, tuple[str, ...]]] = []
    made = len(groups)
    while open_groups:
        loss, _, group = heapq.heappop(open_groups)
        if len(group) == 1 or evaluations < 2 or stop():
            ranked.append((loss / len(group), group))
            continue
        evaluations -= 2
        for half in (group[: len(group) // 2], group[len(group) // 2 :]):
            heapq.heappush(open_groups, (-loss_of(half), made, half))
            made += 1
    return tuple(layer for _, group in sorted(ranked, key=lambda pair: pair[0]) for layer in group)


def fewest(
    most: int, passes: Callable[[int], bool], stop: Callable[[], bool] = lambda: False, first: int = 1
) -> int | None:
    """Return the smallest count from 0 to `most` that passes, or None when not even `most` does.

    Takes it that what passes with some passes with more. Counts are doubled from `first` until one passes, then the
    gap is halved. Asked to stop, it returns the smallest count seen to pass, and tries `most` when none was.
    """
    low, high = 0, min(first, most)
    while not passes(high):
        if high == most:
            return None
        low, high = high + 1, most if stop() else min(2 * high, most)
    while low < high and not stop():
        middle = (low + high) // 2
        if passes(middle):
            high = middle
        else:
            low = middle + 1
    return high


def _loss_on(calibrated: Calibrated, variant: Variant, task: Task, items: int) -> Callable[[Sequence[str]], float]:
    """Return the function that measures the error in the outputs when only the given layers are quantized.

    The error is the mean square over all outputs, relative to each output's variance.
    """
    given = list(feeds(variant, task, items))
    right = calibrated.run(calibrated.original, given)
    layers = frozenset(calibrated.layers)

    def loss_of(group: Sequence[str]) -> float:
        got = calibrated.run(calibrated.build(layers - set(group)), given)
        return float(np.mean([_error(*pair) for pair in zip(_columns(got), _columns(right), strict=True)]))

    return loss_of


def _columns(runs: list[list[Array]]) -> list[Array]:
    """Return one flat array per output over all feeds."""
    return [np.concatenate([value.reshape(-1) for value in column]) for column in zip(*runs, strict=True)]


def _error(got: Array, right: Array) -> float:
    got, right = got.astype(np.float64), right.astype(np.float64)
    return float(np.mean((got - right) ** 2) / (np.var(right) or 1.0))
