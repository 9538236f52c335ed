from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from trimtab.core import plugins
from trimtab.core.values import Layer, Model, Reading, Settings, Signature, Task, TensorSpec, Variant, Work, Workload
from trimtab.formats.onnx import save
from trimtab.meters.compute import ComputeMeter, bound, readings


def linear(path: Path, *, mystery: bool = False) -> Model:
    """[batch, tokens, 8] × [8, 4], of whose weights a quarter is zero."""
    weight = np.ones((8, 4), np.float32)
    weight[:, 0] = 0
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], name="head")]
    if mystery:
        nodes.append(helper.make_node("Mystery", ["y"], ["z"], domain="acme"))
    given = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", "tokens", 8])]
    made = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    graph = helper.make_graph(nodes, "net", given, made, [numpy_helper.from_array(weight, "w")])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("acme", 1)]
    return save(helper.make_model(graph, opset_imports=opsets), path / "m.onnx")


def read(model: Model, workload: Workload, **options: bool) -> list[Reading]:
    variant = Variant(model=model, settings=Settings(runtime="any"))
    return list(ComputeMeter(**options).read(None, variant, Task(), workload))


def test_reads_dense_and_nonzero_macs_of_the_call_that_is_timed(tmp_path):
    macs, nonzero, coverage = read(linear(tmp_path), Workload(batch=2, lengths=(("tokens", 5),)))
    assert (macs.name, macs.value, nonzero.name, nonzero.value) == ("macs", 320.0, "macs_nonzero", 240.0)
    assert (coverage.name, coverage.value) == ("macs_coverage", 1.0)
    assert {reading.provenance for reading in (macs, nonzero, coverage)} == {"counted"}
    assert macs.scope == "one call of batch 2, tokens 5"


def test_a_length_that_nobody_named_is_that_of_the_synthetic_inputs_and_told(tmp_path):
    macs, *_ = read(linear(tmp_path), Workload())
    assert (macs.value, macs.scope) == (128 * 8 * 4, "one call of batch 1, tokens 128")


def test_lists_what_is_uncounted_and_says_that_the_number_is_a_lower_bound(tmp_path):
    macs, _, coverage = read(linear(tmp_path, mystery=True), Workload(lengths=(("tokens", 1),)))
    assert (macs.value, macs.low, macs.high) == (32.0, 32.0, None)
    assert macs.scope.endswith("at least: without 1 × acme.Mystery")
    assert (coverage.value, coverage.scope) == (0.5, "2 operators that compute, uncounted: 1 × acme.Mystery")


def test_layers_on_demand_each_at_its_place(tmp_path):
    workload = Workload(lengths=(("tokens", 3),))
    assert [reading.place for reading in read(linear(tmp_path), workload)] == [None] * 3
    *_, layer = read(linear(tmp_path), workload, layers=True)
    assert (layer.name, layer.place, layer.value) == ("macs", "head", 96.0)


def test_when_nothing_could_be_counted_macs_are_unavailable_never_zero():
    lost = Work(layers=(Layer(name="a", operator="MatMul", macs=None, reason="its shape is not known"),))
    macs, nonzero, coverage = readings(lost, Workload())
    assert (macs.value, nonzero.value, coverage.value) == (None, None, 0.0)
    assert macs.provenance == "unavailable"
    assert "1 × MatMul (its shape is not known)" in macs.scope


def test_a_net_without_products_computes_nothing_and_is_covered():
    macs, _, coverage = readings(Work(layers=(), excluded=(("Relu", 3),)), Workload())
    assert (macs.value, coverage.value) == (0.0, 1.0)


def test_a_format_that_can_not_be_counted_is_unavailable_with_the_reason(tmp_path, monkeypatch):
    class FakeFormat:
        name = "fake"

    monkeypatch.setattr(plugins, "make", lambda group, name: FakeFormat())
    spec = TensorSpec(name="x", dtype="float32", shape=(1, 3))
    model = Model(format="fake", path=tmp_path, digest="0", signature=Signature(inputs=(spec,), outputs=()))
    for reading in read(model, Workload()):
        assert (reading.value, reading.provenance) == (None, "unavailable")
        assert "the format fake" in reading.scope


@pytest.mark.parametrize(("shape", "lengths"), [((2, 7, 3), (("x:1", 7),)), ((2, 9, 7, 3), (("x:1", 7),))])
def test_binds_free_dimensions_and_takes_one_step_of_a_sequence(shape, lengths):
    x = TensorSpec(name="x", dtype="float32", shape=("n", "?", 3))
    h = TensorSpec(name="h", dtype="float32", shape=(4,), role="state", fed_by="hn")
    signature = Signature(inputs=(x, h) if len(shape) == 4 else (x,), outputs=())
    assert bound(signature, Workload(batch=2), {"x": shape}) == Workload(batch=2, lengths=lengths)


def test_weights_of_zero_are_left_out_of_the_other_number_alone(tmp_path):
    macs, nonzero, _ = read(linear(tmp_path), Workload(lengths=(("tokens", 7),)))
    assert nonzero.value == 0.75 * macs.value
    assert nonzero.scope == f"{macs.scope}, products with zero weights left out"


def test_a_model_that_can_not_be_read_is_unavailable_with_the_words_of_its_format(tmp_path):
    model = linear(tmp_path)
    model.path.write_bytes(b"gone")
    for reading in read(model, Workload(lengths=(("tokens", 1),))):
        assert (reading.value, reading.provenance) == (None, "unavailable")
        assert "m.onnx" in reading.scope


def test_uncounted_operators_are_told_with_the_most_frequent_first():
    lost = [Layer(name=f"{n}", operator=op, macs=None, reason="unknown") for n, op in enumerate(["a.B", "a.C", "a.C"])]
    found = Work(layers=(Layer(name="x", operator="Conv", macs=100, nonzero=50), *lost))
    macs, nonzero, coverage = readings(found, Workload())
    assert (macs.value, macs.low, nonzero.value) == (100.0, 100.0, 50.0)
    assert macs.scope == "one call of batch 1; at least: without 2 × a.C, 1 × a.B"
    assert (coverage.value, coverage.scope) == (0.25, "4 operators that compute, uncounted: 2 × a.C, 1 × a.B")


def test_a_batch_that_has_a_name_is_bound_by_the_workload_not_by_the_items():
    x = TensorSpec(name="x", dtype="float32", shape=("n", "t"))
    y = TensorSpec(name="y", dtype="float32", shape=("n", "t", 4))
    signature = Signature(inputs=(x, y), outputs=())
    shapes = {"x": (5, 7), "y": (5, 7, 4)}
    assert bound(signature, Workload(batch=5), shapes) == Workload(batch=5, lengths=(("t", 7),))
    kept = Workload(batch=5, lengths=(("other", 3),))
    assert dict(bound(signature, kept, shapes).lengths) == {"other": 3, "t": 7}
