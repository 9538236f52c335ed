"""Sheets of facts for the terminal: what a model is, and what a machine is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from trimtab.core.values import Contents, Hardware, Inspection, Reading, Run, TensorSpec
from trimtab.reports import method, words
from trimtab.reports.terminal import listing, plain
from trimtab.stats.paired import Interval
from trimtab.training.arms import Recipes
from trimtab.training.checkpoint import Epoch
from trimtab.training.memory import Memory

if TYPE_CHECKING:
    from rich.console import Group
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


def run_table(found: Run) -> Table:
    """Return how a training went: its quality on the items it was chosen by, what it took, and what happened."""
    table = _sheet()
    overall = [reading for reading in found.readings if reading.place is None]
    quality = [each for each in overall if each.unit != "s" and (found.trace(each.name) or not _is_average(each.name))]
    where = [("read on", each.scope) for each in quality if each.value is not None][:1]
    bare = [each if each.value is None else replace(each, scope="") for each in quality]
    _section(table, "Quality", [*where, *((words.label(each.name), _said(each)) for each in bare)])
    _section(table, "Taken", [(words.label(each.name), _said(each)) for each in overall if each.unit == "s"])
    _section(table, "Notes", [(f"{number}", note) for number, note in enumerate(found.notes, 1)])
    if not found.finished:
        _section(table, "Not finished", [("why", "the time was up: run the same command again to go on")])
    return table


def epoch_line(epoch: Epoch, metric: str, label: str = "") -> str:
    """Return one line about an epoch that has ended: its loss, and the metric on the select items."""
    return (
        f"{label}{': ' * bool(label)}epoch {epoch.number}: loss {epoch.loss:.4f}, {words.label(metric)} "
        f"{words.quantity(epoch.score, '1', metric)}, learning rate {epoch.rate:.2g} ({epoch.optimizer}), "
        f"{words.duration(epoch.seconds)}"
    )


def recipes_table(found: Recipes) -> Table:
    """Return recipes side by side: the best each reached, and what it took to the target, against the first."""
    metric, first = words.label(found.metric), found.arms[0].name
    columns = ["", f"best {metric}", f"against {first} (95 %)"]
    if found.target is not None:
        columns += [f"reached {found.target:g}", "processor time", f"of {first}'s (95 %)"]
    table = listing(*columns)
    for arm in found.arms:
        cells = [arm.name, words.quantity(sum(arm.best) / len(arm.best), "1", found.metric), "", "", "", ""]
        if arm.name != first:
            cells[2] = _gain(arm.gain, found.metric)
        reached = [each for each in arm.reached_s if each is not None]
        cells[3] = f"{len(reached)} of {len(arm.runs)}"
        cells[4] = words.duration(sum(reached) / len(reached)) if reached else "never"
        if arm.cost is not None and arm.name != first:
            cells[5] = f"{arm.cost.value:.2f}× ({arm.cost.low:.2f}–{arm.cost.high:.2f})"
        table.add_row(*(plain(cell) for cell in cells[: len(columns)]))
    return table


def memory_table(found: Memory) -> Group:
    """Return what a step holds after each phase, and what every measure saves of it."""
    from rich.console import Group

    asked = found.steps[0]
    timeline = listing("after", "parameters", "gradients", "optimizer", "activations", "together", left=("after",))
    for phase in asked.phases:
        sizes = (phase.parameters, phase.gradients, phase.optimizer, phase.activations, phase.total)
        timeline.add_row(plain(phase.name), *(plain(words.quantity(size, "B", "memory")) for size in sizes))
    saved = listing("", "activations", "most in tensors", "saved", "resident", "saved", left=("",))
    for step in found.steps:
        if not step.phases:
            continue
        kept = max(phase.activations for phase in step.phases)
        pairs = ((step.peak, asked.peak), (step.resident, asked.resident))
        cells = [cell for size, whole in pairs for cell in _saving(size, whole, step is asked)]
        saved.add_row(*(plain(cell) for cell in (step.name, words.quantity(kept, "B", "memory"), *cells)))
    failed = [plain(f"{step.name} can't be: {step.reason}") for step in found.steps if step.reason]
    return Group(f"One step on {words.plural(found.items, 'item')}, tensors counted", timeline, saved, *failed)


def _saving(size: int | None, whole: int | None, same: bool) -> tuple[str, str]:
    """Return a number of bytes, and what it is less than the whole."""
    if size is None:
        return "", ""
    shown = words.quantity(size, "B", "memory")
    if same or whole is None:
        return shown, ""
    sign = "−" if size > whole else ""
    return shown, sign + words.quantity(abs(whole - size), "B", "memory")


def _is_average(name: str) -> bool:
    return name.endswith(("_macro", "_micro", "_weighted"))


def _gain(gain: Interval, metric: str) -> str:
    if gain.pairs < 2:
        return f"{words.amount(gain.value, metric, signed=True)}, one seed tells nothing"
    low, high = (words.amount(end, metric, signed=True) for end in (gain.low, gain.high))
    return f"{words.amount(gain.value, metric, signed=True)} ({low} to {high}), {gain.verdict()}"


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
