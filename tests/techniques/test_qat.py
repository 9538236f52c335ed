"""Quantization-aware training: what the file computes is what was trained, in integers, and better than rounding."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnxruntime import GraphOptimizationLevel
from sklearn.datasets import load_digits

from trimtab.core import plugins
from trimtab.core.errors import BadInput, Refused
from trimtab.core.protocols import Context
from trimtab.core.values import Settings, Task, Variant
from trimtab.data.batches import feeds
from trimtab.data.batches import labels as labels_of
from trimtab.data.task import open_task
from trimtab.formats.onnx import OnnxFormat
from trimtab.techniques.export_onnx import ExportOnnx
from trimtab.techniques.fine_tune import FineTune
from trimtab.techniques.prune import Prune
from trimtab.techniques.qat import QuantizationAwareTraining, check_runs
from trimtab.techniques.simplify import optimized, session
from trimtab.techniques.static_int8 import StaticInt8
from trimtab.workbench.opening import open_model

torch = pytest.importorskip("torch")

NETS = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.depthwise, self.norm2 = nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.BatchNorm2d(16)
        self.pointwise, self.head = nn.Conv2d(16, 16, 1), nn.Linear(32, 10)

    def forward(self, input):
        x = nn.functional.max_pool2d(torch.relu(self.norm(self.stem(input))), 2)
        y = torch.relu(x + self.pointwise(torch.relu(self.norm2(self.depthwise(x)))))
        return self.head(torch.cat([x, y], 1).mean((2, 3)))

class Series(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv1d(8, 16, 3, padding=1), nn.ReLU(), nn.Conv1d(16, 16, 1), nn.Hardswish(), nn.AvgPool1d(2),
            nn.Flatten(),
        )
        self.head = nn.Linear(64, 10)

    def forward(self, input):
        return self.head(self.layers(input.flatten(1, 2)))

def net():
    torch.manual_seed(0)
    return Net()

def series():
    torch.manual_seed(0)
    return Series()

def attending():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(1, 2), nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), nn.Flatten(),
                         nn.Linear(64, 10))

def pooling():
    return nn.Sequential(nn.AvgPool2d(2), nn.Flatten())

class Branching(nn.Module):
    def forward(self, input):
        return input.flatten(1)[:, :10] if float(input.sum()) > 0 else input.flatten(1)[:, 10:20]

def branching():
    return Branching()

class Rounded(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(64, 10)

    def forward(self, input):
        x = torch.fake_quantize_per_tensor_affine(input.flatten(1), 0.01, 0, 0, 255)
        return self.head(x)

def rounded():
    return Rounded()

class Sorting(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(8, 10)

    def forward(self, input):
        return self.head(input.flatten(1).topk(8).values)

def sorting():
    return Sorting()

example_inputs = {"input": torch.zeros(1, 1, 8, 8)}
"""
IMAGES, LABELS = load_digits(return_X_y=True)
IMAGES = (IMAGES.reshape(-1, 1, 8, 8) / 16).astype(np.float32)
ORT_DISABLE_ALL = GraphOptimizationLevel.ORT_DISABLE_ALL
Case = tuple[Variant, Task]


@pytest.fixture
def case(tmp_path: Path) -> Callable[..., Case]:
    """Return a function that opens a network by name, with the digits as its task."""
    torch.set_num_threads(1)
    code = tmp_path / "nets.py"
    code.write_text(NETS)

    def make(name: str = "net", labelled: bool = True, items: int = 900) -> Case:
        variant = open_model(f"{code}:{name}", tmp_path / name)
        data: dict[str, Any] = {"input": IMAGES[:items], "split": np.repeat(["train", "test"], [items - 300, 300])}
        data |= {"labels": LABELS[:items]} if labelled else {}
        return variant, open_task(data, variant.model, tmp_path / "data")

    return make


