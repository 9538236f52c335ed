"""What the int8 techniques share: refusals, names of layers, what stays in float with a layer, calibration items."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given as drawn
from hypothesis import strategies as st
from onnx import TensorProto, helper

from trimtab.core import plugins
from trimtab.core.errors import BadInput, Refused
from trimtab.core.machine import machine
from trimtab.core.values import Model, Settings, Signature, Step, Task, TensorSpec, Variant, options
from trimtab.formats.onnx import save
from trimtab.techniques.int8 import (
    SEPARATOR,
    Calibrated,
    attends,
    feeds,
    followers,
    is_quantized,
    joined,
    kept,
    options_of,
    quantized,
    reduces,
    refusal,
    run_onnx,
    saturates,
)

EMPTY = Signature(inputs=(), outputs=())

IR = """<?xml version="1.0"?><net name="n" version="11"><layers>
<layer id="0" name="x" type="Parameter" version="opset1"><data shape="1,4" element_type="{given}"/><output>
<port id="0" precision="U8"><dim>1</dim><dim>4</dim></port></output></layer>
<layer id="1" name="w" type="Const" version="opset1"><data element_type="{held}" shape="4" offset="0" size="4"/><output>
<port id="0"><dim>4</dim></port></output></layer></layers><edges/></net>"""


class TestQuantized:
    @pytest.mark.parametrize(
        "kind",
        ["QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "MatMulInteger", "MatMulNBits",
         "MatMulBnb4", "QAttention", "DynamicQuantizeLSTM", "MatMulIntegerToFloat", "GatherBlockQuantized"],
    )  # fmt: skip
    def test_every_operator_on_integers_is_seen(self, kind: str, tmp_path: Path) -> None:
        graph = helper.make_graph([helper.make_node(kind, [], ["y"])], "g", [], [])
        onnx.save(helper.make_model(graph), tmp_path / "m.onnx")
        assert is_quantized(
            Model(format="onnx", path=tmp_path / "m.onnx", digest="", signature=Signature(inputs=(), outputs=()))
        )

    @pytest.mark.parametrize(
        ("given", "held", "expected"),
        [("f32", "f32", False), ("u8", "f32", False), ("f32", "u8", True), ("f32", "i8", True), ("f32", "u4", True),
         ("i64", "i64", False), ("f32", "nf4", True)],
    )  # fmt: skip
    def test_an_openvino_model_is_by_its_weights_not_by_its_inputs(
        self, given: str, held: str, expected: bool, tmp_path: Path
    ) -> None:
        (tmp_path / "m.xml").write_text(IR.format(given=given, held=held))
        (tmp_path / "m.bin").write_bytes(bytes(4))
        model = Model(format="openvino", path=tmp_path / "m.xml", digest="", signature=EMPTY)
        assert is_quantized(model) is expected

    def test_refusals_name_the_technique_and_what_to_do(self, given: Any) -> None:
        variant, task = given("cnn")
        assert refusal(variant, task, "a", ("onnx",), calibrates=True) is None
        reason = refusal(variant, task, "a", ("openvino", "torch"), calibrates=False)
        assert reason == "a needs a model in openvino or torch format, this one is onnx: export it first"
        assert "give --data" in str(refusal(variant, Task(), "a", ("onnx",), calibrates=True))
        assert refusal(variant, Task(), "a", ("onnx",), calibrates=False) is None
        state = TensorSpec(name="h", dtype="float32", shape=(1,), role="state", fed_by="y")
        stateful = replace(variant.model.signature, inputs=(*variant.model.signature.inputs, state))
        recurrent = replace(variant, model=replace(variant.model, signature=stateful))
        assert "try dynamic-int8" in str(refusal(recurrent, task, "a", ("onnx",), calibrates=True))
        assert refusal(recurrent, task, "a", ("onnx",), calibrates=False) is None


class TestRange:
    @pytest.mark.parametrize(
        ("system", "flags", "expected"),
        [
            ("Linux 6.1 x86_64", ("avx2",), True),
            ("Linux 6.1 x86_64", ("avx2", "avx512f", "avx512_vnni"), False),
            ("Linux 6.1 x86_64", ("avx2", "avx_vnni"), False),
            ("Linux 6.1 x86_64", ("amx_int8",), False),
            ("Linux 6.1 aarch64", ("asimd",), False),
        ],
    )
    def test_knows_where_8_bit_products_overflow(
        self, system: str, flags: tuple[str, ...], expected: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        found = replace(machine(), system=system, flags=flags)
        assert saturates(found) is expected
        monkeypatch.setattr("trimtab.techniques.int8.machine", lambda: found)
        assert reduces(None) is expected
        assert (reduces(True), reduces(False)) == (True, False)


NAMES = st.text(st.characters(blacklist_characters=SEPARATOR, blacklist_categories=("Cs", "Zs", "Cc")), min_size=1)


class TestNames:
    @drawn(st.lists(NAMES, unique=True, max_size=8), st.data())
    def test_names_of_any_language_come_back_in_the_order_of_the_model(self, names: list[str], data: Any) -> None:
        chosen = data.draw(st.permutations(names))[: data.draw(st.integers(0, len(names)))]
        assert kept(joined(chosen, names)) == tuple(name for name in names if name in chosen)

    def test_spaces_around_and_nothing_between_are_left_out(self) -> None:
        assert kept(" a/b , c |  | d;e ") == ("a/b , c", "d;e")
        assert kept("") == ()

    def test_a_layer_that_does_not_exist_is_told_with_some_that_do(self, given: Any, tmp_path: Path) -> None:
        variant, _ = given("cnn")
        layers = tuple(f"layer{number}" for number in range(12))
        calibrated = Calibrated(
            original=None, layers=layers, build=lambda keep: None, run=lambda made, given: [],
            save=lambda made, folder: variant.model, settings=variant.settings,
        )  # fmt: skip
        step = Step(technique="a")
        with pytest.raises(BadInput, match=r"no layer named 'other' to keep; its layers are: layer0, .*layer9, …$"):
            quantized(variant, calibrated, step, ("layer3", "other"), tmp_path)
        made = quantized(variant, calibrated, step, ("layer3",), tmp_path)
        assert (made.steps, made.settings) == ((step,), variant.settings)


# a → relu → b → add → relu2 → c; a shortcut from relu to add, another one from relu2 to add2
CONSUMERS = {
    "a": ["relu"],
    "relu": ["b", "add"],
    "b": ["add"],
    "add": ["relu2"],
    "relu2": ["c", "add2"],
    "c": ["add2"],
    "add2": ["end"],
}


class TestFollowers:
    @pytest.mark.parametrize(
        ("layer", "expected"),
        [("a", {"relu", "add", "relu2"}), ("b", {"add", "relu2"}), ("c", {"add2", "end"}), ("absent", set())],
    )
    def test_what_follows_up_to_the_next_layers_and_past_one_merge(self, layer: str, expected: set[str]) -> None:
        assert followers(layer, CONSUMERS, "abc", {"add", "add2"}) == expected

    def test_without_merges_everything_up_to_the_next_layers(self) -> None:
        assert followers("a", CONSUMERS, "abc", ()) == {"relu", "add", "relu2", "add2", "end"}

    def test_a_circle_ends(self) -> None:
        assert followers("a", {"a": ["p"], "p": ["q"], "q": ["p"]}, ("a",), {"p"}) == {"p", "q"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Knobs:
    """A technique's options."""

    one: int = 1
    two: str | None = None
    three: bool = True


