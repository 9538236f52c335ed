"""What every technique of this room that changes numbers must keep, on a convolutional net and a transformer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trimtab.core import plugins
from trimtab.core.files import digest_files
from trimtab.core.values import Options, Task, options

# The error allowed is relative to the spread of the outputs: 16 bits keep about three digits, 8 bits about one.
TECHNIQUES = [
    ("simplify", (), 1e-4),
    ("bf16", (), 0.01),
    ("dynamic-int8", (), 0.10),
    ("static-int8", (), 0.15),
    ("static-int8", options(calibration="percentile"), 0.15),
    ("static-int8", options(calibration="entropy", symmetric=True), 0.40),
    ("nncf-int8", (), 0.15),
    ("keep-float", options(technique="static-int8"), 0.15),
]
INT8 = ["dynamic-int8", "static-int8", "nncf-int8"]
CASES = [
    (n, o, e, m) for n, o, e in TECHNIQUES for m in ("cnn", "transformer") if (n, m) != ("simplify", "transformer")
]
every_case = pytest.mark.parametrize(("name", "given_options", "error", "network"), CASES)


@every_case
def test_outputs_stay_close_to_those_of_the_float_model(
    name: str, given_options: Options, error: float, network: str, given: Any, context: Any, outputs: Any
) -> None:
    variant, task = given(network)
    technique = plugins.make("techniques", name, given_options)
    assert technique.refuses(variant, task) is None
    before, after = outputs(variant, task), outputs(technique.apply(variant, context(variant, task)), task)
    assert np.isfinite(after).all()
    assert np.sqrt(np.mean((after - before) ** 2)) <= error * before.std()


@every_case
def test_the_same_options_give_the_same_bytes_and_leave_the_given_variant_alone(
    name: str, given_options: Options, error: float, network: str, given: Any, context: Any
) -> None:
    variant, task = given(network)
    before = digest_files([variant.model.path])
    technique = plugins.make("techniques", name, given_options)
    one = technique.apply(variant, context(variant, task, "one"))
    other = technique.apply(variant, context(variant, task, "other"))
    assert one.model.digest == other.model.digest
    assert one.model.digest != variant.model.digest
    assert digest_files([variant.model.path]) == before
    assert one.model.path.is_relative_to(context(variant, task, "one").folder)


@every_case
def test_the_step_says_enough_to_do_it_again(
    name: str, given_options: Options, error: float, network: str, given: Any, context: Any
) -> None:
    variant, task = given(network)
    made = plugins.make("techniques", name, given_options).apply(variant, context(variant, task, "first"))
    (step,) = made.steps
    assert (step.technique, step.seed) == (name, 3)
    again = plugins.make("techniques", step.technique, step.options).apply(variant, context(variant, task, "again"))
    assert again.model.digest == made.model.digest
    assert again.steps == made.steps


@every_case
def test_inputs_and_outputs_keep_their_names_types_and_free_dimensions(
    name: str, given_options: Options, error: float, network: str, given: Any, context: Any
) -> None:
    variant, task = given(network)
    made = plugins.make("techniques", name, given_options).apply(variant, context(variant, task))
    assert made.model.signature == variant.model.signature


@pytest.mark.parametrize("name", [*INT8, "bf16", "keep-float"])
@pytest.mark.parametrize("first", INT8)
def test_never_quantizes_twice(name: str, first: str, given: Any, context: Any) -> None:
    variant, task = given("transformer")
    made = plugins.make("techniques", first).apply(variant, context(variant, task))
    reason = plugins.make("techniques", name).refuses(made, task)
    assert reason is not None
    assert "quantized" in reason or "onnx" in reason


@pytest.mark.parametrize("name", ["static-int8", "nncf-int8", "keep-float"])
def test_says_that_it_needs_calibration_data(name: str, given: Any) -> None:
    variant, _ = given("cnn")
    assert "data" in plugins.make("techniques", name).refuses(variant, Task())


@pytest.mark.parametrize("name", ["simplify", *INT8, "keep-float"])
def test_refuses_a_pytorch_model(name: str, given: Any, tmp_path: Path) -> None:
    variant, task = given("cnn")
    torch = replace(variant, model=replace(variant.model, format="torch"))
    assert "torch" in plugins.make("techniques", name).refuses(torch, task)


@pytest.mark.parametrize(
    ("name", "wrong"), [("static-int8", "calibration"), ("nncf-int8", "preset"), ("simplify", "level")]
)
def test_refuses_a_choice_that_does_not_exist(name: str, wrong: str, given: Any) -> None:
    variant, task = given("cnn")
    assert "choose" in plugins.make("techniques", name, options({wrong: "nonsense"})).refuses(variant, task)
