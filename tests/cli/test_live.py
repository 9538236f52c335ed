from __future__ import annotations

import io

import pytest
from rich.console import Console

from trimtab.cli.live import Live
from trimtab.core.values import Ratio, Settings, Trial


def trial(name: str, state: str = "kept", value: float | None = None, reason: str = "") -> Trial:
    screening = None
    if value is not None:
        screening = Ratio(
            reading="latency", variant="v", baseline="b", value=value, low=value, high=value, level=0.95, margin=0.03,
            verdict="inconclusive", blocks=9, processes=1,
        )  # fmt: skip
    return Trial(
        name=name,
        steps=(),
        settings=Settings(runtime="fake"),
        variant=None,
        state=state,  # type: ignore[arg-type] # one of the states, given by the tests
        reason=reason,
        screening=screening,
    )


def told(terminal: bool) -> tuple[Live, io.StringIO]:
    file = io.StringIO()
    return Live(Console(file=file, force_terminal=terminal, width=100, color_system=None)), file


def test_without_a_terminal_there_is_one_plain_line_for_everything_that_ended():
    live, file = told(terminal=False)
    with live:
        live.stage("searching")
        live.begin("static-int8 on openvino", 5, 600)
        live.done(trial("static-int8 on openvino", value=0.5), None)
        live.done(trial("bf16 on openvino", "failed", reason="no [bf16] here"), None)
    assert file.getvalue().splitlines() == [
        "searching",
        "  kept static-int8 on openvino 0.50× the time of the model as given",
        "  failed bf16 on openvino: no [bf16] here",
    ]
    assert "\x1b" not in file.getvalue()


def test_on_a_terminal_it_shows_what_runs_the_time_left_and_the_best_so_far():
    live, file = told(terminal=True)
    with live:
        live.done(trial("best on openvino"), trial("best on openvino"))
        live.begin("next [one] on onnxruntime", 60, 600)
        live._status._live.refresh()  # type: ignore[union-attr] # rich draws it in a thread of its own
    shown = file.getvalue()
    assert "next [one] on onnxruntime · 9 min 0 s left · best so far: best on openvino" in shown


def test_the_line_is_gone_when_an_error_ends_the_run():
    live, _ = told(terminal=True)
    with pytest.raises(ZeroDivisionError), live:
        raise ZeroDivisionError
    assert live._status is not None
    assert not live._status._live.is_started


def test_a_line_that_nobody_looks_at_is_never_cut_in_two():
    reason = "loses 3.1 pt of accuracy on 1,000 items, " * 8
    for terminal, lines in ((False, 2), (True, 8)):
        live, file = told(terminal)
        live.stage("proving on items that the search never saw, " * 5)
        live.done(trial("keep-float(" + "layer, " * 20 + ") on openvino", "dropped", reason=reason), None)
        shown = file.getvalue().splitlines()
        assert (len(shown) == lines) if not terminal else (len(shown) >= lines)
