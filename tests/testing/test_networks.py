"""What the sample networks compute, against onnx's own reference evaluator and PyTorch."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator

from trimtab.testing import CONVOLUTION, PERCEPTRON, TOKENS, networks

NETWORKS = [PERCEPTRON, CONVOLUTION, TOKENS]
EVALUATORS = {network.name: ReferenceEvaluator(network.graph(0)) for network in NETWORKS}


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.name)
def test_the_graph_is_valid_onnx_with_a_free_batch(network):
    proto = network.graph(0)
    onnx.checker.check_model(proto, full_check=True)
    ends = [*proto.graph.input, *proto.graph.output]
    assert {end.type.tensor_type.shape.dim[0].dim_param for end in ends} == {"batch"}
    assert len({node.name for node in proto.graph.node} - {""}) == len(proto.graph.node), "techniques name layers"


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.name)
@settings(max_examples=15, deadline=None)
@given(items=st.integers(1, 6), seed=st.integers(0, 1000))
def test_the_graph_and_numpy_compute_the_same(network, items, seed):
    inputs = network.inputs(items, seed)
    (expected,) = EVALUATORS[network.name].run(None, inputs)
    answer = network.answer(inputs)
    assert list(answer) == ["scores"]
    assert expected.shape == (items, networks.CLASSES)
    np.testing.assert_allclose(answer["scores"], expected, atol=2e-5)


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.name)
def test_equal_seeds_are_equal_weights_and_inputs_and_others_are_not(network):
    assert network.graph(3).SerializeToString() == network.graph(3).SerializeToString()
    assert network.graph(3).SerializeToString() != network.graph(4).SerializeToString()
    one, same, other = (network.inputs(5, seed) for seed in (1, 1, 2))
    assert all(np.array_equal(one[name], same[name]) for name in one)
    assert not all(np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.name)
def test_inputs_are_what_the_graph_takes(network):
    kinds = {onnx.TensorProto.FLOAT: np.float32, onnx.TensorProto.INT64: np.int64}
    taken = {end.name: kinds[end.type.tensor_type.elem_type] for end in network.graph(0).graph.input}
    given_inputs = network.inputs(4, 0)
    assert {name: array.dtype.type for name, array in given_inputs.items()} == taken
    assert {len(array) for array in given_inputs.values()} == {4}


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.name)
def test_its_answers_differ_enough_to_tell_right_from_wrong(network):
    scores = network.answer(network.inputs(200, 0))["scores"]
    assert 0.1 < np.abs(scores).mean() < 10
    assert len(set(scores.argmax(axis=1))) >= 2, "one class for everything would hide a broken model"


def test_an_item_is_answered_alike_alone_and_among_others():
    for network in NETWORKS:
        inputs = network.inputs(5, 9)
        whole = network.answer(inputs)["scores"]
        for row in range(5):
            alone = network.answer({name: array[row : row + 1] for name, array in inputs.items()})["scores"]
            np.testing.assert_allclose(alone[0], whole[row], atol=1e-5)


def test_masked_tokens_change_nothing():
    inputs = TOKENS.inputs(6, 1)
    other = {**inputs, "ids": np.where(inputs["mask"] == 0, 7, inputs["ids"])}
    assert not np.array_equal(other["ids"], inputs["ids"])
    np.testing.assert_allclose(TOKENS.answer(other)["scores"], TOKENS.answer(inputs)["scores"], atol=1e-6)


def test_the_pytorch_factory_is_the_perceptron():
    torch = pytest.importorskip("torch")
    from trimtab.testing import perceptron

    inputs = PERCEPTRON.inputs(5, 2)
    with torch.inference_mode():
        found = perceptron.make()(torch.from_numpy(inputs["x"])).numpy()
    np.testing.assert_allclose(found, PERCEPTRON.answer(inputs)["scores"], atol=1e-5)
    assert {name: array.shape[1:] for name, array in perceptron.example_inputs().items()} == {"x": (16,)}
    other = perceptron.make(seed=1).state_dict()["first.weight"]
    assert not torch.equal(other, perceptron.make().state_dict()["first.weight"])


def test_the_convolution_is_that_of_pytorch():
    torch = pytest.importorskip("torch")
    w = {name: torch.from_numpy(value) for name, value in networks.weights("convolution").items()}
    inputs = CONVOLUTION.inputs(2, 3)
    x = torch.nn.functional.conv2d(torch.from_numpy(inputs["image"]), w["w1"], w["b1"], padding=1)
    x = torch.nn.functional.batch_norm(x, w["mean"], w["var"], w["scale"], w["shift"])
    expected = torch.relu(x).mean((2, 3)) @ w["w2"] + w["b2"]
    np.testing.assert_allclose(CONVOLUTION.answer(inputs)["scores"], expected.numpy(), atol=1e-5)
