from __future__ import annotations

import json
from dataclasses import replace

import pytest

from trimtab.core.values import Goal, Reading
from trimtab.reports import lineup
from trimtab.reports.figures.style import TOKENS
from trimtab.reports.scatter import scatter

NAME = "static-int8 on openvino"


@pytest.fixture(scope="module")
def data(result):
    return scatter(result)


def test_every_variant_with_a_reading_is_a_point(data, result):
    assert [point["name"] for point in data["points"]] == [e.name for e in lineup.lineup(result) if e.readings]
    assert "simplify on openvino, f16" not in {point["name"] for point in data["points"]}


def test_every_axis_belongs_to_a_whole_model_and_says_which_way_is_better(data):
    names = [axis["name"] for axis in data["axes"]]
    assert len(names) == len(set(names))
    assert {"relative_time", "accuracy_change", "bytes", "latency_p50", "peak_memory"} <= set(names)
    assert not {"recall", "confusion_matrix", "latency_p99"} & set(names), "per class, or of no variant"
    assert {axis["better"] for axis in data["axes"]} == {"lower", "higher"}


def test_an_axis_is_shown_in_the_unit_of_its_title(data):
    axes = {axis["name"]: (axis["title"], axis["factor"]) for axis in data["axes"]}
    assert axes["latency_p50"] == ("median latency (ms), lower is better", 1e-3)
    assert axes["accuracy_change"] == ("change of accuracy (pt), higher is better", 0.01)


def test_a_reading_of_one_variant_alone_is_no_axis(result):
    first, *others = result.comparison.measurements
    alone = replace(first, readings=(*first.readings, Reading(name="joules", value=2.0, direction="lower")))
    found = scatter(replace(result, comparison=replace(result.comparison, measurements=(alone, *others))))
    assert "joules" not in {axis["name"] for axis in found["axes"]}


def test_a_point_is_told_by_shape_and_by_a_colour_of_the_page(data):
    points = {point["name"]: point for point in data["points"]}
    shapes = {name: point["shape"] for name, point in points.items()}
    assert shapes["as given"] == "square"
    assert shapes["best untouched"] == "diamond"
    assert shapes[NAME] == "circle"
    assert shapes["nncf-int8 on openvino"] == "triangle"
    assert shapes["dynamic-int8 on onnxruntime"] == "cross"
    assert {point["colour"] for point in points.values()} <= {f"var({token})" for token in TOKENS.values()}
    assert [name for name, point in points.items() if point["won"]] == [NAME]
    assert {name for name, point in points.items() if not point["final"]} == {
        "nncf-int8 on openvino", "dynamic-int8 on onnxruntime",
    }  # fmt: skip


def test_values_stay_in_si_units_and_texts_are_for_reading(data):
    point = next(point for point in data["points"] if point["name"] == "as given")
    assert point["values"]["latency_p50"] == pytest.approx([2.9e-3, 2.9e-3 * 0.98, 2.9e-3 * 1.02])
    assert point["texts"]["latency_p50"] == "2.90 ms (2.84–2.96)"
    assert point["values"]["bytes"] == [1.69e6, None, None]


def test_the_allowed_loss_is_drawn_only_over_what_is_protected(result, speed_only):
    assert scatter(result)["limit"] == {"axis": "accuracy_change", "value": -0.01}
    assert scatter(speed_only)["limit"] is None


def test_the_axes_shown_first_are_those_of_the_goal(result):
    found = scatter(replace(result, goal=Goal(objective="bytes")))
    assert (found["x"], found["y"]) == ("bytes", "accuracy_change")


def test_one_variant_alone_makes_no_scatter(result):
    trials = result.trials[:1]
    comparison = replace(result.comparison, measurements=result.comparison.measurements[:1], ratios=(), quality=())
    assert scatter(replace(result, untouched=trials[0], trials=trials, comparison=comparison, winner=None)) is None


def test_it_is_plain_data(data):
    assert json.loads(json.dumps(data)) == data


def test_every_axis_holds_its_values_and_the_allowed_loss(data):
    for axis in data["axes"]:
        first, last = axis["ends"]
        values = [point["values"][axis["name"]][0] for point in data["points"] if axis["name"] in point["values"]]
        assert all(first < value < last for value in values), axis["name"]
    (up,) = [axis for axis in data["axes"] if axis["name"] == "accuracy_change"]
    assert up["ends"][0] < data["limit"]["value"]
