"""The same report in a terminal: rich tables that read well at 80 columns and without colour."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from trimtab.core.values import Comparison, Measurement, NoWorse, Ratio, Reading, Result
from trimtab.reports import lineup, page, words
from trimtab.reports.lineup import Entry

if TYPE_CHECKING:
    from rich.console import Group, RenderableType
    from rich.table import Table
    from rich.text import Text

_COLOURS = {"proven": "green", "unproven": "yellow", "failed": "red"}
_MOST_PLACES, _WORST_PLACES = 20, 5
"""With more classes than the first number, only the second number of them is shown, the worst; --json has them all."""

_QUALITY = "accuracy precision recall f1 top5 roc pr_auc mse mae r2 relative cosine agreement cost"
_GROUPS = {
    "Quality": tuple(_QUALITY.split()),
    "Speed": ("latency", "load_time", "first_call", "throughput", "cpu_use", "arithmetic"),
    "Size": ("parameters", "bytes", "compression", "peak_memory"),
    "Work": ("macs",),
}
"""How the names of readings begin, by the group that a table shows them in."""


def verdict(result: Result) -> RenderableType:
    """Return the warnings, loud, what failed, the verdict sentence, and what else was found."""
    from rich.console import Group
    from rich.padding import Padding

    kind, said = page.status(result)
    style = {"proven": "bold green", "speed": "bold yellow", "unmet": "bold red"}[kind]
    lines = _warned(page.warnings(result))
    if failed := page.failures(result):
        lines.append(plain(failed, "red"))
    lines += [plain(said, style), plain(result.verdict, "bold"), *map(plain, result.notes)]
    if result.looks:
        lines.append(plain(f"The certify items have been tested on {words.looks(result.looks)}.", "dim"))
    return Padding(Group(*lines), (1, 0))


def finalists_table(result: Result) -> Table:
    """Return both baselines and the finalists with their ratios and intervals."""
    entries = lineup.finalists(result)
    names = (lineup.objective(result), lineup.metric(result), "latency_p50", "bytes")
    columns = lineup.present(entries, names)
    baselines = [entry for entry in entries if entry.part in ("given", "untouched")]
    table = listing("Variant", *(f"vs {entry.name}" for entry in baselines), *map(words.label, columns))
    for entry in entries:
        over = [_ratio(result.comparison, entry, baseline) for baseline in baselines]
        cells = [_cell(entry.reading(name)) for name in columns]
        table.add_row(_name(entry), *over, *cells, style="bold" if entry.won else "")
    return table


def trials_table(result: Result) -> Table:
    """Return everything that was tried: its state, what it gained and lost, and why it was given up."""
    change = f"{lineup.metric(result)}_change"
    table = listing("Variant", "State", "time vs\nas given", "quality", "Why", left=("Variant", "State", "Why"))
    for entry in lineup.lineup(result):
        trial = entry.trial
        if trial is None or entry.part in ("given", "untouched"):
            continue
        table.add_row(
            plain(entry.name),
            plain(trial.state, _COLOURS.get(trial.state, "")),
            _cell(entry.reading("relative_time")),
            _cell(entry.reading(change)),
            plain(words.shortened(trial.reason)),
        )
    if {trial.state for trial in result.trials} & {"proven", "unproven"}:
        table.caption = plain("“proven” and “unproven” speak of quality only, not of speed", "dim")
        table.caption_justify = "left"
    return table


def result_table(result: Result) -> Group:
    """Return everything a terminal shows at the end of a search, the verdict last, where the eye is."""
    from rich.console import Group

    tried = trials_table(result)
    parts: list[RenderableType] = [tried, plain("")] if tried.row_count else []
    return Group(*parts, finalists_table(result), verdict(result))


def comparison_table(comparison: Comparison) -> Group:
    """Return variants side by side with what may be said between them: ratios, proofs and the self-test."""
    from rich.console import Group

    entries = lineup.lineup(comparison)
    metric = lineup.metric(comparison)
    columns = lineup.present(entries, ("latency_p50", metric, "bytes", "macs"))[:3]
    table = listing("Variant", "vs the first", *map(words.label, columns), "change")
    for entry in entries:
        over = _ratio(comparison, entry, entries[0])
        cells = [_cell(entry.reading(name)) for name in columns]
        table.add_row(_name(entry), over, *cells, _cell(entry.reading(f"{metric}_change")))
    lines: list[RenderableType] = [table] if entries else []  # predictions are judged without a model
    lines += [*_warned(comparison.warnings), *map(plain, (*sentences(comparison), *comparison.notes))]
    test = comparison.self_test
    if test is not None:
        said = words.control_words(test, "more --seconds")
        lines.append(plain(f"Self-test, the first against itself: {said}."))
    return Group(*lines)


def sentences(comparison: Comparison) -> list[str]:
    """Return each verdict of a comparison as a sentence."""
    entries = lineup.lineup(comparison)
    names = {entry.key: entry.name for entry in entries}
    baselines = {entry.key: entry.name for entry in reversed(entries)}  # a model may be compared with itself

    def name(found: Ratio | NoWorse) -> str:
        return names.get(found.variant, found.variant)

    def other(found: Ratio | NoWorse) -> str:
        return baselines.get(found.baseline, found.baseline)

    times = [f"{name(ratio)} is {words.ratio_words(ratio, other(ratio))}." for ratio in comparison.ratios]
    return times + [f"{words.proof_words(proof, name(proof), other(proof))}." for proof in comparison.quality]


def measurement_table(measurement: Measurement) -> Group:
    """Return the readings of one variant in groups, with units a person reads and their intervals, and warnings."""
    from rich.console import Group

    table = listing("Reading", "value", "interval", "comes from", left=("Reading", "comes from"))
    readings = [reading for reading in measurement.readings if reading.name != "confusion_matrix"]
    for group, members in _grouped(readings):
        if table.row_count:
            table.add_section()
        table.add_row(plain(group, "bold"), "", "", plain(_items(members) if group == "Quality" else "", "dim"))
        for reading in _worst_places(members):
            table.add_row(
                plain(f"  {words.label(reading.name, reading.place)}"), plain(words.value(reading)),
                plain(words.interval(reading)), plain(_origin(reading), "dim"),
            )  # fmt: skip
    return Group(table, *_warned(measurement.warnings))


def _warned(warnings: Iterable[str]) -> list[Text]:
    """Return what to be careful about, loud."""
    return [plain(f"WARNING: {warning}", "bold yellow") for warning in warnings]


def _worst_places(readings: Sequence[Reading]) -> list[Reading]:
    """Return the readings without those of all but the worst few, where there are very many classes."""
    hidden: set[int] = set()
    for name in {reading.name for reading in readings} - {"throughput"}:
        same = [reading for reading in readings if reading.name == name and reading.place is not None]
        if len(same) > _MOST_PLACES:
            ranked = sorted(same, key=lambda reading: (reading.value is None, reading.value or 0.0))
            hidden |= {id(reading) for reading in ranked[_WORST_PLACES:]}
    return [reading for reading in readings if id(reading) not in hidden]


def _grouped(readings: Sequence[Reading]) -> Iterable[tuple[str, list[Reading]]]:
    """Yield the groups that have readings, in the order people ask for them."""
    for group in (*_GROUPS, "Other"):
        if members := [reading for reading in readings if _group(reading) == group]:
            yield group, members


def _group(reading: Reading) -> str:
    return next((group for group, prefixes in _GROUPS.items() if reading.name.startswith(prefixes)), "Other")


def _items(readings: Sequence[Reading]) -> str:
    """Return which items quality was read on, and how many: "select split, 250 items"."""
    first = next((reading for reading in readings if reading.value is not None), None)
    if first is None:
        return ""
    return ", ".join(filter(None, (first.scope, words.plural(first.samples, "item") * (first.samples > 1))))


def _origin(reading: Reading) -> str:
    """Return where a number comes from, or why there is none."""
    if reading.value is None:
        return reading.scope or reading.provenance
    count = f", n = {reading.samples:,}" if reading.provenance == "measured" and reading.samples > 1 else ""
    return f"{reading.provenance}{count}"


def listing(*columns: str, left: tuple[str, ...] = ("Variant",)) -> Table:
    """Return an empty table with these columns; those of numbers stand on the right."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), header_style="bold")
    for column in columns:
        table.add_column(column, justify="left" if column in left else "right", overflow="fold", vertical="top")
    return table


def plain(text: str, style: str = "") -> Text:
    """Return text in which nothing is markup or an escape code: names may hold anything."""
    from rich.text import Text

    return Text(words.printable(text), style=style)


def _stacked(first: str, second: str) -> Text:
    """Return a value with its interval below it, so that both fit a narrow column."""
    text = plain(first)
    return text.append(f"\n{second}", style="dim") if second else text


def _cell(reading: Reading | None) -> Text:
    return plain("–") if reading is None else _stacked(words.value(reading), words.evidence(reading))


def _ratio(comparison: Comparison, entry: Entry, baseline: Entry) -> Text:
    ratio = lineup.ratio_between(comparison.ratios, entry, baseline)
    if entry.name == baseline.name:
        return plain("1")
    if ratio is None:
        return plain("–")
    return _stacked(f"{words.factor(ratio)} {words.verdict_word(ratio)}", words.factor_interval(ratio))


def _name(entry: Entry) -> Text:
    settings = entry.measurement.variant.settings.label() if entry.measurement else ""
    shown = settings if entry.trial and entry.part in ("given", "untouched") else ""
    return _stacked(f"{entry.name} (winner)" if entry.won else entry.name, shown)
