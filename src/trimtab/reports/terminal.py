"""The same report in a terminal: rich tables that read well at 80 columns and without colour."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from trimtab.core.values import Comparison, Measurement, NoWorse, Reading, Result
from trimtab.reports import lineup, page, words
from trimtab.reports.lineup import Entry
from trimtab.reports.sheets import hardware_table, inspection_table

if TYPE_CHECKING:
    from rich.console import Group, RenderableType
    from rich.table import Table
    from rich.text import Text

__all__ = [
    "comparison_table",
    "finalists_table",
    "hardware_table",
    "inspection_table",
    "measurement_table",
    "result_table",
    "sentences",
    "trials_table",
    "verdict",
]

_COLOURS = {"proven": "green", "unproven": "yellow", "failed": "red", "dropped": "", "kept": ""}
_MOST_PLACES, _WORST_PLACES = 20, 5
"""With more classes than the first number, only the second number of them is shown, the worst; --json has them all."""

_QUALITY = "accuracy precision recall f1 top5 roc pr_auc mse mae r2 relative cosine agreement cost"
_GROUPS = {
    "Quality": tuple(_QUALITY.split()),
    "Speed": ("latency", "load_time", "first_call", "throughput", "cpu_use"),
    "Size": ("parameters", "bytes", "compression", "peak_memory"),
    "Work": ("macs",),
}
"""How the names of readings begin, by the group that a table shows them in."""


def verdict(result: Result) -> RenderableType:
    """Return the warnings, loud, the verdict sentence, and what else was found."""
    from rich.console import Group
    from rich.padding import Padding
    from rich.text import Text

    kind, said = page.status(result)
    style = {"proven": "bold green", "speed": "bold yellow", "unmet": "bold red"}[kind]
    lines: list[RenderableType] = [
        Text(f"WARNING: {warning}", style="bold yellow") for warning in page.warnings(result)
    ]
    lines += [Text(said, style=style), Text(result.verdict, style="bold"), *map(Text, result.notes)]
    return Padding(Group(*lines), (1, 0))


def finalists_table(result: Result) -> Table:
    """Return both baselines and the finalists with their ratios and intervals."""
    entries = lineup.finalists(result)
    names = [lineup.objective(result), lineup.metric(result), "latency_p50", "bytes"]
    columns = [name for name in dict.fromkeys(names) if any(entry.reading(name) for entry in entries)]
    baselines = [entry for entry in entries if entry.part in ("given", "untouched")]
    table = _table("Variant", *(f"vs {entry.name}" for entry in baselines), *map(words.label, columns))
    for entry in entries:
        over = [_ratio(result.comparison, lineup.objective(result), entry, baseline) for baseline in baselines]
        cells = [_cell(entry.reading(name)) for name in columns]
        table.add_row(_name(entry), *over, *cells, style="bold" if entry.won else "")
    return table


def trials_table(result: Result) -> Table:
    """Return everything that was tried: its state, what it gained and lost, and why it was given up."""
    change = f"{lineup.metric(result)}_change"
    table = _table("Variant", "State", "time vs as given", "quality", "Why", left=("Variant", "State", "Why"))
    for entry in lineup.lineup(result):
        trial = entry.trial
        if trial is None or entry.part in ("given", "untouched"):
            continue
        table.add_row(
            _plain(entry.name),
            _plain(trial.state, _COLOURS[trial.state]),
            _cell(entry.reading("relative_time")),
            _cell(entry.reading(change)),
            _plain(trial.reason),
        )
    return table


def result_table(result: Result) -> Group:
    """Return everything a terminal shows at the end of a search, the verdict last, where the eye is."""
    from rich.console import Group

    parts: list[RenderableType] = [finalists_table(result)]
    if any(entry.part not in ("given", "untouched") for entry in lineup.lineup(result)):
        parts = [trials_table(result), _plain(""), *parts]
    return Group(*parts, verdict(result))


def comparison_table(comparison: Comparison) -> Group:
    """Return variants side by side with what may be said between them: ratios, proofs and the self-test."""
    from rich.console import Group

    entries = lineup.lineup(comparison)
    names = ("latency_p50", lineup.metric(comparison), "bytes", "macs")
    columns = [name for name in names if any(entry.reading(name) for entry in entries)][:3]
    table = _table("Variant", "vs the first", *map(words.label, columns), "change")
    for entry in entries:
        proof = next((proof for proof in comparison.quality if proof.variant in lineup.aliases(entry)), None)
        over = _ratio(comparison, "latency_p50", entry, entries[0])
        cells = [_cell(entry.reading(name)) for name in columns]
        table.add_row(_name(entry), over, *cells, _difference(proof) if proof else _plain("–"))
    lines = [_plain(sentence) for sentence in sentences(comparison)]
    test = comparison.self_test
    if test is not None:
        between = f"{words.factor(test)} ({words.factor_interval(test)})"
        lines.append(_plain(f"Self-test, the first against itself: {between}, {test.verdict}."))
    return Group(table, *lines)


def sentences(comparison: Comparison) -> list[str]:
    """Return each verdict of a comparison as a sentence."""
    names = {alias: entry.name for entry in lineup.lineup(comparison) for alias in lineup.aliases(entry)}
    said = []
    for ratio in comparison.ratios:
        name, other = names.get(ratio.variant, ratio.variant), names.get(ratio.baseline, ratio.baseline)
        said.append(f"{name} is {words.ratio_words(ratio, other)}.")
    for proof in comparison.quality:
        name, other = names.get(proof.variant, proof.variant), names.get(proof.baseline, proof.baseline)
        sure = f"proven with {words.percent(1 - proof.error)} confidence" if proof.proven else "not proven"
        allowed = f"{words.amount(proof.max_drop, proof.metric)} of {words.label(proof.metric)}"
        needed = (
            f"; about {words.plural(proof.needed, 'item')} would decide" if proof.needed and not proof.proven else ""
        )
        seen = f"{words.difference_words(proof)} on {words.plural(proof.items, 'item')}{needed}"
        said.append(f"{name} is {sure} to lose at most {allowed} against {other}: {seen}.")
    return said


def measurement_table(measurement: Measurement) -> Table:
    """Return the readings of one variant in groups, with units a person reads and their intervals."""
    table = _table("Reading", "value", "interval", "comes from", left=("Reading", "comes from"))
    readings = [reading for reading in measurement.readings if reading.name != "confusion_matrix"]
    for group, members in _grouped(readings):
        if table.row_count:
            table.add_section()
        table.add_row(_plain(group, "bold"))
        for reading in _worst_places(members):
            table.add_row(
                _plain(f"  {words.label(reading.name, reading.place)}"), _plain(words.value(reading)),
                _plain(words.interval(reading)), _plain(_origin(reading), "dim"),
            )  # fmt: skip
    return table


def _worst_places(readings: Sequence[Reading]) -> list[Reading]:
    """Return the readings without those of all but the worst few, where there are very many classes."""
    by_name: dict[str, list[Reading]] = {}
    for reading in readings:
        if reading.place is not None and reading.name != "throughput":
            by_name.setdefault(reading.name, []).append(reading)
    hidden: set[int] = set()
    for same in by_name.values():
        if len(same) > _MOST_PLACES:
            ranked = sorted(same, key=lambda reading: (reading.value is None, reading.value or 0.0))
            hidden |= {id(reading) for reading in ranked[_WORST_PLACES:]}
    return [reading for reading in readings if id(reading) not in hidden]


def _grouped(readings: Sequence[Reading]) -> Iterable[tuple[str, list[Reading]]]:
    """Yield the groups that have readings, in the order people ask for them."""
    left = list(readings)
    for group, prefixes in _GROUPS.items():
        members = [reading for reading in left if reading.name.startswith(prefixes)]
        left = [reading for reading in left if not reading.name.startswith(prefixes)]
        if members:
            yield group, members
    if left:
        yield "Other", left


def _origin(reading: Reading) -> str:
    """Return where a number comes from, or why there is none."""
    if reading.value is None:
        return reading.scope or reading.provenance
    count = f", n = {reading.samples:,}" if reading.provenance == "measured" and reading.samples > 1 else ""
    return f"{reading.provenance}{count}"


def _table(*columns: str, left: tuple[str, ...] = ("Variant",)) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), header_style="bold")
    for column in columns:
        table.add_column(column, justify="left" if column in left else "right", overflow="fold", vertical="top")
    return table


def _plain(text: str, style: str = "") -> Text:
    """Return text in which nothing is markup: names may hold brackets."""
    from rich.text import Text

    return Text(text, style=style)


def _stacked(first: str, second: str) -> Text:
    """Return a value with its interval below it, so that both fit a narrow column."""
    text = _plain(first)
    return text.append(f"\n{second}", style="dim") if second else text


def _cell(reading: Reading | None) -> Text:
    return _plain("–") if reading is None else _stacked(words.value(reading), words.evidence(reading))


def _difference(proof: NoWorse) -> Text:
    return _stacked(words.amount(proof.difference, proof.metric, signed=True), words.difference_interval(proof))


def _ratio(comparison: Comparison, reading: str, entry: Entry, baseline: Entry) -> Text:
    ratio = lineup.ratio_between(comparison.ratios, reading, entry, baseline)
    if entry.name == baseline.name:
        return _plain("1")
    if ratio is None:
        return _plain("–")
    return _stacked(f"{words.factor(ratio)} {words.verdict_word(ratio)}", words.factor_interval(ratio))


def _name(entry: Entry) -> Text:
    settings = entry.measurement.variant.settings.label() if entry.measurement else ""
    shown = settings if entry.trial and entry.part in ("given", "untouched") else ""
    return _stacked(f"{entry.name} (winner)" if entry.won else entry.name, shown)
