"""Pruning: which channels go, what is left of small networks counted by hand, and what must stay."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("torch_pruning")

from trimtab.core import plugins  # noqa: E402 (after the skips)
from trimtab.core.errors import BadInput, MissingExtra, NothingToGain, Refused  # noqa: E402
from trimtab.core.values import Task, Variant, Workload, options  # noqa: E402
from trimtab.formats.torch import TorchFormat  # noqa: E402
from trimtab.formats.torch_tracing import load_live  # noqa: E402
from trimtab.techniques.channels import Group  # noqa: E402
from trimtab.techniques.prune import Prune, left_globally, rounded  # noqa: E402
from trimtab.testing.laws import contents  # noqa: E402

Factory = Callable[[str], tuple[Variant, Task]]
NETWORKS = ["mlp", "cnn", "grouped", "transformer", "fused", "whole", "shared", "rigid"]


@pytest.fixture
def pruned(factory: Factory, context: Any) -> Callable[..., tuple[Variant, Variant]]:
    """Return a function that prunes a network: what it was and what it is now."""

    def make(name: str, folder: str = "made", **given: Any) -> tuple[Variant, Variant]:
        variant, task = factory(name)
        technique = Prune(**{"round_to": 1, "refit": False, **given})
        assert technique.refuses(variant, task) is None
        return variant, technique.apply(variant, context(variant, task, folder))

    return make


def parameters(variant: Variant) -> int:
    return sum(parameter.numel() for parameter in load_live(variant.model).parameters())


def macs(variant: Variant) -> int:
    return TorchFormat().work(variant.model, Workload()).macs


def random_inputs(variant: Variant, items: int) -> dict[str, Any]:
    rng, (spec,) = np.random.default_rng(5), variant.model.signature.inputs
    shape = (items, *spec.shape[1:])
    if spec.dtype == "int64":
        return {spec.name: rng.integers(0, 20, shape)}
    return {spec.name: rng.normal(size=shape).astype(np.float32)}


def answers(variant: Variant, inputs: dict[str, Any]) -> Any:
    return plugins.make("runtimes", variant.settings.runtime).load(variant)(inputs)["output"].copy()


class TestSize:
    def test_of_hidden_layers_every_second_neuron_goes(self, pruned: Any) -> None:
        before, after = pruned("mlp")
        assert parameters(before) == (8 * 32 + 32) + (32 * 24 + 24) + (24 * 4 + 4)
        assert parameters(after) == (8 * 16 + 16) + (16 * 12 + 12) + (12 * 4 + 4)
        assert macs(after) == 8 * 16 + 16 * 12 + 12 * 4

    def test_of_a_network_with_a_shortcut_and_a_depthwise_layer_every_second_channel_goes(self, pruned: Any) -> None:
        before, after = pruned("cnn")
        norms = 2 * (16 + 16 + 16 + 16 + 32)
        assert parameters(before) == 3 * 16 * 9 + 2 * 16 * 16 * 9 + 16 * 9 + 16 * 32 + norms + 32 * 4 + 4
        assert parameters(after) == 3 * 8 * 9 + 2 * 8 * 8 * 9 + 8 * 9 + 8 * 16 + norms // 2 + 16 * 4 + 4
        assert macs(after) == 64 * (3 * 8 * 9 + 2 * 8 * 8 * 9 + 8 * 9) + 16 * 8 * 16 + 16 * 4

    @pytest.mark.parametrize("network", ["transformer", "fused"])
    def test_of_a_transformer_heads_and_the_width_between_layers_go(self, network: str, pruned: Any) -> None:
        before, after = pruned(network)
        layers = len(load_live(before.model).layers)
        around = 20 * 16 + 6 * 16 + 16 * 4 + 4

        def layer(heads: int, between: int) -> int:
            width = heads * 4
            attention = 3 * (16 * width + width) + width * 16 + 16
            return attention + 16 * between + between + between * 16 + 16 + 4 * 16

        assert parameters(before) == around + layers * layer(4, 32)
        assert parameters(after) == around + layers * layer(2, 16)
        attention = load_live(after.model).layers[0].attention
        assert (attention.heads if network == "fused" else attention.num_heads) == 2

    @pytest.mark.parametrize("network", ["transformer", "whole"])
    def test_with_width_what_attention_reads_and_writes_goes_too(self, network: str, pruned: Any) -> None:
        before, after = pruned(network, width=True)
        layers = len(load_live(before.model).layers)
        between = 8 * 16 + 16 + 16 * 8 + 8 + 4 * 8
        # Four layers in all of 8 by 8: of `transformer` two heads of 4, of PyTorch's own attention four heads of 2.
        assert parameters(after) == 20 * 8 + 6 * 8 + 8 * 4 + 4 + layers * (4 * (8 * 8 + 8) + between)

    def test_of_grouped_layers_each_part_loses_the_same(self, pruned: Any) -> None:
        _, after = pruned("grouped")
        made = load_live(after.model)
        assert (made.stem.out_channels, made.grouped.out_channels, made.grouped.groups) == (8, 12, 4)
        assert (made.norm.num_channels, made.norm.num_groups, made.head.in_features) == (12, 2, 12 * 16)
        assert parameters(after) == (3 * 8 * 9 + 8) + (12 * 2 * 9 + 12) + 2 * 12 + (12 * 16 * 4 + 4)

    @pytest.mark.parametrize("amount", [0.25, 0.75])
    def test_the_amount_is_the_share_that_goes(self, amount: float, pruned: Any) -> None:
        _, after = pruned("mlp", amount=amount)
        assert [layer.out_features for layer in load_live(after.model).layers] == [
            32 * (1 - amount), 24 * (1 - amount), 4
        ]  # fmt: skip

    def test_on_the_whole_the_share_goes_wherever_it_matters_least(self, pruned: Any) -> None:
        _, after = pruned("mlp", scope="global")
        first, second, last = (layer.out_features for layer in load_live(after.model).layers)
        assert (first + second, last) == (28, 4)


class TestChoice:
    def test_what_is_left_computes_what_the_rest_of_the_neurons_did(self, pruned: Any) -> None:
        before, after = pruned("mlp")
        whole, left = ([(layer.weight, layer.bias) for layer in load_live(v.model).layers] for v in (before, after))
        (one, _), (two, _), _ = whole
        first = kept_rows(one, left[0][0])
        second = kept_rows(two[:, first], left[1][0])
        inputs = random_inputs(before, 7)
        x = inputs["x"]
        rows = (first, second, np.arange(4))
        columns = (np.arange(8), first, second)
        for number, ((weight, bias), out, into) in enumerate(zip(whole, rows, columns, strict=True)):
            x = x @ weight.detach().numpy()[np.ix_(out, into)].T + bias.detach().numpy()[out]
            x = np.maximum(x, 0) if number < 2 else x
        np.testing.assert_allclose(answers(after, inputs), x, rtol=1e-5, atol=1e-5)

    def test_what_is_left_of_a_cnn_answers_as_the_whole_with_the_other_channels_silent(self, pruned: Any) -> None:
        before, after = pruned("cnn")
        whole, left = load_live(before.model), load_live(after.model)
        stem = kept_rows(whole.stem.weight, left.stem.weight)
        inner = kept_rows(whole.block.conv1.weight[:, stem], left.block.conv1.weight)
        last = kept_rows(whole.pointwise.weight[:, stem], left.pointwise.weight)
        silent = {"stem_norm": stem, "block.norm1": inner, "block.norm2": stem, "depthwise_norm": stem,
                  "pointwise_norm": last}  # fmt: skip
        inputs = random_inputs(before, 5)
        with torch.no_grad():
            for name, channels in silent.items():
                norm = whole.get_submodule(name)
                others = np.setdiff1d(np.arange(norm.num_features), channels)
                norm.weight[others] = 0.0
                norm.bias[others] = 0.0
            expected = whole(torch.from_numpy(inputs["image"])).numpy()
        np.testing.assert_allclose(answers(after, inputs), expected, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize(("importance", "power"), [("l1", 1), ("l2", 2), ("lamp", 2)])
    def test_the_neurons_of_the_largest_norms_stay(self, importance: str, power: int, pruned: Any) -> None:
        before, after = pruned("mlp", importance=importance)
        one, two = (layer.weight.detach().numpy() for layer in load_live(before.model).layers[:2])
        norms = (abs(one) ** power).sum(1) + (abs(two) ** power).sum(0)
        kept = kept_rows(one, load_live(after.model).layers[0].weight)
        assert set(kept) == set(np.argsort(norms)[16:])

    def test_by_taylor_the_neurons_that_the_loss_feels_stay(self, factory: Factory, pruned: Any) -> None:
        before, after = pruned("mlp", importance="taylor")
        module = load_live(before.model)
        split = factory("mlp")[1].splits[0]
        scores = module(torch.tensor(np.load(split.inputs[0].path)))
        torch.nn.functional.cross_entropy(scores, torch.tensor(np.load(split.labels.path))).backward()
        one, two = ((layer.weight * layer.weight.grad).abs().detach().numpy() for layer in module.layers[:2])
        kept = kept_rows(module.layers[0].weight, load_live(after.model).layers[0].weight)
        assert set(kept) == set(np.argsort(one.sum(1) + two.sum(0))[16:])

    def test_by_bn_scale_the_channels_of_the_largest_factors_stay_and_other_groups_are_whole(self, pruned: Any) -> None:
        before, after = pruned("cnn", importance="bn-scale")
        factors = load_live(before.model).pointwise_norm.weight.abs().detach().numpy()
        expected = np.sort(factors[np.argsort(factors)[16:]])
        np.testing.assert_allclose(np.sort(load_live(after.model).pointwise_norm.weight.detach().numpy()), expected)
        with pytest.raises(Refused, match="nothing for bn-scale importance to read"):
            pruned("mlp", importance="bn-scale")

    def test_wide_normalizations_keep_their_order(self, pruned: Any) -> None:
        _, after = pruned("broad", width=True)
        kept = load_live(after.model).layers[0].norm1.weight.detach().numpy()
        assert len(kept) == 384
        assert (np.diff(kept) > 0).all()

    def test_a_global_ranking_takes_the_least_scores_but_leaves_every_group_a_tenth(self) -> None:
        def group(count: int, size: int = 1) -> Group:
            units = np.arange(count * size).reshape(count, size)
            return Group(root="", units=units, layers=(), link=None)

        small, large = (group(20), np.full(20, 0.1)), (group(10), np.arange(1.0, 11.0))
        assert left_globally([small, large], 0.5) == [5.0, 10.0]
        assert left_globally([small, large], 0.7) == [2.0, 7.0]
        heads = (group(2, 5), np.array([0.01, 9.0]))
        assert left_globally([heads, large], 0.3) == [1.0, 9.0]

    @pytest.mark.parametrize(
        ("count", "wanted", "multiple", "expected"),
        [(32, 16.0, 8, 16), (20, 10.0, 8, 8), (24, 12.0, 16, 16), (40, 20.0, 16, 16), (40, 20.0, 8, 24),
         (16, 8.0, 16, 8), (10, 5.0, 16, 8), (3, 0.3, 1, 1), (3, 2.9, 1, 3), (16, 15.2, 8, 15), (12, 6.0, 3, 6)],
    )  # fmt: skip
    def test_channels_are_rounded_to_the_nearest_multiple_that_neither_spares_nor_empties_the_layer(
        self, count: int, wanted: float, multiple: int, expected: int
    ) -> None:
        assert rounded(count, wanted, multiple) == expected


def kept_rows(whole: Any, left: Any) -> Any:
    """Return which rows of a weight are left, whatever became of its columns' number."""
    whole, left = (np.asarray(each.detach() if hasattr(each, "detach") else each) for each in (whole, left))
    return np.array([int(np.flatnonzero((whole == row).reshape(len(whole), -1).all(1))[0]) for row in left])


