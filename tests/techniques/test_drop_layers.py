"""Equal layers are found, some of them go, and the others keep their weights and their places."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from trimtab.core import plugins  # noqa: E402 (after the skip)
from trimtab.core.errors import BadInput, NothingToGain, Refused  # noqa: E402
from trimtab.core.protocols import Opening  # noqa: E402
from trimtab.core.values import Settings, Task, Variant  # noqa: E402
from trimtab.formats.torch import TorchFormat  # noqa: E402
from trimtab.formats.torch_tracing import load_live  # noqa: E402
from trimtab.techniques.drop_layers import DropLayers, stacks, staying  # noqa: E402

NETS = """
import torch
from torch import nn

class Block(nn.Module):
    def __init__(self, width, stride=1):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(width, width, 3, stride, 1), nn.BatchNorm2d(width)
        self.stride = stride

    def forward(self, x):
        y = self.norm(self.conv(x))
        return torch.relu(y + x if self.stride == 1 else y)

class Stages(nn.Module):
    def __init__(self, counted):
        super().__init__()
        first = [nn.Conv2d(3, 8, 3), Block(8), Block(8), Block(8), Block(8, 2), Block(8, 2)]
        self.stages = nn.Sequential(nn.Sequential(*first), nn.Sequential(Block(8), Block(8)))
        self.head, self.counted = nn.Linear(8, 4), counted

    def forward(self, image):
        x = self.stages(image)
        if self.counted:
            x = x + self.stages[1][1](x)
        return self.head(x.mean((2, 3)))

class Listed(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(8, 8), nn.Tanh()) for _ in range(6))
        for number, block in enumerate(self.blocks):
            block.number = number
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        for block in self.blocks:
            x = x + block(x)
        return self.head(x)

def stages(): return Stages(False)
def counted(): return Stages(True)
def listed(): return Listed()
"""
Given = Callable[[str], Variant]


@pytest.fixture
def given(tmp_path: Any) -> Given:
    """Return a function that opens a factory of the file."""
    torch.set_num_threads(1)
    (tmp_path / "nets.py").write_text(NETS)

    def make(name: str) -> Variant:
        example = ("x", (1, 8), "float32") if name == "listed" else ("image", (1, 3, 12, 12), "float32")
        opening = Opening(folder=tmp_path / "opened", example=(example,))
        model = TorchFormat().open(f"{tmp_path / 'nets.py'}:{name}", opening)
        return Variant(model=model, settings=Settings(runtime="torch", threads=1))

    return make


def test_a_stack_is_a_row_of_layers_that_are_alike_and_keep_the_shape(given: Given) -> None:
    model = given("stages").model
    found = stacks(load_live(model), model.signature)
    assert found == [("stages.0", ("1", "2", "3")), ("stages.1", ("0", "1"))]
    model = given("listed").model
    assert stacks(load_live(model), model.signature) == [("blocks", tuple("012345"))]


@pytest.mark.parametrize(
    ("count", "amount", "which", "expected"),
    [
        (6, 0.5, "spread", (0, 3, 5)),
        (6, 0.5, "first", (0, 1, 2)),
        (12, 0.5, "spread", (0, 2, 4, 7, 9, 11)),
        (6, 0.9, "spread", (0,)),
        (2, 0.25, "spread", (0, 1)),
        (3, 0.25, "first", (0, 1)),
    ],
)
def test_the_share_goes_and_the_rest_is_spread_or_comes_first(
    count: int, amount: float, which: str, expected: tuple[int, ...]
) -> None:
    assert staying(count, amount, which) == expected


@pytest.mark.parametrize("amount", np.linspace(0.05, 0.95, 19).tolist())
def test_no_layer_stays_twice(amount: float) -> None:
    for count in range(2, 40):
        found = staying(count, amount, "spread")
        assert len(set(found)) == len(found) == max(1, int(count * (1 - amount) + 0.5))
        assert found == tuple(sorted(found))
        assert found[-1] < count


def test_what_stays_computes_what_it_did_in_its_order(given: Given, context: Any) -> None:
    variant = given("listed")
    made = DropLayers().apply(variant, context(variant, Task()))
    whole, left = load_live(variant.model), load_live(made.model)
    x = torch.randn(3, 8)
    expected = x
    for place in (0, 3, 5):
        expected = expected + whole.blocks[place](expected)
    torch.testing.assert_close(left(x), whole.head(expected))
    assert len(left.blocks) == 3
    assert [block.number for block in left.blocks] == [0, 3, 5]
    assert made.model.signature == variant.model.signature
    assert DropLayers().changes(variant, made) == ("blocks: 6 → 3 layers",)


def test_a_stack_whose_number_the_code_counts_on_stays_and_is_named(given: Given, context: Any) -> None:
    variant = given("counted")
    made = DropLayers(which="first").apply(variant, context(variant, Task()))
    left = load_live(made.model)
    assert [len(stage) for stage in left.stages] == [5, 2]
    assert dict(made.steps[0].options)["keep"] == "stages.1"
    again = plugins.make("techniques", "drop-layers", made.steps[0].options)
    assert again.apply(variant, context(variant, Task(), "again")).model.digest == made.model.digest


def test_every_stack_loses_its_share_and_the_rest_of_the_network_nothing(given: Given, context: Any) -> None:
    variant = given("stages")
    made = DropLayers().apply(variant, context(variant, Task()))
    whole, left = load_live(variant.model).state_dict(), load_live(made.model).state_dict()
    assert {name.rpartition(".")[0].removesuffix(".conv").removesuffix(".norm") for name in whole.keys() - left} == {
        "stages.0.2", "stages.1.1",
    }  # fmt: skip
    assert all(torch.equal(value, whole[name]) for name, value in left.items())


def test_a_transformer_with_fewer_layers_can_be_exported(factory: Any, context: Any) -> None:
    pytest.importorskip("onnxscript")
    variant, task = factory("transformer")
    made = DropLayers().apply(variant, context(variant, task))
    exported = plugins.make("techniques", "export-onnx").apply(made, context(made, task, "exported"))
    assert DropLayers().changes(variant, made) == ("layers: 2 → 1 layers",)
    assert exported.model.signature == variant.model.signature


class TestRefusals:
    def test_a_network_without_equal_layers(self, factory: Any, context: Any) -> None:
        variant, task = factory("mlp")
        with pytest.raises(NothingToGain, match="no stack has as many equal layers"):
            DropLayers().apply(variant, context(variant, task))

    def test_stacks_that_are_all_to_be_kept(self, given: Given, context: Any) -> None:
        variant = given("stages")
        with pytest.raises(NothingToGain):
            DropLayers(keep="stages.0|stages.1").apply(variant, context(variant, Task()))
        with pytest.raises(BadInput, match="no stack of layers named 'layer' to keep"):
            DropLayers(keep="layer").apply(variant, context(variant, Task()))

    def test_a_module_that_counts_on_all_its_layers(self, given: Given, context: Any) -> None:
        variant = given("counted")
        with pytest.raises(Refused, match="its code counts on their number"):
            DropLayers(keep="stages.0", which="first").apply(variant, context(variant, Task()))

    def test_wrong_options_and_another_format(self, given: Given) -> None:
        with pytest.raises(BadInput, match="no share of the layers"):
            DropLayers(amount=1.0)
        variant = given("listed")
        assert "choose spread or first" in str(DropLayers(which="last").refuses(variant, Task()))
        onnx = replace(variant, model=replace(variant.model, format="onnx"), settings=Settings(runtime="onnxruntime"))
        assert "this one is onnx" in str(DropLayers().refuses(onnx, Task()))
