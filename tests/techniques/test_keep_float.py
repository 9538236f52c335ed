"""Ranking layers by damage, the search for the fewest to keep, and both together on a network with one bad layer."""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import count
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given as drawn
from hypothesis import strategies as st
from onnx import numpy_helper

from trimtab.core import plugins
from trimtab.core.errors import BadInput, NothingToGain
from trimtab.core.values import Step, options
from trimtab.formats.onnx import save
from trimtab.techniques.int8 import SEPARATOR
from trimtab.techniques.keep_float import KeepFloat, fewest, parse, rank_layers


@drawn(st.lists(st.integers(0, 1000), min_size=1, max_size=60, unique=True))
def test_with_enough_evaluations_the_ranking_is_exact(damages: list[int]) -> None:
    harm = {f"layer{index}": damage for index, damage in enumerate(damages)}
    ranking = rank_layers(tuple(harm), lambda group: float(sum(harm[name] for name in group)), 1000)
    assert [harm[name] for name in ranking] == sorted(damages, reverse=True)


@drawn(st.integers(1, 300), st.integers(0, 50), st.integers(0, 20))
def test_every_layer_is_ranked_once_within_the_evaluations(layers: int, evaluations: int, patience: int) -> None:
    calls, looks = count(), count()
    names = tuple(map(str, range(layers)))

    def loss_of(group: Any) -> float:
        next(calls)
        return float(len(group))

    ranking = rank_layers(names, loss_of, evaluations, lambda: next(looks) > patience)
    assert sorted(ranking) == sorted(names)
    assert next(calls) <= 8 + evaluations


def test_few_evaluations_find_the_one_bad_layer_of_many() -> None:
    ranking = rank_layers(tuple(map(str, range(200))), lambda group: float("137" in group), 12)
    assert ranking[0] == "137"


@drawn(st.integers(0, 200), st.integers(0, 250), st.integers(1, 20))
def test_the_fewest_that_pass_are_found_in_a_logarithm_of_looks(most: int, needed: int, first: int) -> None:
    looks = []

    def passes(number: int) -> bool:
        looks.append(number)
        return number >= needed

    assert fewest(most, passes, first=first) == (needed if needed <= most else None)
    assert len(looks) == len(set(looks)) <= 2 + 2 * np.log2(most + 1)


def test_few_that_pass_are_found_without_trying_many() -> None:
    looks = []

    def passes(number: int) -> bool:
        looks.append(number)
        return number >= 5

    assert fewest(26, passes, first=3) == 5
    assert max(looks) == 6


def test_asked_to_stop_the_search_returns_what_it_saw_pass() -> None:
    assert fewest(64, lambda number: number >= 3, lambda: True, first=4) == 4


def test_asked_to_stop_before_anything_passed_the_search_tries_the_most() -> None:
    assert fewest(64, lambda number: number >= 30, lambda: True, first=4) == 64
    assert fewest(64, lambda number: False, lambda: True, first=4) is None


def test_options_are_read_as_they_are_typed() -> None:
    assert parse("calibration=entropy, per_channel=False, items=20, reduce_range=None") == options(
        calibration="entropy", per_channel=False, items=20, reduce_range=None
    )
    with pytest.raises(BadInput, match="per_channel"):
        parse("per_channel")


def test_repairs_a_step_with_the_options_it_had() -> None:
    step = Step(technique="static-int8", options=options(calibration="entropy", items=7, keep="", reduce_range=False))
    rescue = KeepFloat().rescue(step, 0.002)
    arguments = "calibration=entropy, items=7, reduce_range=False"
    assert rescue == Step(
        technique="keep-float", options=options(technique="static-int8", arguments=arguments, max_drop=0.002)
    )
    technique = plugins.make("techniques", rescue.technique, rescue.options)
    assert plugins.make("techniques", technique.technique, parse(technique.arguments)).items == 7


@pytest.mark.parametrize(
    ("given", "label"),
    [
        ({"arguments": "reduce_range=False", "keep": "a|b|c", "max_drop": 0.005}, "keep-float(keep=3 names)"),
        ({"arguments": "calibration=entropy, reduce_range=False"}, "keep-float(arguments=calibration=entropy)"),
        (
            {"technique": "nncf-int8", "arguments": "preset=performance", "max_drop": 0.01},
            "keep-float(max_drop=0.01, technique=nncf-int8)",
        ),
        ({}, "keep-float"),
    ],
    ids=["left off", "chosen", "another technique", "defaults"],
)
def test_a_label_tells_only_what_was_chosen_for_the_quantization(given: dict[str, Any], label: str) -> None:
    assert Step(technique="keep-float", options=options(given)).label() == label


