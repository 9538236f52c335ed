from __future__ import annotations

from dataclasses import replace

import pytest

from trimtab.reports import figures
from trimtab.reports.figures.memory import memory
from trimtab.training.memory import Memory, Phase, StepMemory

FORWARD = Phase(name="forward", parameters=10**6, gradients=0, optimizer=2 * 10**6, activations=7 * 10**6)
PHASES = (replace(FORWARD, name="before", activations=0), FORWARD)


@pytest.fixture
def found(result):
    asked = StepMemory(name="as asked", phases=PHASES, peak=11 * 10**6, resident=30 * 10**6)
    less = replace(FORWARD, activations=4 * 10**6)
    steps = (asked, StepMemory(name="less", phases=(PHASES[0], less), peak=9 * 10**6, resident=35 * 10**6),
             StepMemory(name="never", reason="the module has no blocks"))  # fmt: skip
    return Memory(items=64, steps=steps, machine=result.machine, time="2026-11-22")


def bars(axes):
    """The bars of each row as (left, width) in megabytes."""
    rows = {}
    for bar in axes.patches:
        rows.setdefault(round(bar.get_y() + bar.get_height() / 2), []).append((bar.get_x(), bar.get_width()))
    return [rows[row] for row in sorted(rows)]


def test_owners_stand_one_behind_the_other_after_each_phase(found):
    over, measured = memory(found).axes
    assert bars(over) == [[(0, 1), (1, 2), (3, 0), (3, 0)], [(0, 1), (1, 2), (3, 0), (3, 7)]]
    assert [label.get_text() for label in over.get_yticklabels()] == ["before", "forward"]
    assert [text.get_text() for text in over.texts] == ["3.00 MB", "10.0 MB"]
    assert measured.get_xlabel() == "MB"


def test_every_measure_shows_its_fullest_phase_and_what_was_really_taken(found):
    measured = memory(found).axes[1]
    assert bars(measured) == [[(0, 1), (1, 2), (3, 0), (3, 7)], [(0, 1), (1, 2), (3, 0), (3, 4)]]
    assert [label.get_text() for label in measured.get_yticklabels()] == ["as asked", "less"], "never can't be drawn"
    assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in measured.lines] == [
        (11, 0),
        (30, 0),
        (9, 1),
        (35, 1),
    ]


def test_it_can_be_written_even_if_no_step_could_be_taken(found, tmp_path):
    none = replace(found, steps=found.steps[2:])
    assert [path.name for path in figures.save({"memory": memory(none)}, tmp_path, ("svg",))] == ["memory.svg"]
