"""Lighter layers: nearest to the old weights, with products counted by hand, and which layers get them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from trimtab.core import plugins  # noqa: E402 (after the skip)
from trimtab.core.errors import BadInput, NothingToGain, Refused  # noqa: E402
from trimtab.core.values import Settings, Task, Variant, Workload  # noqa: E402
from trimtab.formats.torch import TorchFormat  # noqa: E402
from trimtab.formats.torch_tracing import load_live  # noqa: E402
from trimtab.techniques.substitute import (  # noqa: E402
    Substitute,
    bottleneck,
    first_share,
    grouped,
    products,
    separable,
)

nn = torch.nn
Factory = Callable[[str], tuple[Variant, Task]]
SHAPES = [{}, {"stride": 2, "padding": 1}, {"dilation": 2, "padding": (2, 1)}, {"padding": "same", "bias": False},
          {"stride": (1, 2), "padding": 1, "padding_mode": "circular"}]  # fmt: skip


@pytest.fixture
def lighter(factory: Factory, context: Any) -> Callable[..., tuple[Variant, Variant]]:
    """Return a function that makes a network lighter: what it was and what it is now."""

    def make(name: str, folder: str = "made", **given: Any) -> tuple[Variant, Variant]:
        variant, task = factory(name)
        technique = Substitute(**{"refit": False, **given})
        assert technique.refuses(variant, task) is None
        return variant, technique.apply(variant, context(variant, task, folder))

    return make


@pytest.mark.parametrize("shape", SHAPES, ids=str)
class TestConvolution:
    def layer(self, shape: dict[str, Any]) -> Any:
        torch.manual_seed(3)
        return nn.Conv2d(12, 20, 3, **shape)

    def test_one_that_is_separable_answers_the_same(self, shape: dict[str, Any]) -> None:
        layer = self.layer(shape)
        with torch.no_grad():
            layer.weight.copy_(torch.einsum("oi,ihw->oihw", torch.randn(20, 12), torch.randn(12, 3, 3)) / 10)
        chain, share = separable(layer)
        assert [tuple(part.weight.shape) for part in chain] == [(12, 1, 3, 3), (20, 12, 1, 1)]
        assert share == pytest.approx(1)
        given = torch.randn(2, 12, 9, 11)
        torch.testing.assert_close(chain(given), layer(given), rtol=1e-3, atol=1e-4)

    def test_no_change_of_the_factors_comes_nearer(self, shape: dict[str, Any]) -> None:
        layer = self.layer(shape)
        chain, share = separable(layer)
        weight = layer.weight.detach().double()
        over, across = (part.weight.detach().double() for part in chain)

        def lost(over: Any, across: Any) -> float:
            return float((weight - torch.einsum("oi,ihw->oihw", across[:, :, 0, 0], over[:, 0])).square().sum())

        least = lost(over, across)
        assert share == pytest.approx(1 - least / float(weight.square().sum()), abs=1e-5)
        for seed in range(20):
            draw = torch.Generator().manual_seed(seed)
            moved = (part + 0.01 * torch.randn(part.shape, generator=draw) for part in (over, across))
            assert lost(*moved) > least

    def test_one_whose_groups_see_only_their_own_answers_the_same(self, shape: dict[str, Any]) -> None:
        layer = self.layer(shape)
        mask = torch.zeros(20, 12)
        for number in range(4):
            mask[number * 5 : number * 5 + 5, number * 3 : number * 3 + 3] = 1
        with torch.no_grad():
            layer.weight.mul_(mask[:, :, None, None])
        chain, share = grouped(layer, 4)
        assert tuple(chain[0].weight.shape) == (20, 3, 3, 3)
        assert share == pytest.approx(1)
        given = torch.randn(2, 12, 9, 11)
        torch.testing.assert_close(chain(given), layer(given), rtol=1e-3, atol=1e-4)


def test_groups_that_do_not_divide_the_channels_are_none() -> None:
    assert grouped(nn.Conv2d(12, 20, 3), 3) is None
    assert grouped(nn.Conv2d(3, 16, 3), 4) is None


def test_a_convolution_that_would_not_save_is_none() -> None:
    assert separable(nn.Conv2d(1, 1, 3)) is None


def test_a_bottleneck_keeps_a_weight_of_its_rank_and_saves_or_is_none() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(48, 40)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(40, 10) @ torch.randn(10, 48) / 8)
    chain, share = bottleneck(layer, 0.25)
    assert [tuple(part.weight.shape) for part in chain] == [(10, 48), (40, 10)]
    assert share == pytest.approx(1)
    given = torch.randn(6, 48)
    torch.testing.assert_close(chain(given), layer(given), rtol=1e-4, atol=1e-4)
    assert bottleneck(layer, 0.6) is None


class TestChoice:
    def test_those_that_keep_most_come_first_until_the_share_is_made_up(self) -> None:
        macs, shares = {"a": 10, "b": 30, "c": 60}, {"a": 0.5, "b": 0.9, "c": 0.7}
        assert first_share(macs, shares, 0.1) == ["b"]
        assert first_share(macs, shares, 0.3) == ["b"]
        assert first_share(macs, shares, 0.31) == ["b", "c"]
        assert first_share(macs, shares, 1.0) == ["b", "c", "a"]

    def test_products_are_those_counted_by_hand(self, factory: Factory) -> None:
        model = factory("smooth")[0].model
        module = load_live(model)
        found = products({name: module.get_submodule(name) for name in ("conv", "wide")}, module, model.signature)
        assert found["conv"] == 9 * 16 * 24 * 16 / (384 * 64) * found["wide"]

    def test_a_smaller_amount_replaces_fewer_layers(self, lighter: Any) -> None:
        _, few = lighter("cnn", amount=0.25)
        before, all_of_them = lighter("cnn", folder="all", amount=1.0)
        count = TorchFormat().work
        macs = [count(each.model, Workload()).macs for each in (before, few, all_of_them)]
        assert macs == sorted(macs, reverse=True)
        assert len(set(macs)) == 3
        assert [len(Substitute().changes(before, each)) for each in (few, all_of_them)] == [1, 3]


class TestVariant:
    def test_products_after_are_those_counted_by_hand_and_it_is_told(self, lighter: Any) -> None:
        before, after = lighter("cnn", amount=1.0)
        pixels = 64
        saved = pixels * ((9 * 3 * 16 - 9 * 3 - 3 * 16) + 2 * (9 * 16 * 16 - 9 * 16 - 16 * 16))
        count = TorchFormat().work
        assert count(before.model, Workload()).macs - count(after.model, Workload()).macs == saved
        assert "block.conv1: 16→16 3×3 → 16→16 3×3 in 16 groups, 16→16 1×1" in Substitute().changes(before, after)
        assert after.model.signature == before.model.signature

    @pytest.mark.parametrize(("name", "given"), [("cnn", {"kind": "grouped"}), ("smooth", {"kind": "bottleneck"})])
    def test_the_step_is_enough_to_do_it_again(
        self, name: str, given: dict[str, Any], lighter: Any, factory: Factory, context: Any
    ) -> None:
        before, after = lighter(name, **given)
        (step,) = after.steps
        again = plugins.make("techniques", step.technique, step.options)
        assert again.apply(before, context(before, Task(), "again")).model.digest == after.model.digest

    def test_it_can_be_exported(self, lighter: Any, context: Any) -> None:
        pytest.importorskip("onnxscript")
        _, after = lighter("cnn", amount=1.0)
        exported = plugins.make("techniques", "export-onnx").apply(after, context(after, Task(), "exported"))
        given = {"image": np.random.default_rng(0).normal(size=(3, 3, 8, 8)).astype(np.float32)}
        one, other = (
            plugins.make("runtimes", each.settings.runtime).load(each)(given)["output"].copy()
            for each in (after, exported)
        )
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)

    def test_layers_named_in_keep_stay(self, lighter: Any) -> None:
        _, after = lighter("cnn", amount=1.0, keep="stem|block.conv1")
        made = load_live(after.model)
        assert [type(part) for part in (made.stem, made.block.conv1, made.block.conv2)] == [
            nn.Conv2d, nn.Conv2d, nn.Sequential,
        ]  # fmt: skip
        with pytest.raises(BadInput, match="no layer named 'thin' to keep"):
            lighter("cnn", keep="thin")


class TestRefusals:
    @pytest.mark.parametrize("wrong", [{"amount": 0.0}, {"amount": 1.5}, {"narrow": -1.0}, {"groups": 1}])
    def test_a_number_that_makes_no_sense(self, wrong: dict[str, Any]) -> None:
        with pytest.raises(BadInput, match=r"is no share|makes nothing lighter"):
            Substitute(**wrong)

    def test_an_unknown_kind_and_another_format(self, factory: Factory) -> None:
        variant, task = factory("mlp")
        assert "choose separable, grouped or bottleneck" in str(Substitute(kind="thin").refuses(variant, task))
        onnx = replace(variant, model=replace(variant.model, format="onnx"), settings=Settings(runtime="onnxruntime"))
        assert "this one is onnx" in str(Substitute().refuses(onnx, task))

    def test_a_network_without_such_layers(self, lighter: Any) -> None:
        with pytest.raises(NothingToGain, match="as a separable one"):
            lighter("mlp")

    def test_a_module_whose_code_looks_into_its_layers(self, lighter: Any) -> None:
        with pytest.raises(Refused, match="its code looks into them"):
            lighter("peeking", kind="bottleneck", amount=1.0)


def test_refitted_it_answers_more_like_the_whole(lighter: Any) -> None:
    off = []
    for refit in (False, True):
        before, after = lighter("cnn", folder=str(refit), amount=1.0, refit=refit)
        whole, given = load_live(before.model).eval(), torch.randn(64, *before.model.signature.inputs[0].shape[1:])
        with torch.no_grad():
            off.append((load_live(after.model).eval()(given) - whole(given)).square().mean().item())
    assert off[1] < off[0]