class TestRounding:
    def hardware(self, unit: int, asked: list[int]) -> Callable[[Variant], float]:
        """Return a clock of hardware that computes `unit` neurons in a second, and fewer in no less."""

        def clock(variant: Variant) -> float:
            widths = [layer.out_features for layer in load_live(variant.model).layers[:-1]]
            asked.append(sum(widths))
            return float(sum(math.ceil(width / unit) for width in widths))

        return clock

    @pytest.mark.parametrize(("unit", "round_to", "widths"), [(16, 16, [16, 16]), (1, 1, [10, 20]), (8, 8, [8, 24])])
    def test_the_rounding_with_the_least_time_per_channel_is_taken_and_told(
        self, unit: int, round_to: int, widths: list[int], factory: Factory, context: Any
    ) -> None:
        variant, task = factory("odd")
        asked: list[int] = []
        given = replace(context(variant, task), time=self.hardware(unit, asked))
        made = Prune().apply(variant, given)
        assert asked == [30, 32, 32]
        assert dict(made.steps[-1].options)["round_to"] == round_to
        assert [layer.out_features for layer in load_live(made.model).layers[:-1]] == widths
        assert [path.name for path in given.folder.iterdir()] == [made.model.path.name]

    def test_nothing_is_timed_where_all_roundings_are_one(self, factory: Factory, context: Any) -> None:
        variant, task = factory("cnn")
        asked: list[int] = []
        made = Prune().apply(variant, replace(context(variant, task), time=self.hardware(16, asked)))
        assert (asked, dict(made.steps[-1].options)) == ([], {"round_to": 1})

    def test_when_the_time_is_up_what_was_measured_is_taken(self, factory: Factory, context: Any) -> None:
        variant, task = factory("odd")
        asked: list[int] = []
        made = Prune().apply(variant, replace(context(variant, task), time=self.hardware(16, asked), deadline=0.0))
        assert (asked, dict(made.steps[-1].options)) == ([30], {"round_to": 1})


