"""The graph counter against hand counts: https://arxiv.org/abs/1512.03385, 1801.04381 and 1810.04805 spelled out."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from trimtab.core.values import Workload
from trimtab.formats.onnx_macs import count_macs

RESNET50 = 4_089_184_256
MOBILENET_V2 = 300_774_272
BERT_BASE = 11_174_217_216


class Net:
    """Writes graphs down: each method adds a node and returns the name of its output."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.count = 0

    def op(self, kind: str, *inputs: str, outputs: int = 1, domain: str = "", **attributes: object) -> str:
        self.count += 1
        names = [f"v{self.count}_{index}" for index in range(outputs)]
        node = helper.make_node(kind, inputs, names, name=f"{kind}_{self.count}", domain=domain, **attributes)
        self.nodes.append(node)
        return names[0]

    def zeros(self, *shape: int) -> str:
        """A weight that takes no space: made by the graph itself."""
        return self.op("ConstantOfShape", self.constant(np.array(shape, np.int64)))

    def constant(self, content: np.ndarray) -> str:
        self.count += 1
        self.weights.append(numpy_helper.from_array(content, f"w{self.count}"))
        return f"w{self.count}"

    def conv(self, x: str, channels: tuple[int, int], kernel: int, stride: int = 1, group: int = 1) -> str:
        before, after = channels
        pads = [kernel // 2] * 4
        weight = self.zeros(after, before // group, kernel, kernel)
        return self.op("Conv", x, weight, strides=[stride] * 2, pads=pads, group=group, kernel_shape=[kernel] * 2)

    def linear(self, x: str, before: int, after: int) -> str:
        return self.op("Add", self.op("MatMul", x, self.zeros(before, after)), self.zeros(after))

    def model(self, inputs: dict[str, list[int | str]], output: str, kind: int = TensorProto.FLOAT) -> onnx.ModelProto:
        given = [helper.make_tensor_value_info(name, kind, shape) for name, shape in inputs.items()]
        end = helper.make_empty_tensor_value_info(output)
        graph = helper.make_graph(self.nodes, "net", given, [end], self.weights)
        opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def resnet50() -> onnx.ModelProto:
    """Version 1.5: the stride of a stage is in the 3×3 convolution."""
    net = Net()
    x = net.op("MaxPool", net.conv("x", (3, 64), 7, 2), kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    before = 64
    for stage, (blocks, width) in enumerate([(3, 64), (4, 128), (6, 256), (3, 512)]):
        for block in range(blocks):
            stride = 2 if block == 0 and stage > 0 else 1
            y = net.op("Relu", net.conv(x, (before, width), 1))
            y = net.op("Relu", net.conv(y, (width, width), 3, stride))
            y = net.conv(y, (width, 4 * width), 1)
            x = net.op("Add", y, net.conv(x, (before, 4 * width), 1, stride) if block == 0 else x)
            before = 4 * width
    x = net.op("Flatten", net.op("GlobalAveragePool", x))
    return net.model({"x": ["batch", 3, 224, 224]}, net.op("Gemm", x, net.zeros(1000, 2048), transB=1))


def mobilenet_v2() -> onnx.ModelProto:
    net = Net()
    x, before = net.conv("x", (3, 32), 3, 2), 32
    plan = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
    for expansion, after, repeats, stride in plan:
        for index in range(repeats):
            hidden = before * expansion
            y = net.conv(x, (before, hidden), 1) if expansion != 1 else x
            y = net.conv(y, (hidden, hidden), 3, stride if index == 0 else 1, group=hidden)
            y = net.conv(y, (hidden, after), 1)
            x = net.op("Add", x, y) if index > 0 else y
            before = after
    x = net.op("Flatten", net.op("GlobalAveragePool", net.conv(x, (320, 1280), 1)))
    return net.model({"x": ["batch", 3, 224, 224]}, net.op("Gemm", x, net.zeros(1280, 1000)))


def bert_base() -> onnx.ModelProto:
    """Shapes of the heads are computed in the graph, as exporters do."""
    net = Net()
    ids = {"ids": ["batch", "tokens"]}
    x = net.op("Gather", net.zeros(30522, 768), "ids")
    sizes = [net.op("Gather", net.op("Shape", "ids"), net.constant(np.array([axis], np.int64))) for axis in (0, 1)]
    split = net.op("Concat", *sizes, net.constant(np.array([12, 64], np.int64)), axis=0)
    join = net.op("Concat", *sizes, net.constant(np.array([768], np.int64)), axis=0)
    for _ in range(12):
        q, k, v = (net.op("Reshape", net.linear(x, 768, 768), split) for _ in range(3))
        q, v = (net.op("Transpose", y, perm=[0, 2, 1, 3]) for y in (q, v))
        scores = net.op("Softmax", net.op("MatMul", q, net.op("Transpose", k, perm=[0, 2, 3, 1])))
        y = net.op("Transpose", net.op("MatMul", scores, v), perm=[0, 2, 1, 3])
        x = net.op("Add", x, net.linear(net.op("Reshape", y, join), 768, 768))
        x = net.op("Add", x, net.linear(net.op("Gelu", net.linear(x, 768, 3072)), 3072, 768))
    first = net.op("Gather", x, net.constant(np.array(0, np.int64)), axis=1)
    pooled = net.op("Tanh", net.op("Gemm", first, net.zeros(768, 768)))
    return net.model(ids, net.op("Gemm", pooled, net.zeros(768, 2)), TensorProto.INT64)


class TestGoldenValues:
    @pytest.mark.parametrize(
        ("build", "lengths", "macs"),
        [
            (resnet50, (), RESNET50),
            (mobilenet_v2, (), MOBILENET_V2),
            (bert_base, (("tokens", 128),), BERT_BASE),
        ],
    )
    def test_meets_the_hand_count_exactly(self, build, lengths, macs):
        proto = build()
        before = proto.SerializeToString()
        found = count_macs(proto, Workload(lengths=lengths))
        assert (found.macs, found.coverage) == (macs, 1.0)
        assert proto.SerializeToString() == before

    def test_scales_with_the_batch(self):
        assert count_macs(resnet50(), Workload(batch=4)).macs == 4 * RESNET50

    def test_layers_add_up_and_elementwise_is_listed_apart(self):
        found = count_macs(resnet50(), Workload())
        assert len(found.layers) == 54
        assert sum(layer.macs for layer in found.layers) == RESNET50
        assert dict(found.excluded)["Relu"] == 32

    def test_says_what_it_lacks_instead_of_guessing(self):
        found = count_macs(bert_base(), Workload())
        assert (found.macs, found.coverage) == (0, 0.0)
        assert found.uncounted[0].reason.endswith("name its length in the workload")


def small_net() -> onnx.ModelProto:
    """Convolution, depthwise convolution, matrix product and Gemm with real weights."""
    rng = np.random.default_rng(0)
    net = Net()

    def weight(*shape: int) -> str:
        return net.constant(rng.normal(size=shape).astype(np.float32))

    x = net.op("Relu", net.op("Conv", "x", weight(8, 3, 3, 3), kernel_shape=[3, 3], pads=[1] * 4))
    x = net.op("Add", x, net.op("Conv", x, weight(8, 1, 3, 3), kernel_shape=[3, 3], pads=[1] * 4, group=8))
    x = net.op("Flatten", net.op("GlobalAveragePool", x))
    x = net.op("MatMul", x, weight(8, 16))
    proto = net.model({"x": ["batch", 3, 12, 12]}, net.op("Gemm", x, weight(16, 10), weight(10)))
    return onnx.shape_inference.infer_shapes(proto)


SMALL = 144 * (8 * 27 + 8 * 9) + 8 * 16 + 16 * 10


class TestQuantizedForms:
    """A quantized net does the same multiply-accumulates as the float net."""

    def test_float(self):
        assert count_macs(small_net(), Workload()).macs == SMALL

    def test_dynamic(self, tmp_path):
        quantization = pytest.importorskip("onnxruntime.quantization")
        onnx.save(small_net(), tmp_path / "float.onnx")
        quantization.quantize_dynamic(
            tmp_path / "float.onnx", tmp_path / "int8.onnx", op_types_to_quantize=["Conv", "MatMul", "Gemm"]
        )
        found = count_macs(onnx.load(tmp_path / "int8.onnx"), Workload())
        assert {layer.operator for layer in found.layers} == {"ConvInteger", "MatMulInteger"}
        assert (found.macs, found.coverage) == (SMALL, 1.0)

    @pytest.mark.parametrize("form", ["QDQ", "QOperator"])
    @pytest.mark.parametrize("per_channel", [False, True])
    def test_static(self, tmp_path, form, per_channel):
        quantization = pytest.importorskip("onnxruntime.quantization")
        onnx.save(small_net(), tmp_path / "float.onnx")

        class Reader(quantization.CalibrationDataReader):
            left = 2

            def get_next(self):
                self.left -= 1
                return (
                    {"x": np.random.default_rng(1).normal(size=(1, 3, 12, 12)).astype(np.float32)}
                    if self.left
                    else None
                )

        quantization.quantize_static(
            tmp_path / "float.onnx", tmp_path / "int8.onnx", Reader(),
            quant_format=quantization.QuantFormat[form], per_channel=per_channel,
        )  # fmt: skip
        proto = onnx.load(tmp_path / "int8.onnx")
        del proto.graph.value_info[:]  # what follows must not lean on shapes that the quantizer wrote down
        found = count_macs(proto, Workload())
        assert any("Linear" in node.op_type for node in proto.graph.node)
        assert (found.macs, found.coverage) == (SMALL, 1.0)

    @pytest.mark.parametrize("level", ["ORT_ENABLE_BASIC", "ORT_ENABLE_EXTENDED"])
    def test_fused_by_onnxruntime(self, tmp_path, level):
        runtime = pytest.importorskip("onnxruntime")
        options = runtime.SessionOptions()
        options.graph_optimization_level = getattr(runtime.GraphOptimizationLevel, level)
        options.optimized_model_filepath = str(tmp_path / "fused.onnx")
        runtime.InferenceSession(small_net().SerializeToString(), options, providers=["CPUExecutionProvider"])
        found = count_macs(onnx.load(tmp_path / "fused.onnx"), Workload())
        assert (found.macs, found.coverage) == (SMALL, 1.0)


def one(kind: str, shapes: list[list[int]], domain: str = "", outputs: int = 1, **attributes: object) -> int | None:
    """The MACs of a single node whose inputs have these shapes; an empty list stands for an absent input."""
    net = Net()
    names = [f"x{index}" if shape else "" for index, shape in enumerate(shapes)]
    net.op(kind, *names, outputs=outputs, domain=domain, **attributes)
    inputs = {name: shape for name, shape in zip(names, shapes, strict=True) if name}
    return count_macs(net.model(inputs, "v1_0"), Workload()).layers[0].macs


MS = "com.microsoft"


class TestOperators:
    """Hand counts of single nodes: output elements × products that are summed for each."""

    @pytest.mark.parametrize(
        ("macs", "kind", "shapes", "attributes"),
        [
            (2 * 6 * 5 * 5 * (2 * 3 * 3), "Conv", [[2, 4, 7, 7], [6, 2, 3, 3]], {"group": 2}),
            (1 * 4 * 10 * 3 * 5, "Conv", [[1, 3, 14], [4, 3, 5]], {}),
            (1 * 4 * 7 * 7 * (6 * 3 * 3), "ConvTranspose", [[1, 4, 7, 7], [4, 6, 3, 3]], {"strides": [2, 2]}),
            (5 * 7 * 3, "Gemm", [[3, 5], [3, 7]], {"transA": 1}),
            (2 * 4 * 5 * 7 * 6, "MatMul", [[2, 1, 5, 6], [4, 6, 7]], {}),
            (6, "MatMul", [[6], [6]], {}),
            (5 * 6, "MatMul", [[5, 6], [6]], {}),
            (2 * 3 * 4 * 5, "Einsum", [[2, 3, 4], [2, 4, 5]], {"equation": "bij,bjk->bik"}),
            (2 * 3 * 4 * 5 * 7, "Einsum", [[7, 2, 3, 4], [4, 5]], {"equation": "...ij,jk->...ik"}),
            (3 * 4 * 5, "Einsum", [[3, 4], [4, 5]], {"equation": "ij,jk"}),
            (0, "Einsum", [[3, 4], [3, 4]], {"equation": "ij,ij->ij"}),
            (0, "Einsum", [[3, 4]], {"equation": "ij->ji"}),
            (9 * 2 * 4 * 8 * (6 + 8), "LSTM", [[9, 2, 6], [1, 32, 6], [1, 32, 8]], {"hidden_size": 8}),
            (9 * 2 * 2 * 3 * 8 * (6 + 8), "GRU", [[9, 2, 6], [2, 24, 6], [2, 24, 8]], {"direction": "bidirectional"}),
            (9 * 2 * 8 * (6 + 8), "RNN", [[9, 2, 6], [1, 8, 6], [1, 8, 8]], {"hidden_size": 8}),
        ],
    )  # fmt: skip
    def test_standard(self, macs, kind, shapes, attributes):
        assert one(kind, shapes, **attributes) == macs

    @pytest.mark.parametrize(
        ("macs", "shapes", "attributes"),
        [
            (2 * 4 * 5 * 7 * (8 + 6), [[2, 4, 5, 8], [2, 4, 7, 8], [2, 4, 7, 6]], {}),
            (2 * 4 * 5 * 7 * (8 + 6), [[2, 5, 32], [2, 7, 16], [2, 7, 12]], {"q_num_heads": 4, "kv_num_heads": 2}),
            (
                2 * 4 * 1 * 10 * 16,
                [[2, 4, 1, 8], [2, 4, 1, 8], [2, 4, 1, 8], [], [2, 4, 9, 8], [2, 4, 9, 8]],
                {"outputs": 3},
            ),
        ],
    )
    def test_attention(self, macs, shapes, attributes):
        net = Net()
        names = [f"x{index}" if shape else "" for index, shape in enumerate(shapes)]
        net.op("Attention", *names, outputs=attributes.pop("outputs", 1), **attributes)
        proto = net.model({name: shape for name, shape in zip(names, shapes, strict=True) if name}, "v1_0")
        proto.opset_import[0].version = 23
        assert count_macs(proto, Workload()).macs == macs

    @pytest.mark.parametrize(
        ("macs", "kind", "shapes", "attributes"),
        [
            (2 * 5 * 12 * 36 + 2 * 4 * 5 * 5 * (3 + 3), "Attention", [[2, 5, 12], [12, 36]], {"num_heads": 4}),
            (2 * 4 * 5 * 7 * (3 + 2), "MultiHeadAttention", [[2, 5, 12], [2, 7, 12], [2, 7, 8]], {"num_heads": 4}),
            (2 * 4 * 5 * 5 * 6, "MultiHeadAttention", [[2, 5, 4, 3, 3]], {"num_heads": 4}),
            (2 * 4 * 5 * 7 * 6, "MultiHeadAttention", [[2, 5, 12], [2, 7, 4, 2, 3]], {"num_heads": 4}),
            (2 * 4 * 5 * 5 * 6, "GroupQueryAttention", [[2, 5, 24]], {"num_heads": 4, "kv_num_heads": 2}),
            (2 * 5 * 7 * 3, "FusedMatMul", [[2, 3, 5], [7, 3]], {"transA": 1, "transB": 1}),
            (5 * 7 * 3, "FusedGemm", [[5, 3], [7, 3]], {"transB": 1}),
            (1 * 6 * 5 * 5 * 27, "FusedConv", [[1, 3, 7, 7], [6, 3, 3, 3]], {"activation": "Relu"}),
            (2 * 5 * 7 * 64, "MatMulNBits", [[2, 5, 64], [7, 2, 16], [14]], {"K": 64, "N": 7, "block_size": 32}),
            (5 * 7 * 3, "DynamicQuantizeMatMul", [[5, 3], [3, 7], [1]], {}),
            (5 * 7 * 3, "QGemm", [[5, 3], [1], [1], [3, 7], [1], [1]], {}),
            (
                2 * 5 * 12 * 36 + 2 * 4 * 5 * 5 * 6,
                "QAttention",
                [[2, 5, 12], [12, 36], [36], [1], [1]],
                {"num_heads": 4},
            ),
            (9 * 2 * 4 * 8 * 14, "DynamicQuantizeLSTM", [[9, 2, 6], [1, 6, 32], [1, 8, 32]], {"hidden_size": 8}),
        ],
    )  # fmt: skip
    def test_of_onnxruntime(self, macs, kind, shapes, attributes):
        assert one(kind, shapes, MS, **attributes) == macs

    def test_an_operator_without_a_rule_is_uncounted_and_lowers_the_coverage(self):
        net = Net()
        y = net.op("MatMul", net.op("Mystery", "x", domain="acme"), net.zeros(4, 4))
        found = count_macs(net.model({"x": [2, 4]}, y), Workload())
        assert (found.macs, found.coverage) == (0, 0.0)
        assert [layer.operator for layer in found.uncounted] == ["acme.Mystery", "MatMul"]

    def test_shapes_written_in_the_file_help_past_an_unknown_operator(self):
        net = Net()
        middle = net.op("Mystery", "x", domain="acme")
        proto = net.model({"x": ["n", 4]}, net.op("MatMul", middle, net.zeros(4, 5)))
        proto.graph.value_info.append(helper.make_tensor_value_info(middle, TensorProto.FLOAT, ["n", 4]))
        found = count_macs(proto, Workload(batch=3))
        assert (found.macs, found.coverage) == (3 * 4 * 5, 0.5)


class TestSparsity:
    def test_zero_weights_are_left_out_of_the_second_count(self):
        net = Net()
        weight = np.ones((8, 3, 3, 3), np.float32)
        weight[:2] = 0
        found = count_macs(net.model({"x": [1, 3, 8, 8]}, net.op("Conv", "x", net.constant(weight))), Workload())
        assert (found.macs, found.nonzero) == (36 * 8 * 27, 36 * 6 * 27)

    def test_integer_weights_are_zero_at_their_zero_point(self):
        net = Net()
        weight = np.full((4, 2), 7, np.uint8)
        weight[0, :] = 9
        names = [net.constant(weight), net.constant(np.float32(0.1)), net.constant(np.uint8(7))]
        y = net.op("MatMul", "x", net.op("Transpose", net.op("DequantizeLinear", *names)))
        found = count_macs(net.model({"x": [3, 2]}, y), Workload())
        assert (found.macs, found.nonzero) == (3 * 8, 3 * 2)

    def test_products_of_activations_are_dense(self):
        net = Net()
        found = count_macs(net.model({"x": [3, 4], "y": [4, 5]}, net.op("MatMul", "x", "y")), Workload())
        assert found.nonzero == found.macs == 60


def body(nodes: list[onnx.NodeProto], inputs: list[str], outputs: list[str], kinds: dict[str, int] | None = None):
    def info(name: str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, (kinds or {}).get(name, TensorProto.FLOAT), None)

    return helper.make_graph(nodes, "body", [info(name) for name in inputs], [info(name) for name in outputs])


class TestControlFlow:
    def looped(self, trips: str, condition: list[onnx.NodeProto]) -> Net:
        net = Net()
        weight = net.constant(np.ones((4, 4), np.float32))
        kinds = {"i": TensorProto.INT64, "go": TensorProto.BOOL, "on": TensorProto.BOOL}
        nodes = [helper.make_node("MatMul", ["h", weight], ["h2"], name="step"), *condition]
        loop = body(nodes, ["i", "go", "h"], ["on", "h2"], kinds)
        net.op("Loop", trips or net.constant(np.array(6, np.int64)), "", "x", body=loop)
        return net

    def test_a_loop_counts_every_turn(self):
        net = self.looped("", [helper.make_node("Identity", ["go"], ["on"])])
        found = count_macs(net.model({"x": [2, 4]}, net.nodes[-1].output[0]), Workload())
        assert (found.macs, found.coverage) == (6 * 2 * 4 * 4, 1.0)
        assert found.layers[0].name == "Loop_3/step"

    def test_a_loop_that_may_end_early_is_uncounted(self):
        total = helper.make_node("ReduceSum", ["h2"], ["sum"], keepdims=0)
        test = helper.make_node("Cast", ["sum"], ["on"], to=TensorProto.BOOL)
        net = self.looped("", [total, test])
        found = count_macs(net.model({"x": [2, 4]}, net.nodes[-1].output[0]), Workload())
        assert (found.macs, found.coverage) == (0, 0.0)
        assert found.uncounted[0].reason == "it is in a loop of unknown length"

    def test_a_scan_counts_every_slice(self):
        net = Net()
        weight = net.constant(np.ones((4, 4), np.float32))
        nodes = [helper.make_node("MatMul", ["s", weight], ["t"]), helper.make_node("Add", ["h", "t"], ["h2"])]
        y = net.op("Scan", "h0", "x", outputs=2, num_scan_inputs=1, body=body(nodes, ["h", "s"], ["h2", "t"]))
        found = count_macs(net.model({"h0": [2, 4], "x": [9, 2, 4]}, y), Workload())
        assert found.macs == 9 * 2 * 4 * 4

    def test_of_two_branches_the_larger_counts(self):
        net = Net()
        weights = [net.constant(np.ones((4, size), np.float32)) for size in (5, 50)]
        branches = [body([helper.make_node("MatMul", ["x", name], [f"o{name}"])], [], [f"o{name}"]) for name in weights]
        y = net.op("If", "which", then_branch=branches[0], else_branch=branches[1])
        proto = net.model({"x": [2, 4]}, y)
        proto.graph.input.append(helper.make_tensor_value_info("which", TensorProto.BOOL, []))
        assert count_macs(proto, Workload()).macs == 2 * 4 * 50

    def test_a_branch_that_is_known_to_be_taken_counts_alone(self):
        net = Net()
        weights = [net.constant(np.ones((4, size), np.float32)) for size in (5, 50)]
        branches = [body([helper.make_node("MatMul", ["x", name], [f"o{name}"])], [], [f"o{name}"]) for name in weights]
        which = net.op("Equal", net.constant(np.array(1, np.int64)), net.constant(np.array(1, np.int64)))
        y = net.op("If", which, then_branch=branches[0], else_branch=branches[1])
        assert count_macs(net.model({"x": [2, 4]}, y), Workload()).macs == 2 * 4 * 5

    def test_functions_of_the_model_are_followed(self):
        net = Net()
        y = net.op("Twice", "x", net.zeros(4, 4), domain="mine")
        proto = net.model({"x": [2, 4]}, y)
        nodes = [helper.make_node("MatMul", ["a", "w"], ["b"]), helper.make_node("MatMul", ["b", "w"], ["c"])]
        opsets = [helper.make_opsetid("", 21)]
        proto.functions.append(helper.make_function("mine", "Twice", ["a", "w"], ["c"], nodes, opsets))
        proto.opset_import.append(helper.make_opsetid("mine", 1))
        assert count_macs(proto, Workload()).macs == 2 * 2 * 4 * 4

    @pytest.mark.parametrize("kind", ["If", "Loop", "Scan", "MatMulNBits", "Constant"])
    def test_a_node_that_lacks_its_attributes_is_uncounted_not_a_crash(self, kind):
        net = Net()
        net.op(kind, *([] if kind == "Constant" else ["x", "x", "x"]), domain="com.microsoft" if "Bits" in kind else "")
        found = count_macs(net.model({"x": [2, 4]}, "v1_0"), Workload())
        assert found.macs == 0
        assert found.coverage == (1.0 if kind == "Constant" else 0.0)

    def test_a_tensor_of_no_end_is_never_made(self):
        net = Net()
        size = net.constant(np.array([10**6, 10**6, 10**3], np.int64))
        y = net.op("Tile", net.op("Expand", net.constant(np.array([1], np.int64)), size), size)
        assert count_macs(net.model({"x": [1]}, net.op("Shape", y)), Workload()).macs == 0


RULES_OF_SUMS = [
    ("Conv", [[2, 4, 9], [6, 2, 3]], {"group": 2, "strides": [2]}),
    ("Conv", [[1, 3, 8, 9], [4, 3, 3, 2]], {"dilations": [2, 1], "strides": [1, 2]}),
    ("Conv", [[1, 2, 5, 6, 7], [3, 2, 2, 3, 1]], {}),
    ("ConvTranspose", [[2, 4, 5, 6], [4, 3, 3, 2]], {"strides": [2, 3]}),
    ("ConvTranspose", [[1, 4, 5], [4, 3, 3]], {"group": 2}),
    ("Gemm", [[3, 5], [7, 3]], {"transA": 1, "transB": 1}),
    ("MatMul", [[2, 1, 5, 6], [4, 6, 7]], {}),
    ("MatMul", [[6], [2, 6, 3]], {}),
    ("Einsum", [[2, 3, 4], [5, 4]], {"equation": "bij,kj->ki"}),
]


@pytest.mark.parametrize(("kind", "shapes", "attributes"), RULES_OF_SUMS)
@pytest.mark.parametrize("kept", [1.0, 0.4])
def test_ones_add_up_to_the_products(kind, shapes, attributes, kept):
    """With inputs of ones, weights of ones and zeros and no padding, the outputs add up to the non-zero MACs."""
    runtime = pytest.importorskip("onnxruntime")
    rng = np.random.default_rng(len(shapes[1]))
    weight = (rng.random(shapes[1]) < kept).astype(np.float32)
    net = Net()
    net.op(kind, "x", net.constant(weight), **attributes)
    proto = net.model({"x": shapes[0]}, "v2_0")
    session = runtime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    sums = int(session.run(None, {"x": np.ones(shapes[0], np.float32)})[0].sum(dtype=np.float64))
    (layer,) = count_macs(proto, Workload()).layers
    assert layer.nonzero == sums
    assert layer.macs * int(weight.sum()) == sums * weight.size


class TestOddGraphs:
    def test_a_weight_of_a_size_that_the_file_leaves_open_is_uncounted(self):
        net = Net()
        middle = net.op("Mystery", "x", domain="acme")
        proto = net.model({"x": ["n", 4]}, net.op("MatMul", middle, net.zeros(4, 5)))
        proto.graph.value_info.append(helper.make_tensor_value_info(middle, TensorProto.FLOAT, [None, 4]))
        found = count_macs(proto, Workload(batch=3, lengths=(("m", 4),)))
        assert (found.macs, found.coverage) == (0, 0.0)

    def test_nothing_to_do_is_no_work(self):
        net = Net()
        found = count_macs(net.model({"x": [0, 4]}, net.op("MatMul", "x", net.zeros(4, 5))), Workload())
        assert (found.macs, found.nonzero, found.coverage) == (0, 0, 1.0)

    def test_a_model_without_nodes(self):
        found = count_macs(Net().model({"x": [2]}, "x"), Workload())
        assert (found.layers, found.excluded, found.coverage) == ((), (), 1.0)

    def test_a_weight_that_turns_in_a_circle_is_dense(self):
        net = Net()
        net.nodes.append(helper.make_node("Identity", ["w"], ["w"]))
        proto = net.model({"x": [2, 3], "w": [3, 4]}, net.op("MatMul", "x", "w"))
        assert count_macs(proto, Workload()).nonzero == 2 * 3 * 4

    def test_names_of_any_language_stay_as_they_are(self):
        net = Net()
        net.op("MatMul", "x", net.zeros(4, 5))
        net.nodes[-1].name = "слой/№ 1"
        assert count_macs(net.model({"x": [2, 4]}, "v3_0"), Workload()).layers[0].name == "слой/№ 1"

    def test_a_layer_without_a_name_is_called_by_what_it_makes(self):
        net = Net()
        net.op("MatMul", "x", net.zeros(4, 5))
        net.nodes[-1].name = ""
        assert count_macs(net.model({"x": [2, 4]}, "v3_0"), Workload()).layers[0].name == "v3_0"

    def test_weights_in_another_file_are_looked_at_where_they_are(self, tmp_path):
        net = Net()
        weight = np.eye(64, dtype=np.float32)
        proto = net.model({"x": [2, 64]}, net.op("MatMul", "x", net.constant(weight)))
        onnx.save(proto, tmp_path / "m.onnx", save_as_external_data=True, location="w", size_threshold=0)
        light = onnx.load(tmp_path / "m.onnx", load_external_data=False)
        assert count_macs(light, Workload(), tmp_path).nonzero == 2 * 64
        assert count_macs(light, Workload()).nonzero == 2 * 64 * 64

    def test_classical_models_of_the_machine_learning_domain(self):
        net = Net()
        net.op("LinearClassifier", "x", domain="ai.onnx.ml", coefficients=[0.5] * 12, outputs=2)
        net.op("Scaler", "x", domain="ai.onnx.ml", offset=[0.0], scale=[1.0])
        found = count_macs(net.model({"x": [5, 4]}, "v1_0"), Workload())
        assert (found.macs, found.excluded) == (5 * 12, (("Scaler", 1),))
