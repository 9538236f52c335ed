"""Fake quantization: what it answers, what gradients it passes on, and that the file computes what was trained."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from trimtab.core.errors import BadInput
from trimtab.training.quantized import QuantizedNetwork, fake_quantized

torch = pytest.importorskip("torch")


def test_values_become_whole_steps_within_their_bounds() -> None:
    x = torch.tensor([-9.0, -0.26, 0.0, 0.25, 0.75, 1.1, 9.0])
    assert fake_quantized(x, torch.tensor(0.5), -2, 3).tolist() == [-1.0, -0.5, 0.0, 0.0, 1.0, 1.0, 1.5]


def test_gradients_are_those_of_learned_step_sizes() -> None:
    """Esser et al. 2020, equation 3: round(v/s) − v/s inside, the bound outside; 1 inside and 0 outside for v."""
    x = torch.tensor([-9.0, -0.7, 0.2, 1.3, 9.0], requires_grad=True)
    scale = torch.tensor(0.5, requires_grad=True)
    fake_quantized(x, scale, -4, 3).sum().backward()
    inside = [round(v / 0.5) - v / 0.5 for v in (-0.7, 0.2, 1.3)]
    assert x.grad.tolist() == [0.0, 1.0, 1.0, 1.0, 0.0]
    assert scale.grad.item() == pytest.approx(-4 + sum(inside) + 3, abs=1e-6)


def test_every_channel_has_a_gradient_of_its_own() -> None:
    x = torch.tensor([[0.3, 9.0], [0.3, 9.0]])
    scale = torch.tensor([[0.5], [1.0]], requires_grad=True)
    fake_quantized(x, scale, -2, 2).sum().backward()
    assert scale.grad.flatten().tolist() == pytest.approx([1 - 0.6 + 2, 0 - 0.3 + 2], abs=1e-6)


def pair(zero: int = 0) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """Return a linear layer and the range of what it answers, quantized by hand and in float."""
    node = helper.make_node
    rng = np.random.default_rng(0)
    weight, bias = rng.normal(size=(3, 4)).astype(np.float32), rng.normal(size=3).astype(np.float32)
    scales = (np.abs(weight).max(axis=1) / 127).astype(np.float32)
    x_scale, y_scale = np.float32(0.02), np.float32(0.05)
    held = {
        "x_scale": x_scale, "x_zero": np.uint8(128), "y_scale": y_scale, "y_zero": np.uint8(zero),
        "w_quantized": np.round(weight / scales[:, None]).astype(np.int8), "w_scale": scales,
        "b_quantized": np.round(bias / (x_scale * scales)).astype(np.int32), "b_quantized_scale": x_scale * scales,
    }  # fmt: skip
    nodes = [
        node("QuantizeLinear", ["x", "x_scale", "x_zero"], ["xq"]),
        node("DequantizeLinear", ["xq", "x_scale", "x_zero"], ["xd"]),
        node("DequantizeLinear", ["w_quantized", "w_scale"], ["wd"], axis=0),
        node("DequantizeLinear", ["b_quantized", "b_quantized_scale"], ["bd"], axis=0),
        node("Gemm", ["xd", "wd", "bd"], ["g"], transB=1),
        node("QuantizeLinear", ["g", "y_scale", "y_zero"], ["gq"]),
        node("DequantizeLinear", ["gq", "y_scale", "y_zero"], ["y"]),
    ]
    plain = [node("Gemm", ["x", "w", "b"], ["y"], transB=1)]
    return _model(nodes, held), _model(plain, {"w": weight, "b": bias})


def _model(nodes: list[Any], held: dict[str, Any]) -> onnx.ModelProto:
    info = helper.make_tensor_value_info
    sides = [info(name, TensorProto.FLOAT, ["batch", size]) for name, size in (("x", 4), ("y", 3))]
    arrays = [numpy_helper.from_array(np.asarray(value), name) for name, value in held.items()]
    graph = helper.make_graph(nodes, "g", sides[:1], sides[1:], arrays)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def answers(proto: onnx.ModelProto, x: Any) -> Any:
    return onnxruntime.InferenceSession(proto.SerializeToString()).run(None, {"x": x})[0]


def values(proto: onnx.ModelProto) -> dict[str, Any]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}


X = np.random.default_rng(1).normal(size=(64, 4)).astype(np.float32)


@pytest.mark.parametrize("learned", [True, False])
def test_an_untrained_network_is_the_file_that_it_was_made_of(learned: bool) -> None:
    quantized, original = pair()
    network = QuantizedNetwork(quantized, original, learned=learned, most=127)
    with torch.no_grad():
        got = network.module.eval()(x=torch.tensor(X))["y"].numpy()
    np.testing.assert_allclose(got, answers(quantized, X), atol=0.051)
    assert np.mean(np.abs(got - answers(quantized, X)) > 1e-6) < 0.02
    before, after = values(quantized), values(network.trained())
    for name, value in before.items():
        np.testing.assert_allclose(after[name].astype(float), value.astype(float), rtol=1e-5, err_msg=name)


def test_a_range_that_is_much_too_wide_is_learnt_to_fit() -> None:
    quantized, original = pair(zero=128)
    for tensor in quantized.graph.initializer:
        if tensor.name == "y_scale":
            tensor.CopyFrom(numpy_helper.from_array(np.float32(1.5), "y_scale"))
    network = QuantizedNetwork(quantized, original, learned=True, most=127)
    wanted = torch.tensor(answers(original, X))
    optimizer = torch.optim.Adam(network.module.parameters(), lr=0.05)
    for _ in range(150):
        loss = torch.nn.functional.mse_loss(network.module(x=torch.tensor(X))["y"], wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    made = network.trained()
    assert float(values(made)["y_scale"]) < 0.2
    assert (
        np.abs(answers(made, X) - wanted.numpy()).mean() < 0.3 * np.abs(answers(quantized, X) - wanted.numpy()).mean()
    )


@pytest.mark.parametrize("learned", [True, False])
def test_what_is_trained_is_what_the_file_then_computes(learned: bool) -> None:
    quantized, original = pair(zero=100)
    network = QuantizedNetwork(quantized, original, learned=learned, most=127)
    optimizer = torch.optim.Adam(network.module.parameters(), lr=0.02)
    wanted = torch.tensor(np.tanh(X[:, :3]))
    losses = []
    for _ in range(60):
        loss = torch.nn.functional.mse_loss(network.module.train()(x=torch.tensor(X))["y"], wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]
    made = network.trained()
    with torch.no_grad():
        got = network.module.eval()(x=torch.tensor(X))["y"].numpy()
    step = float(values(made)["y_scale"])
    np.testing.assert_allclose(got, answers(made, X), atol=1.01 * step)
    assert np.mean(np.abs(got - answers(made, X)) > step / 2) < 0.02
    moved = [name for name, value in values(quantized).items() if not np.array_equal(value, values(made)[name])]
    expected = {"w_quantized", "w_scale", "b_quantized", "b_quantized_scale", "x_scale", "y_scale"}
    assert expected <= set(moved) <= expected | ({"x_zero", "y_zero"} if not learned else set())


def test_weights_of_seven_bits_stay_within_them() -> None:
    network = QuantizedNetwork(*pair(), learned=True, most=64)
    with torch.no_grad():
        for parameter in network.module.parameters():
            parameter.mul_(3.0)
    assert np.abs(values(network.trained())["w_quantized"].astype(int)).max() == 64


def test_an_observed_range_follows_what_is_seen_and_holds_zero() -> None:
    network = QuantizedNetwork(*pair(), learned=False, most=127)
    for _ in range(600):
        network.module.train()(x=torch.full((1, 4), 3.0))
    made = values(network.trained())
    assert made["x_scale"] == pytest.approx(3.0 / 255, rel=0.02)
    assert made["x_zero"] <= 1


@pytest.mark.parametrize(("kind", "low", "high"), [("Relu", 0.0, 3.0), ("Clip", 0.0, 0.05 * 255), (None, -3.0, 3.0)])
def test_a_range_that_has_taken_the_place_of_a_cut_still_cuts(kind: str | None, low: float, high: float) -> None:
    """ONNX Runtime drops a ReLU before a rounding that starts at zero: what lies below must not widen the range."""
    quantized, original = pair()
    if kind is not None:
        original.graph.node[0].output[0] = "before"
        original.graph.node.append(helper.make_node(kind, ["before"], ["g"]))
    network = QuantizedNetwork(quantized, original, learned=False, most=127)
    (activation,) = [each for name, each in network._activations.items() if name == "y_scale"]
    network.module.train()
    for _ in range(1200):
        activation(torch.tensor([-3.0, 30.0 if kind == "Clip" else 3.0]))
    assert float((activation.least - activation.zero()) * activation.scale()) == pytest.approx(low, abs=0.05)
    assert float((activation.most - activation.zero()) * activation.scale()) == pytest.approx(high, abs=0.05)


def test_a_vector_that_two_layers_share_is_one_parameter() -> None:
    quantized, original = pair()
    shared = numpy_helper.from_array(np.array([1.0, 2.0, 3.0], np.float32), "shared")
    for proto in (quantized, original):
        proto.graph.initializer.append(shared)
        proto.graph.node[-1].output[0] = "inner"
        proto.graph.node.append(helper.make_node("Add", ["inner", "shared"], ["once"]))
        proto.graph.node.append(helper.make_node("Add", ["once", "shared"], ["y"]))
    network = QuantizedNetwork(quantized, original, learned=True, most=127)
    network.module(x=torch.tensor(X))["y"].sum().backward()
    found = [each for each in network.module.parameters() if each.numel() == 3 and each.tolist() == [1.0, 2.0, 3.0]]
    assert [each.grad.tolist() for each in found] == [[128.0, 128.0, 128.0]]


def test_an_operator_that_can_not_be_trained_is_named() -> None:
    quantized, original = pair()
    quantized.graph.node[4].op_type = "Mystery"
    with pytest.raises(BadInput, match="Mystery"):
        QuantizedNetwork(quantized, original, learned=True, most=127)