@pytest.fixture
def at(tmp_path: Path) -> Callable[..., Context]:
    """Return a function that makes a context."""

    def make(original: Variant, task: Task, folder: str = "made", seconds: float = 90.0) -> Context:
        return Context(
            task=task, original=original, folder=tmp_path / folder, seed=1, deadline=time.monotonic() + seconds,
            evaluate=lambda variant, most=None: 0.0, time=lambda variant: 0.0,
        )  # fmt: skip

    return make


def answers(variant: Variant, task: Task, runtime: str = "onnxruntime") -> Any:
    split = task.split("select")
    assert split is not None
    engine = plugins.make("runtimes", runtime).load(variant.on(Settings(runtime=runtime, threads=1)))
    return next(iter(engine(feeds(task, split, slice(0, len(split)))).values())).copy()


def right(variant: Variant, task: Task, runtime: str = "onnxruntime") -> float:
    split = task.split("select")
    assert split is not None
    return float(np.mean(answers(variant, task, runtime).argmax(axis=1) == labels_of(split)))


def step_of(proto: onnx.ModelProto) -> float:
    """Return the step of the output's quantization."""
    maker = next(node for node in proto.graph.node if node.output[0] == proto.graph.output[0].name)
    scale = next(tensor for tensor in proto.graph.initializer if tensor.name == maker.input[1])
    return float(onnx.numpy_helper.to_array(scale))


@pytest.mark.parametrize("ranges", ["learned", "observed"])
def test_a_network_keeps_in_eight_bits_what_it_knew(case: Any, at: Any, ranges: str) -> None:
    variant, task = case("series")
    trained = FineTune(epochs=4, lr=0.01, batch=32, distill=0.0).apply(variant, at(variant, task, "trained"))
    exported = ExportOnnx().apply(trained, at(trained, task, "float"))
    made = QuantizationAwareTraining(epochs=2, batch=32, ranges=ranges).apply(trained, at(trained, task))
    assert right(exported, task) > 0.75
    assert right(made, task) >= right(exported, task) - 0.05
    assert abs(right(made, task, "openvino") - right(made, task)) < 0.03
    assert [step.technique for step in made.steps] == ["fine-tune", "qat"]
    assert made.settings == Settings(runtime="onnxruntime")


@pytest.mark.parametrize("name", ["net", "series", "attending"])
@pytest.mark.parametrize("ranges", ["learned", "observed"])
def test_the_file_answers_what_was_trained_within_one_step(case: Any, at: Any, name: str, ranges: str) -> None:
    variant, task = case(name)
    context, technique = at(variant, task), QuantizationAwareTraining(ranges=ranges)
    exported = ExportOnnx().apply(variant, context)
    calibrated = StaticInt8().prepare(exported, context)
    check_runs(calibrated, exported, task)
    network = technique.network(calibrated)
    optimizer = torch.optim.Adam(network.module.train().parameters(), lr=1e-3)
    images, labels = torch.tensor(IMAGES[:64]), torch.tensor(LABELS[:64])
    for _ in range(3):
        (output,) = network.module(input=images).values()
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(output, labels).backward()
        optimizer.step()
    made = network.trained()
    with torch.no_grad():
        (got,) = network.module.eval()(input=torch.tensor(IMAGES[600:900])).values()
    plain = session(made.SerializeToString(), graph_optimization_level=ORT_DISABLE_ALL)
    (told,) = plain.run(None, {"input": IMAGES[600:900]})
    np.testing.assert_allclose(got.numpy(), told, atol=1.01 * step_of(made))
    assert np.mean(np.abs(got.numpy() - told) > step_of(made) / 2) < 0.01
    fused = session(made.SerializeToString()).run(None, {"input": IMAGES[600:900]})[0]
    assert np.abs(fused - got.numpy()).max() < 8 * step_of(made)  # fused operators round where the others didn't