class TestOptions:
    def test_only_what_differs_from_the_defaults_is_said(self) -> None:
        assert options_of(Knobs()) == ()
        assert options_of(Knobs(one=2, three=False)) == options(one=2, three=False)

    def test_what_was_decided_at_run_time_takes_its_place(self) -> None:
        assert options_of(Knobs(one=2), two="x", one=1) == options(two="x")


class TestItems:
    def test_no_more_than_were_asked_for(self, given: Any) -> None:
        variant, task = given("cnn")
        assert [len(feed["x"]) for feed in feeds(variant, task, 10)] == [1] * 10
        assert len(list(feeds(variant, task, 1000))) == 24

    def fixed(self, variant: Variant, size: int) -> Variant:
        spec = variant.model.signature.inputs[0]
        signature = replace(variant.model.signature, inputs=(replace(spec, shape=(size, *spec.shape[1:])),))
        return replace(variant, model=replace(variant.model, signature=signature))

    def test_a_fixed_batch_gets_whole_batches_only(self, given: Any) -> None:
        variant, task = given("cnn")
        assert [len(feed["x"]) for feed in feeds(self.fixed(variant, 5), task, 300)] == [5, 5, 5, 5]
        assert [len(feed["x"]) for feed in feeds(self.fixed(variant, 5), task, 6)] == [5, 5]

    def test_less_than_one_batch_is_refused(self, given: Any) -> None:
        variant, task = given("cnn")
        with pytest.raises(Refused, match="takes 25 items at a time, there are 24 to calibrate on: give more data"):
            list(feeds(self.fixed(variant, 25), task, 300))

    def test_no_data_is_refused(self, given: Any) -> None:
        variant, _ = given("cnn")
        with pytest.raises(Refused, match="give --data"):
            next(feeds(variant, Task(), 10))

    def test_preprocessing_that_the_model_took_over_is_not_done_again(self, given: Any) -> None:
        variant, task = given("cnn")
        double = Step(technique="scale", options=options(divisor=0.5))
        prepared = replace(task, preprocessing=(double,))
        (plain,) = feeds(variant, task, 1)
        (done,) = feeds(variant, prepared, 1)
        (absorbed,) = feeds(replace(variant, absorbed=(double,)), prepared, 1)
        np.testing.assert_allclose(done["x"], 2 * plain["x"])
        np.testing.assert_array_equal(absorbed["x"], plain["x"])