def _with_an_outlier(variant: Any, folder: Any) -> Any:
    """Give one channel of the pointwise convolution a weight that no 8-bit scale per tensor survives."""
    proto = onnx.load(variant.model.path)
    for tensor in proto.graph.initializer:
        if tensor.name == "w3":
            weights = numpy_helper.to_array(tensor).copy()
            weights[0] *= 3000.0
            tensor.CopyFrom(numpy_helper.from_array(weights, "w3"))
        if tensor.name == "w4":  # the huge channel itself does not count in the answer
            weights = numpy_helper.to_array(tensor).copy()
            weights[:, 0] /= 3e6
            tensor.CopyFrom(numpy_helper.from_array(weights, "w4"))
    return replace(variant, model=save(proto, folder / "outlier.onnx"))


def _lost(outputs: Any, variant: Any, task: Any, made: Any) -> float:
    before, after = outputs(variant, task), outputs(made, task)
    return float(np.sqrt(np.mean((after - before) ** 2)) / before.std())


@pytest.mark.parametrize("technique", ["static-int8", "nncf-int8"])
def test_keeps_layers_until_the_goal_is_met(
    technique: str, given: Any, context: Any, outputs: Any, tmp_path: Any
) -> None:
    variant, task = given("cnn")
    variant = _with_an_outlier(variant, tmp_path)
    arguments = "per_channel=False" if technique == "static-int8" else ""
    whole = plugins.make("techniques", technique, parse(arguments)).apply(variant, context(variant, task, "whole"))
    most = _lost(outputs, variant, task, whole)
    seen = []

    def evaluate(made: Any, most: float | None = None) -> float:
        seen.append(_lost(outputs, variant, task, made))
        return seen[-1]

    goal = most / 2
    repair = KeepFloat(technique=technique, arguments=arguments, max_drop=goal)
    made = repair.apply(variant, context(variant, task, "mixed", evaluate))
    names = str(dict(made.steps[-1].options)["keep"]).split(SEPARATOR)
    assert 1 <= len([name for name in names if name]) <= 2
    assert _lost(outputs, variant, task, made) <= goal
    assert len(seen) <= 3


def test_gives_up_with_the_reason_when_half_of_the_layers_are_not_enough(given: Any, context: Any) -> None:
    variant, task = given("cnn")
    with pytest.raises(NothingToGain, match="half of the 4 layers"):
        KeepFloat(technique="static-int8").apply(variant, context(variant, task, evaluate=lambda made, most=None: 1.0))


def test_stops_at_the_deadline_with_what_passes(given: Any, context: Any) -> None:
    variant, task = given("cnn")
    late = replace(context(variant, task), deadline=time.monotonic())
    made = KeepFloat(technique="static-int8").apply(variant, late)
    assert len(str(dict(made.steps[-1].options)["keep"]).split(SEPARATOR)) == 1


@pytest.mark.parametrize("technique", ["static-int8", "dynamic-int8", "nncf-int8"])
def test_a_layer_that_does_not_exist_is_named(technique: str, given: Any, context: Any) -> None:
    variant, task = given("transformer")
    with pytest.raises(BadInput, match="'nowhere'"):
        plugins.make("techniques", technique, options(keep="nowhere")).apply(variant, context(variant, task))


@pytest.mark.parametrize("technique", ["static-int8", "nncf-int8"])
@pytest.mark.parametrize("network", ["cnn", "transformer"])
def test_with_every_layer_kept_the_float_outputs_come_back(
    technique: str, network: str, given: Any, context: Any, outputs: Any
) -> None:
    variant, task = given(network)
    prepared = plugins.make("techniques", technique).prepare(variant, context(variant, task))
    keep = options(keep=SEPARATOR.join(prepared.layers))
    made = plugins.make("techniques", technique, keep).apply(variant, context(variant, task))
    whole = plugins.make("techniques", technique).apply(variant, context(variant, task, "whole"))
    assert _lost(outputs, variant, task, made) < 0.5 * _lost(outputs, variant, task, whole)


def test_refuses_a_technique_without_layers(given: Any) -> None:
    variant, task = given("cnn")
    assert "bf16" in str(KeepFloat(technique="bf16").refuses(variant, task))
