"""A conversion must answer alike: on several batches, in every output, within a tolerance that grows with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from trimtab.core.errors import Refused
from trimtab.core.values import Settings, Variant
from trimtab.formats.onnx import save
from trimtab.techniques.agreement import check_agreement

Make = Callable[..., Variant]


@pytest.fixture
def scaled(tmp_path: Path) -> Make:
    """Return a function that makes a model y = factor · x (+ more nodes) of 4 numbers an item."""
    count = iter(range(100))

    def make(
        factor: float, outputs: tuple[str, ...] = ("y",), batch: int | str = "batch", reshaped: tuple[int, ...] = ()
    ) -> Variant:
        nodes = [helper.make_node("Mul", ["x", "f"], ["m"])]
        if reshaped:
            nodes.append(helper.make_node("Reshape", ["m", "to"], [outputs[0]]))
        else:
            nodes += [helper.make_node("Identity", ["m"], [name]) for name in outputs]
        held = {"f": np.float32(factor), "to": np.array(reshaped, np.int64)}
        graph = helper.make_graph(
            nodes,
            "scaled",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 4])],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
            [numpy_helper.from_array(content, name) for name, content in held.items()],
        )
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        model = save(proto, tmp_path / f"{next(count)}.onnx")
        return Variant(model=model, settings=Settings(runtime="onnxruntime", threads=1))

    return make


@pytest.mark.parametrize("factor", [1.0, 1000.0, 1e-6, 0.0])
def test_a_model_agrees_with_itself(factor: float, scaled: Make) -> None:
    check_agreement(scaled(factor), scaled(factor), seed=0)


@pytest.mark.parametrize(("other", "agrees"), [(100.05, True), (100.2, False), (float("nan"), False)])
def test_answers_may_differ_by_a_thousandth_of_the_largest(other: float, agrees: bool, scaled: Make) -> None:
    if agrees:
        check_agreement(scaled(100.0), scaled(other), seed=0)
        return
    with pytest.raises(Refused, match="output 'y' of the converted model differs by up to") as caught:
        check_agreement(scaled(100.0), scaled(other), seed=0)
    assert "\n" not in str(caught.value)


def test_what_is_undefined_in_both_agrees(scaled: Make) -> None:
    check_agreement(scaled(float("nan")), scaled(float("nan")), seed=0)
    check_agreement(scaled(float("inf")), scaled(float("inf")), seed=0)


def test_an_output_that_is_gone_is_named_with_those_that_are_there(scaled: Make) -> None:
    with pytest.raises(Refused, match="has no output 'z'; it has y, w"):
        check_agreement(scaled(1.0, ("y", "z")), scaled(1.0, ("y", "w")), seed=0)


def test_another_shape_is_told_even_when_the_numbers_are_the_same(scaled: Make) -> None:
    with pytest.raises(Refused, match=r"has the shape \(2, 2\), the original's \(1, 4\)"):
        check_agreement(scaled(1.0), scaled(1.0, reshaped=(2, 2)), seed=0)


def test_one_that_only_takes_the_batch_it_was_traced_with_is_found_out(scaled: Make) -> None:
    with pytest.raises(Refused, match="fails with 3 items where the original runs") as caught:
        check_agreement(scaled(1.0), scaled(1.0, reshaped=(1, 4)), seed=0)
    assert "\n" not in str(caught.value)


def test_a_fixed_batch_is_compared_at_its_size_only(scaled: Make) -> None:
    check_agreement(scaled(1.0), scaled(1.0, batch=1, reshaped=(1, 4)), seed=0)


def test_precision_hints_do_not_enter(scaled: Make) -> None:
    pytest.importorskip("openvino")
    one = scaled(3.0)
    rough = Settings(runtime="openvino", precision="bf16", threads=1)
    check_agreement(one, one.on(rough), seed=0)


def test_states_are_compared_after_one_step_from_a_random_state(tmp_path: Path) -> None:
    def cell(kind: str) -> Variant:
        shape = ["batch", 4]
        graph = helper.make_graph(
            [helper.make_node(kind, ["x", "h"], ["s"]), helper.make_node("Tanh", ["s"], ["hn"]),
             helper.make_node("Neg", ["x"], ["y"])],
            "cell",
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", "h")],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("y", "hn")],
        )  # fmt: skip
        proto = helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
        model = save(proto, tmp_path / f"{kind}.onnx")
        assert [spec.name for spec in model.signature.states] == ["h"]
        return Variant(model=model, settings=Settings(runtime="onnxruntime", threads=1))

    check_agreement(cell("Add"), cell("Add"), seed=0)
    with pytest.raises(Refused, match="'hn'"):
        check_agreement(cell("Add"), cell("Sub"), seed=0)