class TestKept:
    def why(self, before: Variant, after: Variant) -> dict[str, str]:
        lines = Prune().changes(before, after)
        return dict(line.removeprefix("kept ").split(": ", 1) for line in lines if line.startswith("kept "))

    def test_what_changed_is_told_layer_by_layer(self, pruned: Any) -> None:
        lines = Prune().changes(*pruned("transformer"))
        assert "layers.0.attention.query: 16 → 8 channels" in lines
        assert "layers.1.wide: 32 → 16 channels" in lines
        assert "layers.0.attention: 4 → 2 heads" in lines
        assert "kept head: its channels reach an output" in lines
        assert any(line.startswith("kept layers.0.narrow: attention reads or writes") for line in lines)

    def test_a_layer_that_the_code_counts_on_is_found_by_itself_and_named_in_the_step(self, pruned: Any) -> None:
        before, after = pruned("rigid")
        made = load_live(after.model)
        assert (made.first.out_features, made.second.out_features) == (32, 12)
        assert dict(after.steps[-1].options)["keep"] == "first"
        assert "the module fails without" in self.why(before, after)["first"]

    def test_attention_whose_heads_can_not_be_told_apart_is_whole(self, pruned: Any) -> None:
        before, after = pruned("shared")
        made = load_live(after.model).layers[0]
        assert (made.attention.query.out_features, made.attention.num_heads, made.wide.out_features) == (16, 4, 16)
        assert "can't be told apart" in self.why(before, after)["layers.0.attention.key"]

    def test_heads_that_divide_what_attention_reads_go_only_together_with_it(self, pruned: Any) -> None:
        _, after = pruned("divided")
        made = load_live(after.model).layers[0]
        assert (made.attention.num_heads, made.attention.query.out_features, made.wide.out_features) == (4, 16, 16)
        _, after = pruned("divided", "narrower", width=True)
        made = load_live(after.model).layers[0]
        assert (made.attention.num_heads, made.attention.query.weight.shape, made.wide.out_features) == (2, (8, 8), 16)

    def test_pytorchs_own_attention_is_whole_without_width(self, pruned: Any) -> None:
        before, after = pruned("whole")
        made = load_live(after.model).layers[0]
        assert (made.attention.attend.embed_dim, made.wide.out_features) == (16, 16)
        assert "width=true" in self.why(before, after)["layers.0.attention.attend"]

    def test_layers_that_share_a_weight_are_whole(self, pruned: Any) -> None:
        before, after = pruned("tied")
        made = load_live(after.model)
        assert (made.free.out_features, made.enter.out_features, made.two.out_features) == (12, 16, 16)
        assert made.one.weight is made.two.weight
        assert "shared with another layer" in self.why(before, after)["one"]

    @pytest.mark.parametrize("network", ["mlp", "cnn", "transformer"])
    def test_refitted_it_answers_more_like_the_whole(self, network: str, pruned: Any) -> None:
        found = []
        for refit in (False, True):
            before, after = pruned(network, folder=str(refit), amount=0.4, refit=refit)
            inputs = random_inputs(before, 64)
            found.append(float(np.square(answers(after, inputs) - answers(before, inputs)).mean()))
            assert dict(after.steps[-1].options).get("refit", True) is refit
        assert found[1] < found[0]

    def test_layers_named_in_keep_are_whole(self, pruned: Any) -> None:
        _, after = pruned("mlp", keep="layers.0")
        assert [layer.out_features for layer in load_live(after.model).layers] == [32, 12, 4]
        with pytest.raises(BadInput, match=r"no layer named 'layers\.9' to keep; its layers are: layers\.0, layers\.1"):
            pruned("mlp", keep="layers.9")


