"""Factorization: ranks, what the factors keep of a layer, and where it saves products counted by hand."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
pytest.importorskip("tensorly")

from trimtab.core import plugins  # noqa: E402 (after the skips)
from trimtab.core.errors import BadInput, MissingExtra, NothingToGain, Refused  # noqa: E402
from trimtab.core.values import Settings, Task, Variant, Workload, options  # noqa: E402
from trimtab.formats.torch import TorchFormat  # noqa: E402
from trimtab.formats.torch_tracing import load_live  # noqa: E402
from trimtab.techniques.factorize import Factorize, cp_chain, linear_chain, rank_of, tucker_chain, worth  # noqa: E402
from trimtab.testing.laws import contents  # noqa: E402

nn = torch.nn
Factory = Callable[[str], tuple[Variant, Task]]
SHAPES = [{}, {"stride": 2, "padding": 1}, {"dilation": 2, "padding": (2, 1)}, {"padding": "same", "bias": False},
          {"stride": (1, 2), "padding": 1, "padding_mode": "circular"}]  # fmt: skip


@pytest.fixture
def factorized(factory: Factory, context: Any) -> Callable[..., tuple[Variant, Variant]]:
    """Return a function that factorizes a network: what it was and what it is now."""

    def make(name: str, folder: str = "made", **given: Any) -> tuple[Variant, Variant]:
        variant, task = factory(name)
        technique = Factorize(**{"refit": False, **given})
        assert technique.refuses(variant, task) is None
        return variant, technique.apply(variant, context(variant, task, folder))

    return make


def answers(variant: Variant, items: int) -> Any:
    (spec,) = variant.model.signature.inputs
    inputs = np.random.default_rng(5).normal(size=(items, *spec.shape[1:])).astype(np.float32)
    return plugins.make("runtimes", variant.settings.runtime).load(variant)({spec.name: inputs})["output"].copy()


def kernel_of(chain: Any) -> Any:
    """Return the weight of the one convolution that a chain of convolutions along separate axes amounts to."""
    whole = None
    for layer in chain:
        weight = layer.weight.detach().double().numpy()
        if layer.groups > 1:  # one channel each
            weight = np.einsum("ohw,oi->oihw", weight[:, 0], np.eye(len(weight)))
        if whole is None:
            whole = weight
        else:
            height, width = (max(one, two) for one, two in zip(whole.shape[2:], weight.shape[2:], strict=True))
            whole = np.einsum("oahw,aihw->oihw", *(np.broadcast_to(w, (*w.shape[:2], height, width))
                                                   for w in (weight, whole)))  # fmt: skip
    return whole


def kept_energy(weight: Any, found: Any) -> float:
    weight = weight.detach().double().numpy()
    return 1 - np.sum((weight - found) ** 2) / np.sum(weight**2)


class TestRank:
    @settings(max_examples=30, deadline=None)
    @drawn(st.integers(0, 1000), st.floats(0.05, 0.99))
    def test_it_is_the_least_whose_best_approximation_keeps_the_energy(self, seed: int, energy: float) -> None:
        weight = np.random.default_rng(seed).normal(size=(7, 10))
        left, values, right = np.linalg.svd(weight, full_matrices=False)
        lost = [np.sum((weight - (left[:, :r] * values[:r]) @ right[:r]) ** 2) for r in range(8)]
        enough = [r for r in range(8) if lost[r] <= (1 - energy) * np.sum(weight**2) + 1e-9]
        assert rank_of(values, energy) == enough[0]

    def test_a_layer_of_zeros_has_rank_one(self) -> None:
        assert rank_of(np.zeros(4), 0.9) == 1

    @pytest.mark.parametrize(
        ("rank", "most", "expected"), [(5, 20, 8), (8, 8, 8), (9, 20, 16), (9, 15, 9), (3, 3, 3), (4, 3, None)]
    )
    def test_it_becomes_a_multiple_of_8_where_that_still_saves(
        self, rank: int, most: int, expected: int | None
    ) -> None:
        assert worth(rank, most) == expected


class TestLinear:
    def test_a_weight_whose_rank_is_kept_in_full_answers_the_same(self) -> None:
        torch.manual_seed(1)
        layer = nn.Linear(48, 40)
        with torch.no_grad():
            layer.weight.copy_(torch.randn(40, 5) @ torch.randn(5, 48) / 8)
        chain = linear_chain(layer, 0.999999)
        assert [tuple(part.weight.shape) for part in chain] == [(8, 48), (40, 8)]
        assert [part.bias is not None for part in chain] == [False, True]
        given = torch.randn(6, 3, 48)
        torch.testing.assert_close(chain(given), layer(given), rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("energy", [0.3, 0.5, 0.7])
    def test_at_least_the_energy_is_kept_with_fewer_products(self, energy: float) -> None:
        torch.manual_seed(2)
        layer = nn.Linear(64, 96, bias=False)
        one, two = linear_chain(layer, energy)
        assert kept_energy(layer.weight, (two.weight @ one.weight).detach().double().numpy()) >= energy
        assert one.weight.numel() + two.weight.numel() < 64 * 96
        norms = [float(torch.linalg.norm(part.weight.detach())) for part in (one, two)]
        assert norms[0] == pytest.approx(norms[1], rel=1e-4)

    def test_where_it_would_not_save_there_is_none(self) -> None:
        assert linear_chain(nn.Linear(64, 96), 0.99) is None


@pytest.mark.parametrize("shape", SHAPES, ids=str)
class TestConvolution:
    def layer(self, shape: dict[str, Any]) -> Any:
        torch.manual_seed(3)
        return nn.Conv2d(12, 20, 3, **shape)

    def test_tucker_of_a_weight_whose_ranks_are_kept_answers_the_same(self, shape: dict[str, Any]) -> None:
        layer = self.layer(shape)
        with torch.no_grad():
            parts = torch.randn(3, 2, 3, 3), torch.randn(20, 3), torch.randn(12, 2)
            layer.weight.copy_(torch.einsum("abhw,oa,ib->oihw", *parts) / 10)
        chain = tucker_chain(layer, 0.999999, 0)
        assert [tuple(part.weight.shape) for part in chain] == [(8, 12, 1, 1), (8, 8, 3, 3), (20, 8, 1, 1)]
        given = torch.randn(2, 12, 9, 11)
        torch.testing.assert_close(chain(given), layer(given), rtol=1e-3, atol=1e-4)

    def test_cp_of_a_weight_of_its_rank_answers_the_same(self, shape: dict[str, Any]) -> None:
        layer = self.layer(shape)
        with torch.no_grad():
            parts = (torch.randn(size, 2) for size in (20, 12, 3, 3))
            layer.weight.copy_(torch.einsum("or,ir,hr,wr->oihw", *parts) / 10)
        chain = cp_chain(layer, 0.999999, 0)
        sizes = [(8, 12, 1, 1), (8, 1, 3, 1), (8, 1, 1, 3), (20, 8, 1, 1)]
        assert [tuple(part.weight.shape) for part in chain] == sizes
        given = torch.randn(2, 12, 9, 11)
        scale = float(layer(given).detach().abs().max())
        torch.testing.assert_close(chain(given), layer(given), rtol=0.0, atol=0.01 * scale)

    @pytest.mark.parametrize("energy", [0.3, 0.5])
    @pytest.mark.parametrize("make", [tucker_chain, cp_chain])
    def test_at_least_the_energy_is_kept(self, make: Any, energy: float, shape: dict[str, Any]) -> None:
        layer = self.layer(shape)
        chain = make(layer, energy, 0)
        assert kept_energy(layer.weight, kernel_of(chain)) >= energy - 1e-6


class TestSize:
    def test_products_and_parameters_are_those_counted_by_hand(self, factorized: Any) -> None:
        before, after = factorized("smooth", energy=0.9999)
        made = load_live(after.model)
        assert [tuple(part.weight.shape) for part in made.conv] == [(8, 16, 1, 1), (8, 8, 3, 3), (24, 8, 1, 1)]
        assert [tuple(part.weight.shape) for part in made.wide] == [(8, 384), (64, 8)]
        count = TorchFormat().work
        assert count(before.model, Workload()).macs == 16 * 24 * 16 * 9 + 384 * 64 + 64 * 4
        convolved = 64 * 16 * 8 + 16 * 8 * 8 * 9 + 16 * 8 * 24
        assert count(after.model, Workload()).macs == convolved + 384 * 8 + 8 * 64 + 64 * 4
        convolved = 16 * 8 + 8 * 8 * 9 + 8 * 24 + 24
        numbers = sum(parameter.numel() for parameter in made.parameters())
        assert numbers == convolved + 384 * 8 + 8 * 64 + 64 + 64 * 4 + 4
        np.testing.assert_allclose(answers(after, 3), answers(before, 3), rtol=1e-3, atol=1e-4)

    @pytest.mark.parametrize(
        ("layers", "changed"), [("linear", {"wide"}), ("conv", {"conv"}), ("all", {"wide", "conv"})]
    )
    def test_only_the_kinds_that_are_asked_for_are_replaced(
        self, layers: str, changed: set[str], factorized: Any
    ) -> None:
        before, after = factorized("smooth", layers=layers)
        made = load_live(after.model)
        assert {name for name, part in made.named_children() if isinstance(part, nn.Sequential)} == changed
        assert {line.partition(":")[0] for line in Factorize().changes(before, after)} == changed

    def test_what_became_of_a_layer_is_told(self, factorized: Any) -> None:
        lines = Factorize().changes(*factorized("smooth"))
        assert "conv: 16→24 3×3 → 16→8 1×1, 8→8 3×3, 8→24 1×1" in lines
        assert "wide: 384→64 → 384→8, 8→64" in lines

    def test_convolutions_can_become_products_of_vectors(self, factorized: Any) -> None:
        _, after = factorized("smooth", convolution="cp", layers="conv", energy=0.8)
        kernels = [tuple(part.kernel_size) for part in load_live(after.model).conv]
        assert kernels == [(1, 1), (3, 1), (1, 3), (1, 1)]


class TestKept:
    def test_layers_whose_code_is_not_asked_are_found_by_themselves(self, factorized: Any) -> None:
        _, after = factorized("encoder", energy=0.4)
        layer = load_live(after.model).layers[0]
        assert type(layer.self_attn.out_proj).__name__ == "NonDynamicallyQuantizableLinear"
        assert isinstance(layer.linear1, nn.Linear)

    def test_layers_that_share_a_weight_stay(self, factorized: Any) -> None:
        _, after = factorized("tied", energy=0.3)
        made = load_live(after.model)
        assert made.one.weight is made.two.weight
        assert isinstance(made.enter, nn.Sequential)

    def test_layers_named_in_keep_stay(self, factorized: Any) -> None:
        _, after = factorized("smooth", keep="wide")
        made = load_live(after.model)
        assert (type(made.wide), type(made.conv)) == (nn.Linear, nn.Sequential)
        with pytest.raises(BadInput, match="no layer named 'thin' to keep"):
            factorized("smooth", keep="thin")


class TestVariant:
    @pytest.mark.parametrize("convolution", ["tucker", "cp"])
    def test_the_step_is_enough_to_do_it_again_and_the_given_files_stay(
        self, convolution: str, factory: Factory, context: Any
    ) -> None:
        variant, task = factory("smooth")
        before = contents(variant.model.path)
        made = Factorize(convolution=convolution).apply(variant, context(variant, task, "one"))
        (step,) = made.steps
        again = plugins.make("techniques", step.technique, step.options)
        other = again.apply(variant, context(variant, task, "other"))
        assert (other.model.digest, other.steps) == (made.model.digest, made.steps)
        assert made.model.digest != variant.model.digest
        assert contents(variant.model.path) == before

    def test_inputs_and_outputs_stay_and_it_can_be_exported(self, factorized: Any, context: Any) -> None:
        pytest.importorskip("onnxscript")
        before, after = factorized("smooth")
        assert after.model.signature == before.model.signature
        assert answers(after, 3).shape == (3, 4)
        exported = plugins.make("techniques", "export-onnx").apply(after, context(after, Task(), "exported"))
        np.testing.assert_allclose(answers(exported, 3), answers(after, 3), rtol=1e-3, atol=1e-4)

    def test_a_pruned_network_can_be_factorized(self, factory: Factory, context: Any) -> None:
        pytest.importorskip("torch_pruning")
        variant, task = factory("cnn")
        prune = plugins.make("techniques", "prune", options(amount=0.25, round_to=1))
        pruned = prune.apply(variant, context(variant, task, "pruned"))
        made = Factorize(energy=0.3).apply(pruned, context(pruned, task))
        assert [step.technique for step in made.steps] == ["prune", "factorize"]
        count = TorchFormat().work
        assert count(made.model, Workload()).macs < count(pruned.model, Workload()).macs


class TestRefusals:
    @pytest.mark.parametrize("energy", [0.0, 1.0, -1.0, float("nan")])
    def test_an_energy_that_is_no_share(self, energy: float) -> None:
        with pytest.raises(BadInput, match="between 0 and 1"):
            Factorize(energy=energy)

    @pytest.mark.parametrize("wrong", [{"layers": "odd"}, {"convolution": "qr"}])
    def test_a_choice_that_does_not_exist(self, wrong: dict[str, str], factory: Factory) -> None:
        assert "choose" in str(Factorize(**wrong).refuses(*factory("mlp")))

    def test_another_format(self, factory: Factory) -> None:
        variant, task = factory("mlp")
        other = replace(variant, model=replace(variant.model, format="onnx"), settings=Settings(runtime="onnxruntime"))
        assert "this one is onnx" in str(Factorize().refuses(other, task))

    def test_layers_that_would_take_more_products(self, factorized: Any) -> None:
        with pytest.raises(NothingToGain, match=r"no layer would take fewer multiply-accumulates at energy 0\.99"):
            factorized("mlp", energy=0.99)

    def test_a_module_whose_code_looks_into_all_its_layers(self, factory: Factory, context: Any) -> None:
        variant, task = factory("peeking")
        with pytest.raises(Refused, match="its code looks into them"):
            Factorize(energy=0.3).apply(variant, context(variant, task))

    def test_a_missing_package_is_named_with_its_extra(self, factorized: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "tensorly", None)
        with pytest.raises(MissingExtra, match=r"needs the package tensorly: .*trimtab\[compress\]"):
            factorized("smooth")
        factorized("smooth", folder="linear", layers="linear")


@pytest.mark.parametrize("network", ["mlp", "cnn"])
def test_refitted_it_answers_more_like_the_whole(network: str, factorized: Any) -> None:
    off = []
    for refit in (False, True):
        before, after = factorized(network, folder=str(refit), energy=0.3, refit=refit)
        off.append(float(np.square(answers(after, 64) - answers(before, 64)).mean()))
    assert off[1] < off[0]