class TestOnnx:
    def products(self, *weights: str, softmax: bool = True) -> onnx.ModelProto:
        nodes = [helper.make_node("MatMul", ["x", "y"], ["s"])]
        nodes += [helper.make_node("Softmax", ["s"], ["p"])] if softmax else []
        held = [helper.make_tensor(name, TensorProto.FLOAT, [1], [1.0]) for name in weights]
        return helper.make_model(helper.make_graph(nodes, "g", [], [], held))

    def test_attention_is_a_softmax_and_a_product_of_two_computed_matrices(self) -> None:
        assert attends(self.products())
        assert not attends(self.products("y"))
        assert not attends(self.products(softmax=False))

    def test_a_weight_may_be_a_constant_of_the_graph(self) -> None:
        proto = self.products()
        proto.graph.node.insert(0, helper.make_node("Constant", [], ["y"], value_float=1.0))
        assert not attends(proto)

    def test_runs_in_memory_as_the_file_does(self, given: Any, outputs: Any) -> None:
        variant, task = given("cnn")
        proto = onnx.load(variant.model.path)
        items = [{"x": np.load(task.split("select").inputs[0].path)}]
        ((answer,),) = run_onnx(proto, items, threads=1)
        np.testing.assert_array_equal(answer, outputs(variant, task))


def test_every_technique_that_calibrates_keeps_the_settings_of_its_own_engine(given: Any, context: Any) -> None:
    variant, task = given("cnn")
    foreign = variant.on(Settings(runtime="openvino", precision="fp32", threads=1))
    made = plugins.make("techniques", "dynamic-int8").apply(foreign, context(foreign, task))
    assert made.settings == Settings(runtime="onnxruntime", threads=1)
    again = plugins.make("techniques", "dynamic-int8").apply(variant, context(variant, task, "again"))
    assert again.settings == variant.settings
    assert save(onnx.load(again.model.path), again.model.path.parent / "copy.onnx").digest == made.model.digest
