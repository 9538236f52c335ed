"""Who is on stage: the variants of a result or a comparison, each with its role, its measurement and its colour.

Tables, figures and the HTML report all read from here, so a variant has one name and one colour everywhere.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from trimtab.core.values import (
    Comparison,
    Direction,
    Measurement,
    NoWorse,
    Ratio,
    Reading,
    Result,
    Trial,
    TrialState,
    Variant,
)
from trimtab.core.words import reading_name

GIVEN, UNTOUCHED, WINNER, TRIED = "#6b7280", "#0072b2", "#d55e00", "#a3a8b0"
OTHERS = ("#009e73", "#b3589a", "#c98a00", "#4aa3d8")
"""Okabe and Ito's colours (distinct for the colour-blind), darkened where they would be faint on white."""

Part = Literal["given", "untouched", "winner", "finalist", "tried"]
_ORDER = {"proven": 0, "unproven": 1, "kept": 2, "dropped": 3, "skipped": 4, "failed": 5}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A variant as reports show it; `final` says that it was part of the final paired run.

    Ratios and proofs call it by its `key`, None when it could not be made. `against` is what is known only against the
    model as given: `relative_time` and the change of the metric.
    """

    name: str
    part: Part
    colour: str
    state: TrialState | None = None
    key: str | None = None
    measurement: Measurement | None = None
    trial: Trial | None = None
    final: bool = False
    won: bool = False
    against: tuple[Reading, ...] = ()

    @property
    def readings(self) -> tuple[Reading, ...]:
        """Every reading of the variant, those against the model as given first."""
        return (*self.against, *(self.measurement.readings if self.measurement else ()))

    def reading(self, name: str, place: str | None = None) -> Reading | None:
        """Return a reading that has a value, or None: what is unavailable is never drawn."""
        return next((r for r in self.readings if r.name == name and r.place == place and r.value is not None), None)


def lineup(source: Result | Comparison) -> tuple[Entry, ...]:
    """Return every variant: as given, best untouched, the winner, then the others, the best state first."""
    entries = _of_result(source) if isinstance(source, Result) else _of_comparison(source)
    comparison = source.comparison if isinstance(source, Result) else source
    return tuple(replace(entry, against=_against(comparison, entry, entries[0])) for entry in entries)


def finalists(source: Result | Comparison) -> tuple[Entry, ...]:
    """Return the variants worth a colour of their own: the baselines and those of the final run, at most seven."""
    return tuple(entry for entry in lineup(source) if entry.measurement and entry.part != "tried")[:7]


def original(source: Result | Comparison) -> Entry:
    """Return the baseline of everything: the model as given."""
    return lineup(source)[0]


def champion(source: Result | Comparison) -> Entry | None:
    """Return the winner, in a comparison the second variant; None when there is none beside the model as given."""
    rivals = [entry for entry in finalists(source) if entry.part != "given"]
    return next((entry for entry in rivals if entry.won or isinstance(source, Comparison)), None)


def metric(source: Result | Comparison) -> str:
    """Return the name of the reading that the goal protects."""
    if isinstance(source, Comparison):
        return source.quality[0].metric if source.quality else "accuracy"
    judged = [*source.comparison.quality, *(trial.quality for trial in source.trials if trial.quality)]
    return judged[0].metric if judged else source.task.metric


def classifies(result: Result) -> bool:
    """Say whether the answers are classes, so that those that changed can be counted."""
    return result.task.kind in ("classification", "binary")


def objective(source: Result | Comparison) -> str:
    """Return the name of the reading that the goal improves."""
    return reading_name(source.goal.objective) if isinstance(source, Result) else "latency_p50"


def ratio_between(ratios: Sequence[Ratio], entry: Entry, baseline: Entry) -> Ratio | None:
    """Return the final ratio of the times of `entry` over those of another, `baseline`; None when there is none."""
    pair = None if entry.name == baseline.name else (entry.key, baseline.key)
    return next((ratio for ratio in ratios if (ratio.variant, ratio.baseline) == pair), None)


def present(entries: Sequence[Entry], names: Iterable[str]) -> list[str]:
    """Return those of the names, each once, that at least one variant has a reading of."""
    return [name for name in dict.fromkeys(names) if any(entry.reading(name) for entry in entries)]


def front(points: Sequence[tuple[float, float]], better: tuple[bool, bool]) -> tuple[int, ...]:
    """Return the indices of the points that no other point beats on both axes, ordered along the first axis.

    `better` says for each axis whether higher is better.
    """
    turned = [(x if better[0] else -x, y if better[1] else -y) for x, y in points]
    best = [
        index
        for index, (x, y) in enumerate(turned)
        if not any((a >= x and b >= y) and (a > x or b > y) for a, b in turned)
    ]
    return tuple(sorted(best, key=lambda index: points[index]))


def _of_result(result: Result) -> tuple[Entry, ...]:
    finals = {measurement.variant.key: measurement for measurement in result.comparison.measurements}
    given = _entry(result.as_given, "given", finals)
    untouched = _entry(result.untouched, "untouched", finals)
    entries = [replace(given, name="as given", colour=GIVEN, won=result.winner == result.as_given.name)]
    if untouched.key != given.key:
        won = result.winner == result.untouched.name
        entries.append(replace(untouched, name="best untouched", colour=UNTOUCHED, won=won))
    baselines = {result.as_given.name, result.untouched.name}
    rest = [_entry(trial, "tried", finals) for trial in result.trials if trial.name not in baselines]
    rest.sort(key=lambda entry: (entry.name != result.winner, not entry.final, _ORDER[entry.state or "failed"]))
    return (*entries, *_coloured(rest, result.winner))


def _coloured(entries: list[Entry], winner: str | None) -> list[Entry]:
    """Give the winner and the other finalists their colours; the rest stays grey."""
    colours = iter(OTHERS)
    done = []
    for entry in entries:
        if entry.name == winner:
            done.append(replace(entry, part="winner", colour=WINNER, won=True))
        elif entry.final and (colour := next(colours, None)):
            done.append(replace(entry, part="finalist", colour=colour))
        else:
            done.append(entry)
    return done


def _entry(trial: Trial, part: Part, finals: dict[str, Measurement]) -> Entry:
    """Return a trial as an entry; its measurement of the final run is preferred to that of the search."""
    final = finals.get(trial.variant.key) if trial.variant else None
    return Entry(
        name=trial.name, part=part, colour=TRIED, state=trial.state, trial=trial, final=final is not None,
        measurement=_merged(final, trial.measurement), key=trial.variant.key if trial.variant else None,
    )  # fmt: skip


def _merged(final: Measurement | None, search: Measurement | None) -> Measurement | None:
    """Return the final measurement, completed by what only the search read."""
    if final is None or search is None:
        return final or search
    names = {reading.name for reading in final.readings}
    traces = {trace.name for trace in final.traces}
    return replace(
        final,
        readings=(*final.readings, *(reading for reading in search.readings if reading.name not in names)),
        traces=(*final.traces, *(trace for trace in search.traces if trace.name not in traces)),
    )


def _against(comparison: Comparison, entry: Entry, given: Entry) -> tuple[Reading, ...]:
    """Return time and quality of a variant against the model as given, in the final run or else in the search."""
    itself, judged = entry is given, entry.trial.quality if entry.trial else None
    proof = next((proof for proof in comparison.quality if itself or proof.variant == entry.key), judged)
    change = f"{proof.metric}_change" if proof else ""
    if itself:
        return (_same("relative_time", 1.0, "lower"), *([_same(change, 0.0, "higher")] if proof else []))
    screened = entry.trial.screening if entry.trial else None
    if screened is not None and screened.baseline != given.key:
        screened = None
    return against(ratio_between(comparison.ratios, entry, given) or screened, proof)


def against(ratio: Ratio | None, proof: NoWorse | None) -> tuple[Reading, ...]:
    """Return time and quality against the model as given as readings: `relative_time`, and the change of the metric."""
    time = () if ratio is None else (_reading("relative_time", "lower", ratio, ratio.blocks),)
    change = () if proof is None else (_reading(f"{proof.metric}_change", "higher", proof, proof.items),)
    return (*time, *change)


def _reading(name: str, direction: Direction, found: Ratio | NoWorse, samples: int) -> Reading:
    value = found.value if isinstance(found, Ratio) else found.difference
    level = found.level if isinstance(found, Ratio) else 1 - 2 * found.error
    return Reading(
        name=name, value=value, direction=direction, low=found.low, high=found.high, level=level, samples=samples
    )


def _same(name: str, value: float, direction: Direction) -> Reading:
    """Return how the model as given compares with itself, by definition."""
    return Reading(name=name, value=value, direction=direction, provenance="counted")


def _of_comparison(comparison: Comparison) -> tuple[Entry, ...]:
    colours = itertools.chain((GIVEN, WINNER, UNTOUCHED, *OTHERS), itertools.repeat(TRIED))
    names = distinct_names([measurement.variant for measurement in comparison.measurements])
    return tuple(
        Entry(
            name=name,
            part="given" if colour == GIVEN else "finalist",
            colour=colour,
            key=found.variant.key,
            measurement=found,
            final=True,
        )
        for name, colour, found in zip(names, colours, comparison.measurements, strict=False)
    )


def distinct_names(variants: Sequence[Variant]) -> list[str]:
    """Return the shortest names that tell variants apart: files as they came, else what was done, else numbers."""
    files = [variant.model.path.name for variant in variants]
    labels = [variant.label() for variant in variants]
    both = [f"{file}, {label}" for file, label in zip(files, labels, strict=True)]
    numbered = [f"{name} ({number})" for number, name in enumerate(both, 1)]
    untouched = not any(variant.steps for variant in variants)
    choices = (files, labels, both) if untouched else (labels, both)
    return next((names for names in choices if len(set(names)) == len(names)), numbered)
