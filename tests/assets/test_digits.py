import math

import numpy as np
import onnx
import onnxruntime
import pytest
from scipy.stats import binom
from sklearn.datasets import load_digits

from trimtab.assets import MAX_DROP, SPLIT_SIZES, digits
from trimtab.core import words
from trimtab.core.protocols import Opening
from trimtab.core.values import Workload
from trimtab.formats.onnx import OnnxFormat


@pytest.fixture(scope="module")
def data():
    return digits()


@pytest.fixture(scope="module")
def graph(data):
    return onnx.shape_inference.infer_shapes(onnx.load(data.model)).graph


def accuracy(data, name):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(data.model, options)
    rows = data.split == name
    (logits,) = session.run(None, {"image": data.inputs[rows]})
    return np.mean(logits.argmax(1) == data.labels[rows])


def test_fits_into_five_megabytes(data):
    assert data.model.stat().st_size <= 5_000_000


def test_takes_any_batch_of_8_by_8_images(graph):
    (image,) = graph.input
    shape = [dim.dim_param or dim.dim_value for dim in image.type.tensor_type.shape.dim]
    assert (image.name, shape) == ("image", ["batch", 1, 8, 8])


def test_makes_at_least_fifty_million_multiply_accumulates_a_call(graph):
    weights = {item.name: math.prod(item.dims) for item in graph.initializer}
    places = {"Conv": 8 * 8, "Gemm": 1}
    macs = sum(places[node.op_type] * weights[node.input[1]] for node in graph.node if node.op_type in places)
    by_hand = 64 * 9 * (128 + 8 * 128 * 128) + 128 * 10
    assert macs == by_hand >= 50_000_000


def test_our_counter_agrees_with_the_hand_count(data, tmp_path):
    model = OnnxFormat().open(str(data.model), Opening(folder=tmp_path))
    work = OnnxFormat().work(model, Workload())
    assert sum(layer.macs for layer in work.layers) == 64 * 9 * (128 + 8 * 128 * 128) + 128 * 10


def test_names_no_place_of_its_making(data):
    proto = onnx.load(data.model)
    owners = [proto, proto.graph, *proto.graph.node]
    assert all(not owner.metadata_props and not owner.doc_string for owner in owners)


def test_holds_every_digit_of_scikit_learn_once(data):
    reference = load_digits()
    np.testing.assert_allclose(data.inputs.reshape(1797, 64) * 16, reference.data)
    np.testing.assert_array_equal(data.labels, reference.target)


def test_splits_into_the_sizes_it_says(data):
    names, counts = np.unique(data.split, return_counts=True)
    assert dict(zip(names.tolist(), counts.tolist(), strict=True)) == dict(SPLIT_SIZES)


def test_no_certify_image_occurs_in_another_split(data):
    certify = {image.tobytes() for image in data.inputs[data.split == "certify"]}
    others = {image.tobytes() for image in data.inputs[data.split != "certify"]}
    assert not certify & others


def test_every_class_is_in_every_split(data):
    for name, _ in SPLIT_SIZES:
        assert np.bincount(data.labels[data.split == name], minlength=10).min() >= 10


def test_certify_items_are_answered_well_but_not_perfectly(data):
    assert 0.97 <= accuracy(data, "certify") < 1


def test_is_no_better_on_what_it_was_trained_on_by_more_than_two_points(data):
    assert accuracy(data, "train") - accuracy(data, "certify") < 0.02


def proof_power(items, max_drop, flips):
    """The probability that Tango's test proves `max_drop` when `flips` of the answers change without a loss."""

    def proven(better, worse):
        a, b = 2 * items, -better - worse - (2 * items - better + worse) * max_drop
        c = worse * max_drop * (1 + max_drop)
        q = (math.sqrt(b * b - 4 * a * c) - b) / (2 * a)
        return (better - worse + items * max_drop) / math.sqrt(items * (2 * q - max_drop * (1 + max_drop))) > 1.645

    return sum(
        binom.pmf(changed, items, flips) * binom.pmf(better, changed, 0.5)
        for changed in range(40)
        for better in range(changed + 1)
        if proven(better, changed - better)
    )


def test_max_drop_is_what_the_certify_items_can_prove():
    items, max_drop = dict(SPLIT_SIZES)["certify"], words.drop(MAX_DROP)
    assert proof_power(items, max_drop, 0.007) > 0.8
    assert proof_power(items, max_drop / 2, 0.007) < 0.8
