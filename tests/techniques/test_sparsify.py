"""Sparsify: as many zeros as were asked for, where they matter least, and the network still knows what it knew."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import numpy_helper
from sklearn.datasets import load_digits

from trimtab.core.errors import BadInput, NothingToGain, Refused
from trimtab.core.protocols import Context
from trimtab.core.values import Task, Variant
from trimtab.data.batches import labels as labels_of
from trimtab.data.task import open_task
from trimtab.formats.onnx import OnnxFormat
from trimtab.formats.torch_tracing import load_live
from trimtab.meters.size import compressed, size
from trimtab.techniques.export_onnx import ExportOnnx
from trimtab.techniques.fine_tune import FineTune
from trimtab.techniques.qat import QuantizationAwareTraining
from trimtab.techniques.sparsify import Masks, Sparsify, fisher, in_groups, largest, prunable, share_at
from trimtab.techniques.static_int8 import StaticInt8
from trimtab.training.network import answers_of
from trimtab.workbench.opening import open_model

torch = pytest.importorskip("torch")

NETS = """
import torch
from torch import nn

def make():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2, padding=1), nn.ReLU(),
                         nn.Flatten(), nn.Linear(128, 10))

def pooling():
    return nn.Sequential(nn.AvgPool2d(2), nn.Flatten(), nn.LayerNorm(16))

