"""The technique in CONTRIBUTING.md is run as it is printed there."""

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from trimtab.assets import digits
from trimtab.core.protocols import Choices, Context, Opening, Technique
from trimtab.core.values import Settings, Task, Variant
from trimtab.formats.onnx import OnnxFormat

TEXT = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text("utf-8")
CODE = re.search(r"```python\n(.*?)```", TEXT, re.DOTALL)[1]


@pytest.fixture(scope="module")
def technique():
    names = {"__name__": "zero_weights"}
    exec(compile(CODE, "CONTRIBUTING.md", "exec"), names)
    return names["ZeroWeights"]


@pytest.fixture
def variant(tmp_path):
    model = OnnxFormat().open(str(digits().model), Opening(folder=tmp_path))
    return Variant(model=model, settings=Settings(runtime="onnxruntime"))


@pytest.fixture
def context(variant, tmp_path):
    def unused(variant):
        raise AssertionError("the example needs neither evaluation nor timing")

    return Context(
        task=Task(), original=variant, folder=tmp_path / "made", seed=0, deadline=0.0, evaluate=unused, time=unused
    )


def weights(model):
    return {item.name: numpy_helper.to_array(item) for item in onnx.load(model.path).graph.initializer}


def test_is_at_most_forty_lines_long():
    assert len(CODE.splitlines()) <= 40


def test_is_a_technique(technique):
    assert isinstance(technique(), Technique)
    assert technique.__init__.__annotations__["share"].__metadata__ == (Choices(0.1, 0.3),)


def test_zeroes_the_share_that_it_says(technique, variant, context):
    made = technique(share=0.25).apply(variant, context)
    kernel = weights(made.model)["body.4.first.weight"]
    assert np.mean(kernel == 0) == pytest.approx(0.25, abs=0.001)
    assert made.steps[-1].label() == "zero-weights(share=0.25)"


def test_leaves_the_given_variant_and_the_large_weights_alone(technique, variant, context):
    before = weights(variant.model)
    after = weights(technique(share=0.25).apply(variant, context).model)
    kept = after["body.4.first.weight"] != 0
    np.testing.assert_array_equal(after["body.4.first.weight"][kept], before["body.4.first.weight"][kept])
    np.testing.assert_array_equal(weights(variant.model)["body.4.first.weight"], before["body.4.first.weight"])


def test_refuses_other_formats_in_words(technique, variant):
    from dataclasses import replace

    other = replace(variant, model=replace(variant.model, format="torch"))
    assert technique().refuses(variant, Task()) is None
    assert "not torch" in technique().refuses(other, Task())
