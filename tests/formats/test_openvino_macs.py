from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from trimtab.core.values import Workload
from trimtab.formats import onnx as onnx_format
from trimtab.formats import openvino as openvino_format
from trimtab.formats.openvino_macs import contents, count_macs, count_parameters, is_quantized


class Ir:
    """Writes an OpenVINO graph by hand, in the form that openvino.save_model gives it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.layers: list[str] = []
        self.edges: list[str] = []
        self.shapes: dict[int, list[int]] = {}
        self.weights = b""

    def add(self, kind: str, data: str, inputs: list[int], shape: list[int], extra: str = "") -> int:
        number = len(self.layers)
        ports = "".join(f'<port id="{i}">{_dims(self.shapes[source])}</port>' for i, source in enumerate(inputs))
        self.layers.append(
            f'<layer id="{number}" name="{kind}_{number}" type="{kind}" version="opset1"><data {data}/>'
            f'<input>{ports}</input><output><port id="{len(inputs)}">{_dims(shape)}</port></output>{extra}</layer>'
        )
        for port, source in enumerate(inputs):
            start = self.layers[source].count("<port ") - 1
            self.edges.append(f'<edge from-layer="{source}" from-port="{start}" to-layer="{number}" to-port="{port}"/>')
        self.shapes[number] = shape
        return number

    def parameter(self, *shape: int) -> int:
        return self.add("Parameter", f'shape="{",".join(map(str, shape))}" element_type="f32"', [], list(shape))

    def const(self, content: np.ndarray, kind: str) -> int:
        where = f'offset="{len(self.weights)}" size="{content.nbytes}"'
        self.weights += content.tobytes()
        shape = ", ".join(map(str, content.shape))
        return self.add("Const", f'element_type="{kind}" shape="{shape}" {where}', [], list(content.shape))

    def zeros(self, *shape: int) -> int:
        return self.const(np.ones(shape, np.float32), "f32")

    def root(self) -> ElementTree.Element:
        (self.folder / "m.bin").write_bytes(self.weights)
        body = f"<layers>{''.join(self.layers)}</layers><edges>{''.join(self.edges)}</edges>"
        return ElementTree.fromstring(f'<net name="n" version="11">{body}</net>')

    def macs(self, sizes=None):
        return count_macs(self.root(), self.folder / "m.bin", sizes)


def _dims(shape: list[int]) -> str:
    return "".join(f"<dim>{size}</dim>" for size in shape)


@pytest.fixture
def ir(tmp_path: Path) -> Ir:
    return Ir(tmp_path)


class TestOperators:
    """Hand counts of single layers."""

    @pytest.mark.parametrize(
        ("macs", "kind", "data", "shapes", "output"),
        [
            (6 * 25 * 27, "Convolution", "", [[1, 3, 7, 7], [6, 3, 3, 3]], [1, 6, 5, 5]),
            (6 * 25 * 18, "GroupConvolution", "", [[1, 4, 7, 7], [2, 3, 2, 3, 3]], [1, 6, 5, 5]),
            (4 * 49 * 54, "ConvolutionBackpropData", "", [[1, 4, 7, 7], [4, 6, 3, 3]], [1, 6, 15, 15]),
            (4 * 49 * 27, "GroupConvolutionBackpropData", "", [[1, 4, 7, 7], [2, 2, 3, 3, 3]], [1, 6, 15, 15]),
            (5 * 7 * 3, "MatMul", 'transpose_a="true" transpose_b="true"', [[3, 5], [7, 3]], [5, 7]),
            (2 * 5 * 7 * 3, "MatMul", "", [[2, 5, 3], [2, 3, 7]], [2, 5, 7]),
            (2 * 3 * 4 * 5, "Einsum", 'equation="bij,bjk->bik"', [[2, 3, 4], [2, 4, 5]], [2, 3, 5]),
            (
                18 * 32 * 14,
                "LSTMSequence",
                "",
                [[2, 9, 6], [2, 1, 8], [2, 1, 8], [2], [1, 32, 6], [1, 32, 8], [1, 32]],
                [2, 1, 9, 8],
            ),
            (18 * 24 * 14, "GRUSequence", "", [[2, 9, 6], [2, 1, 8], [2], [1, 24, 6], [1, 24, 8]], [2, 1, 9, 8]),
            (2 * 32 * 14, "LSTMCell", "", [[2, 6], [2, 8], [2, 8], [32, 6], [32, 8]], [2, 8]),
            (
                2 * 4 * 5 * 7 * 14,
                "ScaledDotProductAttention",
                "",
                [[2, 4, 5, 8], [2, 4, 7, 8], [2, 4, 7, 6]],
                [2, 4, 5, 6],
            ),
            (9 * 25 * 36, "DeformableConvolution", "", [[1, 4, 7, 7], [1, 18, 5, 5], [9, 4, 3, 3]], [1, 9, 5, 5]),
        ],
    )
    def test_hand_counts(self, ir, macs, kind, data, shapes, output):
        ir.add(kind, data, [ir.parameter(*shape) for shape in shapes], output)
        found = ir.macs()
        assert (found.macs, found.nonzero, found.coverage) == (macs, macs, 1.0)

    def test_elementwise_is_listed_apart(self, ir):
        ir.add("ReLU", "", [ir.parameter(1, 4)], [1, 4])
        found = ir.macs()
        assert (found.macs, found.coverage, found.excluded) == (0, 1.0, (("ReLU", 1),))

    def test_a_free_dimension_is_uncounted_until_its_size_is_given(self, ir):
        number = ir.add("MatMul", "", [ir.parameter(-1, 3), ir.zeros(3, 7)], [-1, 7])
        assert (ir.macs().coverage, ir.macs().macs) == (0.0, 0)
        assert ir.macs({f"MatMul_{number}": (((5, 3), (3, 7)), ((5, 7),))}).macs == 5 * 3 * 7

    def test_operators_of_an_extension_are_uncounted(self, ir):
        ir.add("Mystery", "", [ir.parameter(1, 4)], [1, 4])
        ir.layers[-1] = ir.layers[-1].replace("opset1", "extension")
        assert [layer.operator for layer in ir.macs().uncounted] == ["Mystery"]

    def test_a_loop_counts_every_slice(self, ir, tmp_path):
        inner = Ir(tmp_path)
        inner.add("MatMul", "", [inner.parameter(1, 4), inner.parameter(4, 4)], [1, 4])
        body = f"<body><layers>{''.join(inner.layers)}</layers><edges>{''.join(inner.edges)}</edges></body>"
        ports = (
            '<port_map><input axis="0" external_port_id="0" internal_layer_id="0" stride="1" part_size="1"/></port_map>'
        )
        ir.add("TensorIterator", "", [ir.parameter(9, 4)], [9, 4], extra=ports + body)
        found = ir.macs()
        assert found.macs == 9 * 16
        assert found.layers[0].name == "TensorIterator_1/MatMul_2"


class TestQuantized:
    def matmul(self, ir: Ir) -> None:
        """int8 weight → Convert → Subtract zero point → Multiply scale → FakeQuantize-d input."""
        weight = np.full((4, 6), 3, np.int8)
        weight[0] = 9
        low = ir.add("Convert", "", [ir.const(weight, "i8")], [4, 6])
        zero = ir.add("Convert", "", [ir.const(np.full((4, 1), 3, np.int8), "i8")], [4, 1])
        shifted = ir.add("Subtract", "", [low, zero], [4, 6])
        scaled = ir.add("Multiply", "", [shifted, ir.const(np.ones((4, 1), np.float32), "f32")], [4, 6])
        bounds = [ir.const(np.full((1, 6), 1.0, np.float32), "f32") for _ in range(4)]
        x = ir.add("FakeQuantize", 'levels="256"', [ir.parameter(2, 6), *bounds], [2, 6])
        ir.add("MatMul", 'transpose_b="true"', [x, scaled], [2, 4])

    def test_counts_as_much_as_the_float_net_and_sees_zeros_at_the_zero_point(self, ir):
        self.matmul(ir)
        found = ir.macs()
        assert (found.macs, found.nonzero) == (2 * 4 * 6, 2 * 6)

    def test_scales_zero_points_and_bounds_are_no_parameters(self, ir, tmp_path):
        self.matmul(ir)
        assert count_parameters(ir.root(), tmp_path / "m.bin") == (("int8", 24),)
        assert is_quantized(ir.root()) == "static, FakeQuantize"

    def test_a_float_model_is_not_quantized(self, ir, tmp_path):
        ir.add("MatMul", "", [ir.parameter(2, 6), ir.zeros(6, 4)], [2, 4])
        assert is_quantized(ir.root()) is None
        found = contents(ir.root(), (tmp_path / "m.xml", tmp_path / "m.bin"))
        assert (found.operators, found.parameters) == ((("MatMul", 1),), (("float32", 24),))

    def test_zero_weights_are_left_out_of_the_second_count(self, ir):
        weight = np.ones((6, 3, 3, 3), np.float16)
        weight[1:3] = 0
        stored = ir.add("Convert", "", [ir.const(weight, "f16")], [6, 3, 3, 3])
        ir.add("Convolution", "", [ir.parameter(1, 3, 7, 7), stored], [1, 6, 5, 5])
        assert (ir.macs().macs, ir.macs().nonzero) == (6 * 25 * 27, 4 * 25 * 27)


@pytest.mark.parametrize("free", [False, True])
def test_what_openvino_writes_counts_as_much_as_the_onnx_model(tmp_path, free):
    openvino = pytest.importorskip("openvino")
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1] * 4, kernel_shape=[3, 3]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "v"], ["y"]),
    ]
    weights = {"w": rng.normal(size=(8, 3, 3, 3)), "v": rng.normal(size=(8, 10))}
    held = [numpy_helper.from_array(content.astype(np.float32), name) for name, content in weights.items()]
    shape = ["n", 3, "side", "side"] if free else [2, 3, 12, 12]
    given = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    made = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [shape[0], 10])]
    proto = helper.make_model(
        helper.make_graph(nodes, "net", given, made, held), opset_imports=[helper.make_opsetid("", 17)]
    )
    model = onnx_format.save(proto, tmp_path / "m.onnx")
    workload = Workload(batch=2, lengths=(("side", 12),))
    converted = openvino_format.save(openvino.convert_model(model.path), tmp_path, model.signature)
    found = openvino_format.OpenVinoFormat().work(converted, workload)
    assert found.macs == onnx_format.OnnxFormat().work(model, workload).macs == 2 * (144 * 8 * 27 + 80)
    assert found.coverage == 1.0
    assert openvino_format.OpenVinoFormat().contents(converted).parameters == (("float32", 8 * 27 + 80),)


class TestSubgraphs:
    def bodied(self, ir: Ir, tmp_path: Path, kind: str, tags: dict[str, int], ports: str = "") -> None:
        """Add a layer with bodies by tag, each one product of [1, 4] with that many columns."""
        bodies = ""
        for tag, columns in tags.items():
            inner = Ir(tmp_path)
            inner.add("MatMul", "", [inner.parameter(1, 4), inner.parameter(4, columns)], [1, columns])
            bodies += f"<{tag}><layers>{''.join(inner.layers)}</layers><edges>{''.join(inner.edges)}</edges></{tag}>"
        ir.add(kind, "", [ir.parameter(9, 4)], [9, 4], extra=f"<port_map>{ports}</port_map>{bodies}")

    def test_of_two_branches_the_larger_counts(self, ir, tmp_path):
        self.bodied(ir, tmp_path, "If", {"then_body": 5, "else_body": 50})
        found = ir.macs()
        assert (found.macs, dict(found.excluded)) == (4 * 50, {"If": 1})
        assert found.layers[0].name == "If_1/MatMul_2"

    @pytest.mark.parametrize(
        ("ports", "turns"),
        [
            ('<input axis="0" external_port_id="0" stride="1" part_size="3"/>', 3),
            ('<input axis="0" external_port_id="0" stride="-1"/>', 9),
            ('<input external_port_id="0"/>', None),
        ],
    )
    def test_the_turns_of_a_loop_are_those_of_its_slices(self, ir, tmp_path, ports, turns):
        self.bodied(ir, tmp_path, "Loop", {"body": 4}, ports)
        found = ir.macs()
        assert (found.macs, found.coverage) == ((turns * 16, 1.0) if turns else (0, 0.0))

    def test_weights_inside_count_as_parameters(self, ir, tmp_path):
        inner = Ir(tmp_path)
        inner.add("MatMul", "", [inner.parameter(1, 4), inner.zeros(4, 5)], [1, 5])
        body = f"<body><layers>{''.join(inner.layers)}</layers><edges>{''.join(inner.edges)}</edges></body>"
        ir.add("TensorIterator", "", [ir.parameter(9, 4)], [9, 5], extra=body)
        found = contents(ir.root(), (tmp_path / "m.xml", tmp_path / "m.bin"))
        assert (found.parameters, found.control_flow) == ((("float32", 20),), ("TensorIterator",))

    def test_without_a_body_it_is_uncounted_not_free(self, ir):
        ir.add("Loop", "", [ir.parameter(9, 4)], [9, 4])
        assert [layer.operator for layer in ir.macs().uncounted] == ["Loop"]


class TestOddGraphs:
    @pytest.mark.parametrize(
        ("macs", "kind", "data", "shapes", "output"),
        [
            (2 * 8 * (6 + 8), "RNNCell", "", [[2, 6], [2, 8], [8, 6], [8, 8]], [2, 8]),
            (2 * 24 * (6 + 8), "GRUCell", "", [[2, 6], [2, 8], [24, 6], [24, 8]], [2, 8]),
            (18 * 8 * 14, "RNNSequence", "", [[2, 9, 6], [2, 1, 8], [2], [1, 8, 6], [1, 8, 8]], [2, 1, 9, 8]),
            (6, "MatMul", "", [[6], [6]], []),
            (6, "MatMul", 'transpose_a="true"', [[6], [6]], []),
            (0, "MatMul", "", [[0, 6], [6, 3]], [0, 3]),
            (0, "Einsum", 'equation="ij,ij->ij"', [[2, 3], [2, 3]], [2, 3]),
            (2 * 6 * 5 * 9, "Convolution", "", [[2, 3, 7], [6, 3, 3]], [2, 6, 5]),
        ],
    )
    def test_hand_counts(self, ir, macs, kind, data, shapes, output):
        ir.add(kind, data, [ir.parameter(*shape) for shape in shapes], output)
        assert (ir.macs().macs, ir.macs().coverage) == (macs, 1.0)

    @pytest.mark.parametrize(
        ("kind", "data", "shapes", "reason"),
        [
            ("Einsum", 'equation="ij,jk,kl->il"', [[2, 3], [3, 4], [4, 5]], "no single order"),
            ("MatMul", "", [], "not as they should be"),
            ("Convolution", "", [[1, 3, 7, 7]], "not as they should be"),
            ("DFT", "", [[2, 3]], "there is no rule"),
            ("MatMul", "", [[-1, 3], [3, 4]], "name its length in the workload"),
        ],
    )
    def test_what_can_not_be_counted_says_why(self, ir, kind, data, shapes, reason):
        ir.add(kind, data, [ir.parameter(*shape) for shape in shapes], [2, 5])
        (layer,) = ir.macs().uncounted
        assert reason in layer.reason

    def test_an_input_of_small_integers_does_not_make_a_model_quantized(self, ir):
        ir.add("Parameter", 'shape="1,4" element_type="u8"', [], [1, 4])
        assert is_quantized(ir.root()) is None
        ir.const(np.zeros((2, 4), np.uint8), "u8")
        assert is_quantized(ir.root()) == "weights only (uint8)"

    def test_packed_weights_count_as_many_as_they_stand_for_and_as_dense(self, ir, tmp_path):
        packed = ir.add("Const", 'element_type="u4" shape="4, 6" offset="0" size="12"', [], [4, 6])
        low = ir.add("Convert", "", [packed], [4, 6])
        scaled = ir.add("Multiply", "", [low, ir.const(np.ones((4, 1), np.float32), "f32")], [4, 6])
        ir.add("MatMul", 'transpose_b="true"', [ir.parameter(2, 6), scaled], [2, 4])
        assert count_parameters(ir.root(), tmp_path / "m.bin") == (("uint4", 24),)
        assert (ir.macs().macs, ir.macs().nonzero) == (48, 48)
        assert is_quantized(ir.root()) == "weights only (uint4)"

    def test_a_weight_that_is_cut_off_leaves_its_layer_uncounted(self, ir):
        ir.add("MatMul", "", [ir.parameter(2, 6), ir.zeros(6, 4)], [2, 4])
        ir.weights = ir.weights[:10]
        (layer,) = ir.macs().uncounted
        assert "not as they should be" in layer.reason