class TestVariant:
    @pytest.mark.parametrize("network", NETWORKS)
    def test_inputs_and_outputs_stay_and_any_number_of_items_runs(self, network: str, pruned: Any) -> None:
        before, after = pruned(network)
        assert after.model.signature == before.model.signature
        assert (after.settings, [step.technique for step in after.steps]) == (before.settings, ["prune"])
        for items in (1, 3):
            inputs = random_inputs(before, items)
            found = answers(after, inputs)
            assert found.shape == answers(before, inputs).shape
            assert np.isfinite(found).all()

    @pytest.mark.parametrize("network", NETWORKS)
    def test_the_step_is_enough_to_do_it_again_and_the_given_files_stay(
        self, network: str, factory: Factory, context: Any
    ) -> None:
        variant, task = factory(network)
        before = contents(variant.model.path)
        made = Prune().apply(variant, context(variant, task, "one"))
        again = plugins.make("techniques", "prune", made.steps[-1].options)
        other = again.apply(variant, context(variant, task, "other"))
        assert (other.model.digest, other.steps) == (made.model.digest, made.steps)
        assert made.model.digest != variant.model.digest
        assert contents(variant.model.path) == before

    @pytest.mark.parametrize("network", ["cnn", "transformer"])
    def test_the_result_can_be_exported_and_pruned_again(self, network: str, pruned: Any, context: Any) -> None:
        pytest.importorskip("onnxscript")
        before, after = pruned(network)
        exported = plugins.make("techniques", "export-onnx").apply(after, context(after, Task(), "exported"))
        inputs = random_inputs(before, 4)
        np.testing.assert_allclose(answers(exported, inputs), answers(after, inputs), rtol=1e-3, atol=1e-4)
        twice = Prune(round_to=1).apply(after, context(after, Task(), "twice"))
        assert parameters(twice) < parameters(after)

    def test_a_bundle_of_the_result_answers_without_the_technique(self, factory: Factory, tmp_path: Path) -> None:
        from trimtab.serving.bundle import load
        from trimtab.workbench.apply import apply

        variant, _ = factory("mlp")
        made = apply(variant, "prune", Task(), tmp_path / "out", options=options(amount=0.25, round_to=1))
        inputs = random_inputs(variant, 2)
        found = load(tmp_path / "out", trust_pickle=True)(inputs)["output"]
        np.testing.assert_allclose(found, answers(made, inputs), rtol=1e-6)