example_inputs = {"input": torch.zeros(1, 1, 8, 8)}
"""
IMAGES, LABELS = load_digits(return_X_y=True)
IMAGES = (IMAGES.reshape(-1, 1, 8, 8) / 16).astype(np.float32)


@pytest.fixture
def case(tmp_path: Path) -> Callable[..., tuple[Variant, Task]]:
    """Return a function that opens a network with the digits as its task."""
    torch.set_num_threads(1)
    code = tmp_path / "nets.py"
    code.write_text(NETS)

    def make(name: str = "make", labelled: bool = True) -> tuple[Variant, Task]:
        variant = open_model(f"{code}:{name}", tmp_path / name)
        data: dict[str, Any] = {"input": IMAGES[:900], "split": np.repeat(["train", "test"], [600, 300])}
        data |= {"labels": LABELS[:900]} if labelled else {}
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


def right(variant: Variant, task: Task) -> float:
    split = task.split("select")
    assert split is not None
    outputs = answers_of(load_live(variant.model), variant.model.signature, task, split)
    return float(np.mean(outputs.argmax(axis=1) == labels_of(split)))


def zeros(variant: Variant) -> dict[str, float]:
    return {name: float((weight == 0).float().mean()) for name, weight in prunable(load_live(variant.model)).items()}


def test_half_of_the_weights_go_and_the_network_knows_what_it_knew(case: Any, at: Any) -> None:
    variant, task = case()
    trained = FineTune(epochs=5, lr=0.01, batch=32, distill=0.0).apply(variant, at(variant, task, "trained"))
    made = Sparsify(amount=0.5, epochs=4, batch=32, lr=0.01).apply(trained, at(trained, task))
    counts = {"0": 72, "2": 576, "5": 1280}
    assert round(sum(zeros(made)[name] * counts[name] for name in counts)) == 0.5 * 1928
    assert len(set(zeros(made).values())) == 3, "one threshold for all layers takes other shares of them"
    assert right(made, task) >= right(trained, task) - 0.1 > 0.7
    assert [name for name, _ in load_live(made.model).named_buffers()] == []
    assert zeros(trained) == {"0": 0.0, "2": 0.0, "5": 0.0}


def test_zeros_make_what_is_compressed_smaller_and_nothing_else_also_in_int8(case: Any, at: Any) -> None:
    variant, task = case()
    made = Sparsify(amount=0.9, epochs=2, batch=64).apply(variant, at(variant, task))
    dense, sparse = (
        [each, StaticInt8().apply(each, at(variant, task, f"int8-{number}"))]
        for number, each in enumerate(
            ExportOnnx().apply(v, at(variant, task, f"float-{n}")) for n, v in enumerate((variant, made))
        )
    )
    for before, after in zip(dense, sparse, strict=True):
        assert size(before.model)[0].value == size(after.model)[0].value
        assert size(before.model)[1].value == pytest.approx(size(after.model)[1].value, abs=8)
        small, large = compressed(after.model).value, compressed(before.model).value
        assert small is not None and large is not None and small < large - 700


def test_zeros_stay_zeros_in_training_for_eight_bits(case: Any, at: Any) -> None:
    variant, task = case()
    sparse = Sparsify(pattern="1:4", epochs=2).apply(variant, at(variant, task))
    made = QuantizationAwareTraining(epochs=1).apply(sparse, at(variant, task, "int8"))
    held = {t.name: numpy_helper.to_array(t) for t in OnnxFormat().load(made.model).graph.initializer}
    assert (held["2.weight_quantized"] == 0).mean() >= 0.75
    assert (held["5.weight_quantized"] == 0).mean() >= 0.75
    assert (held["0.weight_quantized"] == 0).mean() < 0.1


@pytest.mark.parametrize(("pattern", "left"), [("2:4", 2), ("1:4", 1)])
def test_a_pattern_leaves_so_many_of_every_group_of_inputs(case: Any, at: Any, pattern: str, left: int) -> None:
    variant, task = case()
    made = Sparsify(pattern=pattern, epochs=2).apply(variant, at(variant, task))
    weights = {name: weight.detach() for name, weight in prunable(load_live(made.model)).items()}
    assert (weights["0"] == 0).sum() == 0, "one input can't be divided into groups of four"
    assert set((weights["5"].reshape(10, 32, 4) != 0).sum(-1).flatten().tolist()) == {left}
    groups = weights["2"].permute(0, 2, 3, 1).reshape(8, 3, 3, 2, 4)
    assert set((groups != 0).sum(-1).flatten().tolist()) == {left}


def test_the_share_grows_by_the_cubic_schedule_and_what_is_gone_stays_gone(case: Any, at: Any) -> None:
    """Zhu and Gupta 2017: s(t) = s + (0 − s)(1 − t/T)³; here T is half of four epochs."""
    assert [share_at(t) for t in (0.0, 0.5, 1.0)] == [0.0, 0.875, 1.0]
    variant, _ = case()
    module = load_live(variant.model)
    masks = Masks(module, Sparsify(amount=0.8), lambda: {})
    gone: set[Any] = set()
    for epochs in (0.0, 0.4, 1.0, 1.9, 2.0, 3.5):
        with torch.no_grad():
            for weight in module.parameters():
                weight += torch.randn(weight.shape) * 0.1
        assert masks.hold(epochs) == (epochs >= 2.0)
        flat = torch.cat([weight.detach().flatten() for weight in prunable(module).values()])
        now = set(torch.nonzero(flat == 0).flatten().tolist())
        due = int(epochs / 2.0 * 10 + 1e-9) / 10
        assert len(now) == pytest.approx(0.8 * (1 - (1 - min(due, 1.0)) ** 3) * 1928, abs=1)
        assert gone <= now
        gone = now


def test_a_second_fit_goes_on_with_the_masks_of_the_first(case: Any, at: Any) -> None:
    variant, _ = case()
    first, second = (load_live(variant.model) for _ in range(2))
    one, two = (Masks(module, Sparsify(), lambda: {}) for module in (first, second))
    one.hold(1.0)
    second.load_state_dict(first.state_dict())
    with torch.no_grad():
        for weight in second.parameters():
            weight += 1.0
    two.hold(1.05)
    assert [(weight == 0).sum().item() for weight in prunable(second).values()] == [
        (weight == 0).sum().item() for weight in prunable(first).values()
    ]


def test_a_uniform_scope_takes_the_same_share_of_every_layer_and_kept_layers_stay(case: Any, at: Any) -> None:
    variant, task = case()
    made = Sparsify(amount=0.5, scope="uniform", keep="0", epochs=2).apply(variant, at(variant, task))
    assert zeros(made) == {"0": 0.0, "2": 0.5, "5": 0.5}


def test_a_global_ranking_leaves_something_of_every_layer() -> None:
    found = largest([np.ones((10, 10)), np.full((10, 10), 1e-9)], 0.5, "global")
    assert [int(each.sum()) for each in found] == [98, 2]


def test_groups_run_along_the_inputs() -> None:
    importance = np.array([[[1.0, 9.0], [2.0, 1.0], [3.0, 5.0], [4.0, 2.0]]])
    assert in_groups(importance, 2, 4).tolist() == [[[False, True], [False, False], [True, True], [True, False]]]


def test_the_fisher_information_of_a_linear_softmax_is_the_known_one(case: Any) -> None:
    """Of logits Wx with one input x the diagonal is E[(p − y)²] x² = p(1 − p) x² (here averaged over draws of y)."""
    variant, task = case()
    signature = variant.model.signature
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10, bias=False))
    with torch.no_grad():
        module[1].weight.mul_(2.0)
    split = task.split("calibrate")
    assert split is not None and signature.data_inputs[0].name == "input"
    draws = [fisher(lambda_net(module), variant, task, seed)["net.1"].numpy() for seed in range(200)]
    images = np.load(split.inputs[0].path)[:64].reshape(-1, 64)
    p = torch.softmax(torch.tensor(images) @ module[1].weight.detach().T, 1).numpy()
    expected = np.einsum("no,ni->oi", p * (1 - p), images**2) / len(images)
    np.testing.assert_allclose(np.mean(draws, axis=0).sum(1), expected.sum(1), rtol=0.1)


def lambda_net(net: Any) -> Any:
    """Return a module that takes its input by the name that the signature gives it."""
    module = torch.nn.Module()
    module.net = net
    module.forward = lambda input: net(input)
    return module


def test_fisher_importance_spares_small_weights_that_matter(case: Any, at: Any) -> None:
    variant, task = case()
    by = {
        importance: Sparsify(amount=0.5, epochs=2, importance=importance).apply(variant, at(variant, task, importance))
        for importance in ("magnitude", "fisher")
    }
    assert sum(zeros(by["fisher"]).values()) > 0
    assert zeros(by["fisher"]) != zeros(by["magnitude"])


def test_the_same_seed_makes_the_same_weights_and_the_log_is_honest(case: Any, at: Any) -> None:
    variant, task = case()
    made = [Sparsify(epochs=2).apply(variant, at(variant, task, f"made{time}")) for time in range(2)]
    assert made[0].model.digest == made[1].model.digest != variant.model.digest
    first, *layers = Sparsify().changes(variant, made[0])
    assert first.startswith("80.0% of 1,928 weights are zero") and "no less time" in first
    assert len(layers) == 3


def test_what_can_not_be_done_is_refused_with_the_reason(case: Any, at: Any) -> None:
    variant, task = case()
    without = lambda name: replace(task, splits=tuple(s for s in task.splits if s.name != name))  # noqa: E731 # brief
    assert Sparsify().refuses(variant, task) is None
    assert "--train" in str(Sparsify().refuses(variant, without("train")))
    assert "calibration" in str(Sparsify(importance="fisher").refuses(variant, without("calibrate")))
    assert "choose one of magnitude, fisher" in str(Sparsify(importance="?").refuses(variant, task))
    for wrong in ({"pattern": "4:2"}, {"pattern": "half"}, {"amount": 1.0}):
        with pytest.raises(BadInput):
            Sparsify(**wrong)
    with pytest.raises(BadInput, match="no layer named 'nothing'"):
        Sparsify(keep="nothing").apply(variant, at(variant, task))
    with pytest.raises(Refused, match="not one epoch"):
        Sparsify().apply(variant, at(variant, task, "late", seconds=-1.0))
    with pytest.raises(NothingToGain, match="has weights to take"):
        Sparsify().apply(case("pooling")[0], at(variant, task, "none"))