def test_engines_run_it_in_integers(case: Any, at: Any, tmp_path: Path) -> None:
    variant, task = case(items=500)
    made = QuantizationAwareTraining(epochs=1).apply(variant, at(variant, task))
    nodes = [node.op_type for node in optimized(made.model.path, "extended").graph.node]
    assert nodes.count("QLinearConv") == 3
    assert not {"Conv", "Gemm", "Relu"} & set(nodes)
    assert OnnxFormat().contents(made.model).quantization is not None


def test_after_pruning_and_fine_tuning_it_is_the_last_of_the_chain(case: Any, at: Any) -> None:
    variant, task = case()
    whole = FineTune(epochs=20, lr=0.01, batch=32, distill=0.0).apply(variant, at(variant, task, "whole"))
    pruned = Prune(amount=0.25, round_to=1).apply(whole, at(whole, task, "pruned"))
    tuned = FineTune(epochs=2, batch=32).apply(pruned, at(whole, task, "tuned"))
    made = QuantizationAwareTraining(epochs=2, batch=32).apply(tuned, at(whole, task))
    assert [step.technique for step in made.steps] == ["fine-tune", "prune", "fine-tune", "qat"]
    exported = ExportOnnx().apply(tuned, at(whole, task, "float"))
    assert right(made, task) > right(exported, task) - 0.03
    assert made.model.signature.outputs == exported.model.signature.outputs


def test_without_labels_the_float_network_teaches(case: Any, at: Any) -> None:
    variant, task = case(labelled=False, items=500)
    made = QuantizationAwareTraining(epochs=1).apply(variant, at(variant, task))
    assert dict(made.steps[-1].options)["distill"] == 1.0


def test_the_same_seed_makes_the_same_file_and_layers_can_stay_in_float(case: Any, at: Any) -> None:
    variant, task = case(items=500)
    calibrated = StaticInt8().prepare(ExportOnnx().apply(variant, at(variant, task)), at(variant, task))
    stem = calibrated.layers[0]
    technique = QuantizationAwareTraining(epochs=1, keep=stem)
    made = [technique.apply(variant, at(variant, task, f"made{number}")) for number in range(2)]
    assert made[0].model.digest == made[1].model.digest
    weights = {t.name: t.data_type for t in OnnxFormat().load(made[0].model).graph.initializer}
    assert weights["stem.weight"] == onnx.TensorProto.FLOAT
    assert weights["depthwise.weight_quantized"] == onnx.TensorProto.INT8
    with pytest.raises(BadInput, match="no layer named 'nothing' to keep"):
        QuantizationAwareTraining(keep="nothing").apply(variant, at(variant, task, "no"))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("pooling", "no convolution and no linear layer"),
        ("branching", "trace"),
        ("rounded", "already quantized"),
        ("sorting", "the operator TopK"),
    ],
)
def test_what_can_not_be_quantized_is_refused_with_the_reason(case: Any, at: Any, name: str, words: str) -> None:
    variant, task = case(name, items=500)
    with pytest.raises(Refused, match=words):
        QuantizationAwareTraining(epochs=1).apply(variant, at(variant, task))


def test_what_it_needs_is_said_before_it_starts(case: Any, at: Any) -> None:
    variant, task = case(items=500)
    technique = QuantizationAwareTraining()
    without = lambda name: replace(task, splits=tuple(s for s in task.splits if s.name != name))  # noqa: E731 # brief
    exported = ExportOnnx().apply(variant, at(variant, task))
    assert technique.refuses(variant, task) is None
    assert "this one is onnx" in str(technique.refuses(exported, task))
    assert "--train" in str(technique.refuses(variant, without("train")))
    assert "calibration data" in str(technique.refuses(variant, without("calibrate")))
    assert "choose one of learned, observed" in str(QuantizationAwareTraining(ranges="?").refuses(variant, task))
    assert "choose one of minmax" in str(QuantizationAwareTraining(calibration="?").refuses(variant, task))
    with pytest.raises(Refused, match="not one epoch"):
        QuantizationAwareTraining().apply(variant, at(variant, task, "late", seconds=-1.0))