class TestRefusals:
    @pytest.mark.parametrize("amount", [0.0, 1.0, -0.5, 2.0, math.nan])
    def test_an_amount_that_is_no_share(self, amount: float) -> None:
        with pytest.raises(BadInput, match="between 0 and 1"):
            Prune(amount=amount)

    @pytest.mark.parametrize("wrong", [0, -8])
    def test_a_rounding_that_is_no_multiple(self, wrong: int) -> None:
        with pytest.raises(BadInput, match="is no multiple"):
            Prune(round_to=wrong)

    @pytest.mark.parametrize("wrong", [{"importance": "random"}, {"scope": "local"}])
    def test_a_choice_that_does_not_exist(self, wrong: dict[str, str], factory: Factory) -> None:
        assert "choose" in str(Prune(**wrong).refuses(*factory("mlp")))

    def test_another_format(self, factory: Factory) -> None:
        variant, task = factory("mlp")
        other = replace(variant, model=replace(variant.model, format="torch-export"))
        assert "this one is torch-export" in str(Prune().refuses(other, task))

    def test_taylor_importance_without_labels(self, factory: Factory) -> None:
        variant, task = factory("mlp")
        bare = replace(task, splits=tuple(replace(split, labels=None) for split in task.splits))
        for given in (Task(), bare):
            assert "needs labelled calibration data" in str(Prune(importance="taylor").refuses(variant, given))
        assert Prune(importance="taylor").refuses(variant, task) is None

    def test_a_module_that_runs_without_gradients(self, pruned: Any) -> None:
        with pytest.raises(Refused, match=r"none of this module's channels may be pruned \(inner.*can't trace"):
            pruned("frozen")

    def test_a_module_that_is_one_layer(self, pruned: Any) -> None:
        with pytest.raises(Refused, match="its channels reach an output"):
            pruned("narrow")

    def test_a_share_that_is_less_than_a_channel(self, pruned: Any) -> None:
        with pytest.raises(NothingToGain, match="give a larger amount"):
            pruned("mlp", amount=0.01)

    def test_a_missing_package_is_named_with_its_extra(self, pruned: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "torch_pruning", None)
        with pytest.raises(MissingExtra, match=r"pruning needs the package torch-pruning: .*trimtab\[compress\]"):
            pruned("mlp")
