"""What the HTML report says, section by section, as plain text and numbers; how it looks is the template's matter."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from trimtab.core.values import Ratio, Reading, Result, Trial
from trimtab.reports import lineup, words
from trimtab.reports.lineup import Entry

_COLUMNS = ("latency_p50", "bytes", "peak_memory")
_CLASSES_SHOWN = 12
_FAILURES_SHOWN = 3

STATES = {
    "proven": "its quality is proven to keep the goal, which says nothing of its speed",
    "unproven": "its quality is good enough as far as seen, but not proven",
    "kept": "measured and kept for comparison",
    "dropped": "given up because the evidence spoke against it",
    "skipped": "the technique had nothing to gain here",
    "failed": "could not be made or run",
}

Fields = dict[str, Any]


def status(result: Result) -> tuple[str, str]:
    """Return the state of the whole result: a word for the style sheet and one for the reader."""
    if result.winner is None:
        return "unmet", "Goal not met"
    if result.winner == result.as_given.name:
        return "speed", "Nothing better found"
    if certified(result):
        return "proven", f"Proven with {words.percent(1 - result.goal.error)} confidence"
    return ("speed", "Speed only, nothing proven") if result.goal.max_drop is None else ("unmet", "Not proven")


def certified(result: Result) -> bool:
    """Say whether there is a certificate that proves something."""
    return result.certificate is not None and result.certificate.no_worse.proven


def warnings(result: Result) -> list[str]:
    """Return what a reader must know before believing a number, the gravest first."""
    found = []
    if result.winner not in (None, result.as_given.name) and not certified(result):
        found.append("Speed only, nothing proven: there is no certificate that the answers of the winner are good.")
    test = result.comparison.self_test
    if test is not None and test.verdict in ("faster", "slower"):
        found.append(
            f"The self-test failed: one variant came out {words.ratio_words(test, 'itself')}. "
            "Don't rely on the ratios below; run again on a quieter machine."
        )
    return [*found, *result.warnings]


def failures(result: Result) -> str:
    """Return which techniques failed and why, in one line; "" when none did.

    A variant without steps counts for its runtime. Of a technique that also worked it says how often it failed.
    """
    tried: dict[str, list[Trial]] = {}
    for trial in result.trials:
        name = trial.steps[-1].technique if trial.steps else trial.settings.runtime
        tried.setdefault(name, []).append(trial)
    said = []
    for name, trials in tried.items():
        if failed := [trial for trial in trials if trial.state == "failed"]:
            share = "" if len(failed) == len(trials) else f" in {len(failed)} of {len(trials)} trials"
            why = (failed[0].reason.splitlines() or ["no reason told"])[0]
            said.append(f"{name}{share} ({words.shortened(why)})")
    more = len(said) - _FAILURES_SHOWN
    rest = f" and {more} more" if more > 0 else ""
    return f"Failed: {', '.join(said[:_FAILURES_SHOWN])}{rest}." if said else ""


def tiles(result: Result) -> list[Fields]:
    """Return the few numbers that matter most: what was gained, what was lost."""
    given, best = lineup.original(result), lineup.champion(result)
    if best is None:
        return []
    found = []
    for baseline, name in ((given, "the model as given"), (_untouched(result), "the best untouched")):
        ratio = baseline and lineup.ratio_between(result.comparison.ratios, best, baseline)
        if ratio:
            note = f"{words.factor_interval(ratio)} at {words.percent(ratio.level)}"
            found.append({"value": words.factor(ratio), "label": _than(ratio, name), "note": note})
    if best.trial and (proof := best.trial.quality):
        value = words.amount(proof.difference, proof.metric, signed=True)
        note = words.difference_interval(proof)
        if lineup.classifies(result):
            note += f", {proof.flips:,} of {proof.items:,} answers changed"
        found.append({"value": value, "label": words.label(proof.metric), "note": note})
    for name in dict.fromkeys((lineup.objective(result), "bytes")):
        now, was = best.reading(name), given.reading(name)
        if now and was and not name.startswith("latency"):
            found.append({"value": words.value(now), "label": words.label(name), "note": f"was {words.value(was)}"})
    return found


def _than(ratio: Ratio, name: str) -> str:
    word = words.verdict_word(ratio)
    return f"the speed of {name}, {word}" if ratio.verdict in ("equivalent", "inconclusive") else f"{word} than {name}"


def baselines(result: Result) -> Fields:
    """Return the table of both baselines and the winner with ratios and intervals."""
    others = [entry for entry in (lineup.original(result), _untouched(result)) if entry is not None]
    best = lineup.champion(result)
    entries = list({entry.name: entry for entry in (*others, best) if entry is not None}.values())
    columns = lineup.present(entries, (lineup.objective(result), lineup.metric(result), *_COLUMNS))
    span = _span(result.comparison.ratios)
    rows = [
        {
            "name": entry.name, "colour": entry.colour, "won": entry.won, "how": _how(entry),
            "over": [_ratio_cell(result, entry, other, span) for other in others],
            "cells": [cell(entry.measurement.reading(name) if entry.measurement else None) for name in columns],
        }
        for entry in entries
    ]  # fmt: skip
    return {"columns": [words.label(name) for name in columns], "over": [entry.name for entry in others], "rows": rows}


def cell(reading: Reading | None) -> Fields:
    """Return a reading as a table shows it: the value, what stands behind it, and the number to sort by."""
    if reading is None:
        return {"value": "–", "note": "", "sort": ""}
    sort = "" if reading.value is None else repr(reading.value)
    return {"value": words.value(reading), "note": words.evidence(reading), "sort": sort}


def readings(result: Result) -> Fields:
    """Return every reading of the finalists that belongs to the whole model."""
    entries = lineup.finalists(result)
    measured = [entry.measurement for entry in entries if entry.measurement]
    found = {(r.name, r.place): r for made in measured for r in made.readings if not r.place or r.name == "throughput"}
    rows = []
    for (name, place), first in found.items():
        cells = [cell(made.reading(name, place)) for made in measured]
        way = "" if first.direction == "none" else f"{first.direction} is better"
        scope = first.scope if first.value is not None else ""
        rows.append({"name": words.label(name, place), "way": way, "scope": scope, "cells": cells})
    return {"names": [{"name": entry.name, "colour": entry.colour} for entry in entries], "rows": rows}


def classes(result: Result) -> Fields | None:
    """Return what became of single classes, the most harmed first; None when nothing is known of them."""
    given, best = lineup.original(result), lineup.champion(result)
    if best is None or best.measurement is None or given.measurement is None:
        return None
    proof = best.trial.quality if best.trial else None
    changes = {reading.place: reading for reading in proof.harmed} if proof else {}
    rows: list[Fields] = []
    for after in best.measurement.named("recall"):
        before = given.measurement.reading("recall", after.place)
        if after.place is None or after.value is None or before is None or before.value is None:
            continue
        change, judged = after.value - before.value, changes.get(after.place)
        why = judged.scope if judged else ""
        rows.append({
            "name": after.place, "before": cell(before), "after": cell(after), "change": change,
            "text": words.amount(change, "recall", signed=True), "harmed": why.startswith("harmed"),
            "why": why,
        })  # fmt: skip
    if not rows:
        return None
    changed = [row for row in rows if row["change"] or row["harmed"]]
    changed.sort(key=lambda row: (not row["harmed"], row["change"]))
    harmed, shown = sum(row["harmed"] for row in rows), changed[:_CLASSES_SHOWN]
    return {"rows": shown, "harmed": harmed, "left": len(changed) - len(shown), "same": len(rows) - len(changed)}


def tried(result: Result, folder: Path | None = None) -> list[Fields]:
    """Return everything tried: state, evidence, why it was given up, where its log is (seen from `folder`)."""
    change = f"{lineup.metric(result)}_change"
    rows = []
    for entry in lineup.lineup(result):
        trial = entry.trial
        if trial is None:
            continue
        rows.append({
            "name": entry.name, "how": _how(entry), "colour": entry.colour, "won": entry.won,
            "state": trial.state, "means": STATES[trial.state], "reason": trial.reason,
            "cells": [cell(entry.reading(name)) for name in ("relative_time", change, "bytes")],
            "seconds": words.duration(trial.seconds) if trial.seconds else "–", "seconds_sort": repr(trial.seconds),
            "log": _seen_from(trial.log, folder),
        })  # fmt: skip
    return rows


def goal(result: Result) -> str:
    """Return what was asked for, in one sentence."""
    asked = result.goal
    parts = [f"{asked.direction} {words.label(lineup.objective(result))}"]
    if asked.max_drop is not None:
        name = lineup.metric(result)
        parts.append(f"lose at most {words.amount(asked.max_drop, name)} of {words.label(name)}")
    units = {reading.name: reading.unit for entry in lineup.lineup(result) for reading in entry.readings}
    for limit in asked.limits:
        bound = words.quantity(limit.bound, units.get(limit.reading, "1"), limit.reading)
        sign = "≤" if limit.relation == "<=" else "≥"
        parts.append(f"{words.label(limit.reading)} {sign} {bound}")
    return f"{', '.join(parts)}; {words.plural(asked.workload.batch, 'item')} per call"


def _how(entry: Entry) -> str:
    """Return what was done to a variant and how it runs, unless its name says so already."""
    if entry.trial is None:
        return ""
    done = " → ".join(step.label() for step in entry.trial.steps)
    said = " on ".join(filter(None, (done, entry.trial.settings.label())))
    return "" if said in entry.name else said


def _seen_from(log: Path | None, folder: Path | None) -> Fields | None:
    """Return the path of a log and, where it lies inside the report's folder, the link to it."""
    if log is None:
        return None
    if folder is None or not log.resolve().is_relative_to(folder.resolve()):
        return {"text": str(log), "link": ""}
    relative = log.resolve().relative_to(folder.resolve()).as_posix()
    return {"text": relative, "link": f"./{quote(relative)}"}


