"""Sheets of facts for the terminal: what a model is, and what a machine is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from trimtab.core.values import Contents, Hardware, Inspection, Reading, TensorSpec
from trimtab.reports import method, words
from trimtab.reports.terminal import plain

if TYPE_CHECKING:
    from rich.table import Table

_MOST_OPERATORS = 10


def inspection_table(found: Inspection) -> Table:
    """Return what a model is and what can be done with it."""
    table = _sheet()
    _section(table, "Model", [("file", str(found.model.path)), ("format", found.model.format), *_facts(found.contents)])
    signature = found.model.signature
    _section(table, "Inputs", [(spec.name, _tensor(spec)) for spec in signature.inputs])
    _section(table, "Outputs", [(spec.name, _tensor(spec)) for spec in signature.outputs])
    size = [(words.label(reading.name, reading.place), _said(reading)) for reading in found.readings]
    shares = ", ".join(f"{words.percent(share)} {dtype}" for dtype, share in found.precision)
    _section(table, "Size and work", [*size, ("precision", shares or "unknown")])
    _section(table, "Operators", _operators(found.contents))
    for title, abilities in (("Runs on", found.runtimes), ("Can be done", found.techniques)):
        said = [(able.name, "yes" if able.refusal is None else f"no: {able.refusal}") for able in abilities]
        _section(table, title, said)
    return table


def hardware_table(found: Hardware) -> Table:
    """Return what a machine is and what it can do at most."""
    table = _sheet()
    _section(table, "Machine", method.machine(found.machine))
    peaks = [(words.label(peak.name, peak.place), _said(peak)) for peak in found.peaks]
    _section(table, f"Measured peaks ({found.time[:10]})", peaks)
    return table


def _sheet() -> Table:
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(overflow="fold", max_width=34)
    table.add_column(overflow="fold")
    return table


def _section(table: Table, title: str, rows: Sequence[tuple[str, str]]) -> None:
    """Add a titled group of rows; nothing when there are none."""
    if not rows:
        return
    if table.row_count:
        table.add_row()
    table.add_row(plain(title, "bold"))
    for name, text in rows:
        table.add_row(plain(f"  {name}"), plain(text))


def _tensor(spec: TensorSpec) -> str:
    shape = " × ".join(str(size) for size in spec.shape) or "scalar"
    state = f", state fed by {spec.fed_by}" if spec.fed_by else "" if spec.role == "data" else f", {spec.role}"
    return f"{spec.dtype}, {shape}{state}"


def _said(reading: Reading) -> str:
    """Return a reading with its evidence and what it covers."""
    if reading.value is None:
        return f"unavailable: {reading.scope}" if reading.scope else "unavailable"
    behind = words.evidence(reading) if reading.provenance == "counted" else "exact"
    exact = "" if behind == "exact" else f" ({behind})"
    return words.with_interval(reading) + exact + (f"; {reading.scope}" if reading.scope else "")


def _facts(contents: Contents | None) -> list[tuple[str, str]]:
    if contents is None:
        return []
    facts = [(name.replace("_", " "), str(value)) for name, value in contents.facts if value not in (None, "")]
    if contents.quantization:
        facts.append(("quantized already", contents.quantization))
    if contents.control_flow:
        facts.append(("control flow", ", ".join(contents.control_flow)))
    return facts


def _operators(contents: Contents | None) -> list[tuple[str, str]]:
    if contents is None:
        return []
    shown = [(name, f"{number:,}") for name, number in contents.operators[:_MOST_OPERATORS]]
    left = len(contents.operators) - len(shown)
    return [*shown, (f"… {left} more kinds", "")] if left > 0 else shown
