from __future__ import annotations

from dataclasses import replace

import pytest
from matplotlib.colors import to_hex
from matplotlib.container import ErrorbarContainer

from trimtab.core.values import Comparison, Goal, Reading
from trimtab.reports import lineup
from trimtab.reports.figures.tradeoff import allowed, axis_label, default_axes, fitting_scale, marker, tradeoff
from trimtab.reports.words import Scale

NAME = "static-int8 on openvino"


def points(figure):
    """Each variant's mark, horizontal and vertical interval, by its name in the legend."""
    return {
        held.get_label().removeprefix("_").replace("\n", " "): (held.lines[0], *held.lines[2])
        for held in figure.axes[0].containers
        if isinstance(held, ErrorbarContainer)
    }


def legend(figure):
    return [text.get_text().replace("\n", " ") for text in figure.legends[0].get_texts()]


def test_draws_every_variant_that_was_timed_and_judged(result):
    drawn = {name: mark.get_xdata()[0] for name, (mark, *_) in points(tradeoff(result)).items()}
    assert drawn == pytest.approx({
        "as given": 1.0, "best untouched": 1.8 / 2.9, f"{NAME} (winner)": 1 / 2.9,
        "bf16 on openvino (proven)": 1.3 / 2.9, "nncf-int8 on openvino": 0.33,
    })  # fmt: skip


def test_intervals_are_drawn_in_the_units_of_the_axes(result):
    _, across, up = points(tradeoff(result))[f"{NAME} (winner)"]
    ((left, _), (right, _)) = across.get_segments()[0]
    ((_, below), (_, above)) = up.get_segments()[0]
    assert (left, right) == pytest.approx((0.97 / 2.9, 1.03 / 2.9))
    assert (below, above) == pytest.approx((-0.42, 0.21)), "points, not shares"


def test_what_was_only_screened_is_hollow(result):
    marks = {name: to_hex(mark.get_markerfacecolor()) for name, (mark, *_) in points(tradeoff(result)).items()}
    assert marks[f"{NAME} (winner)"] == lineup.WINNER
    assert marks["nncf-int8 on openvino"] == "#ffffff"


def test_the_legend_names_the_finalists_and_tells_the_others_by_their_state(result):
    assert legend(tradeoff(result)) == [
        "as given", "best untouched", f"{NAME} (winner)", "bf16 on openvino (proven)", "tried, unproven",
        "Pareto front", "allowed loss",
    ]  # fmt: skip


def test_the_allowed_loss_is_a_line_only_where_something_is_protected(result, speed_only):
    (limit,) = [line for line in tradeoff(result).axes[0].lines if line.get_label() == "allowed loss"]
    assert list(limit.get_ydata()) == [-1.0, -1.0]
    assert "allowed loss" not in legend(tradeoff(speed_only))
    assert allowed(result, "bytes") is None
    assert allowed(result.comparison, "accuracy_change") is None


def test_the_front_runs_through_the_unbeaten(result):
    front = next(line for line in tradeoff(result).axes[0].lines if line.get_label() == "Pareto front")
    assert list(front.get_xdata()) == pytest.approx([0.33, 1 / 2.9, 1.3 / 2.9])
    assert front.get_drawstyle() == "steps-post", "between two points nothing better is known than the left one"


def test_other_axes_can_be_asked_for(result):
    figure = tradeoff(result, "bytes", "latency_p50")
    assert figure.axes[0].get_xlabel() == "size (MB), lower is better"
    assert figure.axes[0].get_ylabel() == "median latency (ms), lower is better"


def test_one_point_is_no_trade_off(result):
    assert tradeoff(result, "bytes", "no_such_reading") is None
    assert tradeoff(Comparison(measurements=result.comparison.measurements[:1])) is None


@pytest.mark.parametrize(
    ("objective", "axes"),
    [
        ("latency", ("relative_time", "accuracy_change")),
        ("throughput", ("relative_time", "accuracy_change")),
        ("bytes", ("bytes", "accuracy_change")),
        ("peak_memory", ("peak_memory", "accuracy_change")),
    ],
)
def test_the_axes_are_those_of_the_goal(result, objective, axes):
    assert default_axes(replace(result, goal=Goal(objective=objective))) == axes


def test_without_quality_time_is_set_against_size(speed_only):
    assert default_axes(speed_only) == ("relative_time", "bytes")


def test_the_unit_is_that_of_the_reading_in_the_middle():
    sizes = [Reading(name="bytes", value=value, unit="bytes") for value in (900.0, 4e6, 5e6)]
    assert fitting_scale(sizes) == Scale(1e6, "MB")


@pytest.mark.parametrize(
    ("reading", "scale", "said"),
    [
        (Reading(name="accuracy", value=0.9, direction="higher"), Scale(0.01, "%"), "accuracy (%), higher is better"),
        (Reading(name="looks", value=2.0), Scale(), "looks"),
    ],
    ids=["unit and direction", "neither"],
)
def test_an_axis_says_what_it_shows(reading, scale, said):
    assert axis_label(reading, scale) == said


def test_parts_and_states_differ_in_shape(result):
    entries = {entry.name: entry for entry in lineup.lineup(result)}
    shapes = {name: marker(entries[name]) for name in ("as given", "best untouched", NAME)}
    assert shapes == {"as given": "s", "best untouched": "D", NAME: "o"}
    tried = entries["nncf-int8 on openvino"]
    states = [marker(replace(tried, state=state)) for state in ("unproven", "dropped", "failed", "kept")]
    assert states == ["^", "X", "X", "o"]
