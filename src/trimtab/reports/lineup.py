"""Who is on stage: the variants of a result or a comparison, each with its role, its measurement and its colour.

Tables, figures and the HTML report all read from here, so a variant has one name and one colour everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
_ORDER = {"proven": 0, "unproven": 1, "kept": 2, "dropped": 3, "failed": 4}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A variant as reports show it; `final` says that it was part of the final paired run."""

    name: str
    part: Part
    colour: str
    state: TrialState | None = None
    measurement: Measurement | None = None
    trial: Trial | None = None
    final: bool = False
    won: bool = False
    against: tuple[Reading, ...] = ()
    """What is known only against the model as given: `relative_time` and the change of the metric."""

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
    """Return the winner; without one (or in a comparison) the last of the finalists, if it isn't the baseline."""
    entries = finalists(source)
    won = next((entry for entry in entries if entry.won and entry.part != "given"), None)
    if won is not None or isinstance(source, Result):
        return won
    return entries[1] if len(entries) > 1 else None


def metric(source: Result | Comparison) -> str:
    """Return the name of the reading that the goal protects."""
    if isinstance(source, Result):
        if source.certificate is not None:
            return source.certificate.no_worse.metric
        if source.comparison.quality:
            return source.comparison.quality[0].metric
        return source.task.metric if source.task.labelled else "agreement"
    return source.quality[0].metric if source.quality else "accuracy"


def objective(source: Result | Comparison) -> str:
    """Return the name of the reading that the goal improves."""
    return reading_name(source.goal.objective) if isinstance(source, Result) else "latency_p50"


def ratio_between(ratios: Sequence[Ratio], reading: str, entry: Entry, baseline: Entry) -> Ratio | None:
    """Return the final ratio of `entry` over `baseline` in a reading; that of their times when there is none."""
    mine, theirs = aliases(entry), aliases(baseline)
    found = [ratio for ratio in ratios if ratio.variant in mine and ratio.baseline in theirs]
    exact = next((ratio for ratio in found if reading_name(ratio.reading) == reading), None)
    return exact or next((ratio for ratio in found if ratio.reading.startswith("latency")), None)


def aliases(entry: Entry) -> frozenset[str]:
    """Return every name by which ratios and proofs may call a variant: its name, its key, its label."""
    names = {entry.name}
    variant = entry.measurement.variant if entry.measurement else entry.trial.variant if entry.trial else None
    if variant is not None:
        names |= {variant.key, variant.label()}
    if entry.trial is not None:
        names.add(entry.trial.name)
    return frozenset(names)


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
    latest = {trial.name: trial for trial in (result.as_given, result.untouched, *result.trials)}
    given = _entry(latest[result.as_given.name], "given", finals)
    untouched = _entry(latest[result.untouched.name], "untouched", finals)
    entries = [replace(given, name="as given", colour=GIVEN, won=result.winner == result.as_given.name)]
    if untouched.trial is not None and aliases(untouched).isdisjoint(aliases(given)):
        won = result.winner == result.untouched.name
        entries.append(replace(untouched, name="best untouched", colour=UNTOUCHED, won=won))
    baselines = {result.as_given.name, result.untouched.name}
    rest = [_entry(trial, "tried", finals) for trial in result.trials if trial.name not in baselines]
    return (*entries, *_coloured(sorted(rest, key=_rank(result.winner)), result.winner))


def _rank(winner: str | None) -> Callable[[Entry], tuple[bool, bool, int]]:
    return lambda entry: (entry.name != winner, not entry.final, _ORDER[entry.state or "failed"])


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
    measurement = _merged(final, trial.measurement)
    return Entry(
        name=trial.name,
        part=part,
        colour=TRIED,
        state=trial.state,
        measurement=measurement,
        trial=trial,
        final=final is not None,
    )


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
    mine, itself = aliases(entry), entry.name == given.name
    judged = entry.trial.quality if entry.trial else None
    proof = next((proof for proof in comparison.quality if itself or proof.variant in mine), judged)
    change = f"{proof.metric}_change" if proof else ""
    if itself:
        return (_same("relative_time", 1.0, "lower"), *([_same(change, 0.0, "higher")] if proof else []))
    found = []
    ratio = ratio_between(comparison.ratios, "latency_p50", entry, given) or _screened(entry, given)
    if ratio is not None and ratio.reading.startswith("latency"):
        found.append(_reading("relative_time", "lower", ratio, ratio.blocks))
    if proof is not None:
        found.append(_reading(change, "higher", proof, proof.items))
    return tuple(found)


def _screened(entry: Entry, given: Entry) -> Ratio | None:
    """Return the ratio that the search saw, when it is over the model as given."""
    seen = entry.trial.screening if entry.trial else None
    return seen if seen is not None and seen.baseline in aliases(given) else None


def _reading(name: str, direction: Direction, found: Ratio | NoWorse, samples: int) -> Reading:
    value = found.value if isinstance(found, Ratio) else found.difference
    level = found.level if isinstance(found, Ratio) else 0.95
    return Reading(
        name=name, value=value, direction=direction, low=found.low, high=found.high, level=level, samples=samples
    )


def _same(name: str, value: float, direction: Direction) -> Reading:
    """Return how the model as given compares with itself, by definition."""
    return Reading(name=name, value=value, direction=direction, provenance="counted")


def _of_comparison(comparison: Comparison) -> tuple[Entry, ...]:
    names = distinct_names([measurement.variant for measurement in comparison.measurements])
    colours = (GIVEN, WINNER, UNTOUCHED, *OTHERS, *[TRIED] * len(names))
    return tuple(
        Entry(
            name=name, part="finalist" if index else "given", colour=colours[index], measurement=measurement, final=True
        )
        for index, (name, measurement) in enumerate(zip(names, comparison.measurements, strict=True))
    )


def distinct_names(variants: Sequence[Variant]) -> list[str]:
    """Return the shortest names that tell variants apart: files as they came, else what was done, else all of it."""
    files = [variant.model.path.name for variant in variants]
    labels = [variant.label() for variant in variants]
    both = [f"{file}, {label}" for file, label in zip(files, labels, strict=True)]
    full = [f"{name} [{variant.key[:6]}]" for name, variant in zip(both, variants, strict=True)]
    untouched = not any(variant.steps for variant in variants)
    choices = (files, labels, both) if untouched else (labels, both)
    return next((names for names in choices if len(set(names)) == len(names)), full)
