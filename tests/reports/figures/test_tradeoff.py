from __future__ import annotations

import math
from dataclasses import replace

import pytest
from matplotlib.colors import to_hex
from matplotlib.container import ErrorbarContainer

from trimtab.core.values import Comparison, Goal, Reading
from trimtab.reports import lineup
from trimtab.reports.figures.tradeoff import allowed, axis_label, default_axes, extent, fitting_scale, marker, tradeoff
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


def front(figure):
    return next(line for line in figure.axes[0].lines if line.get_label() == "Pareto front")


def test_the_front_runs_through_the_unbeaten_and_on_to_the_borders(result):
    figure = tradeoff(result)
    right, bottom = figure.axes[0].get_xlim()[1], figure.axes[0].get_ylim()[0]
    line = front(figure)
    assert list(line.get_xdata()) == pytest.approx([0.33, 0.33, 1 / 2.9, 1.3 / 2.9, right])
    assert line.get_ydata()[0] == bottom
    assert line.get_ydata()[-1] == line.get_ydata()[-2] == 0.0, "nothing lost"
    assert line.get_drawstyle() == "steps-post", "between two points nothing better is known than the left one"


def test_a_front_of_one_variant_is_seen_too(result):
    pair = Comparison(measurements=result.comparison.measurements[1:3])
    xs, ys = front(tradeoff(pair, "latency_p50", "bytes")).get_data()
    assert list(xs[:2]) == pytest.approx([1.0, 1.0])
    assert list(ys[1:]) == pytest.approx([0.47, 0.47])
    assert ys[0] > 1.69, "smaller is better: the line comes from above"


def test_where_more_is_better_the_front_ends_at_the_left_and_below(result):
    figure = tradeoff(result, "accuracy_change", "accuracy")
    line = front(figure)
    assert line.get_drawstyle() == "steps-pre"
    assert line.get_xdata()[0] == figure.axes[0].get_xlim()[0]
    assert line.get_ydata()[-1] == figure.axes[0].get_ylim()[0]


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


def between(value, low=None, high=None):
    return Reading(name="relative_time", value=value, low=low, high=high)


class TestExtent:
    """Where an axis ends."""

    def test_usual_intervals_are_drawn_whole(self):
        first, last = extent([between(1.0), between(0.5, 0.45, 0.55), between(0.4, 0.38, 0.43)])
        assert first < 0.38
        assert last > 1.0

    def test_one_very_wide_interval_squeezes_nobody(self):
        readings = [between(value, 0.95 * value, 1.05 * value) for value in (0.2, 0.3, 0.4, 1.0)]
        alone, beside = extent(readings), extent([*readings, between(0.9, 0.1, 19.0)])
        assert beside[1] - beside[0] < 2 * (alone[1] - alone[0])

    @pytest.mark.parametrize("wide", [5.0, math.inf])
    def test_every_value_is_inside_however_far_it_lies(self, wide):
        readings = [between(0.2, 0.1, 0.3), between(9.0, 9.0 - wide, 9.0 + wide), between(-4.0)]
        first, last = extent(readings, bound=12.0)
        assert math.isfinite(last - first)
        assert first < -4.0
        assert last > 12.0

    def test_equal_values_with_wide_intervals_show_most_of_these(self):
        first, last = extent([between(0.0, -wide, wide) for wide in (0.4, 1.0, 1.0, 2.6, 90.0)])
        assert -5 < first < -2.6
        assert 2.6 < last < 5

    @pytest.mark.parametrize("values", [(0.0,), (3.0, 3.0), (math.inf,), (math.inf, 1.0)])
    def test_there_is_room_around_a_single_value_or_none(self, values):
        first, last = extent([between(value) for value in values])
        assert math.isfinite(last - first)
        assert first < last


def arrows(figure):
    """Where the ends of intervals are cut, by the sign drawn there."""
    return {line.get_marker(): tuple(line.get_xydata()[0]) for line in figure.axes[0].lines if not line.get_clip_on()}


def test_an_interval_that_goes_on_has_an_arrow_at_the_border(result):
    assert arrows(tradeoff(result)) == {}
    trials = list(result.trials)
    trials[4] = replace(trials[4], screening=replace(trials[4].screening, high=40.0))
    figure = tradeoff(replace(result, trials=tuple(trials)))
    ((sign, place),) = arrows(figure).items()
    assert (sign, place) == (">", pytest.approx((figure.axes[0].get_xlim()[1], -0.75)))