def _untouched(result: Result) -> Entry | None:
    return next((entry for entry in lineup.lineup(result) if entry.part == "untouched"), None)


def _span(ratios: Sequence[Ratio]) -> tuple[float, float]:
    """Return the logarithms between which all intervals of gains lie, 1× among them."""
    bounds = [bound for ratio in ratios for bound in words.speedup(ratio) if bound > 0] + [1.0]
    low, high = math.log(min(bounds)), math.log(max(bounds))
    room = 0.06 * max(high - low, 0.05)
    return low - room, high + room


def _ratio_cell(result: Result, entry: Entry, baseline: Entry, span: tuple[float, float]) -> Fields:
    """Return a ratio with where its interval lies on a common logarithmic axis, in percent."""
    ratio = lineup.ratio_between(result.comparison.ratios, entry, baseline)
    if ratio is None:
        return {"value": "1" if entry.name == baseline.name else "–", "same": True}
    middle, low, high = (100 * (math.log(bound) - span[0]) / (span[1] - span[0]) for bound in words.speedup(ratio))
    one = 100 * (0 - span[0]) / (span[1] - span[0])
    return {
        "same": False, "value": words.factor(ratio), "word": words.verdict_word(ratio),
        "note": words.factor_interval(ratio),
        "middle": round(middle, 2), "low": round(low, 2), "width": round(high - low, 2), "one": round(one, 2),
    }  # fmt: skip
