"""Hints find what two networks have in common, cost nothing where they agree, and are trained and kept in a fit."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from trimtab.core.errors import BadInput  # noqa: E402 (after the skip)
from trimtab.core.values import Model, Signature, Task, TensorSpec  # noqa: E402
from trimtab.data.batches import feeds  # noqa: E402
from trimtab.formats.torch_tracing import load_live  # noqa: E402
from trimtab.students.networks import build  # noqa: E402
from trimtab.training.hints import Hints, attention_loss, feature_loss, relation_loss  # noqa: E402
from trimtab.training.network import tensors_of  # noqa: E402
from trimtab.training.recipe import Recipe  # noqa: E402
from trimtab.training.teacher import LiveTeacher, teacher_of  # noqa: E402
from trimtab.workbench.opening import open_model  # noqa: E402

nn = torch.nn

NETS = """
import torch
from torch import nn

class Stages(nn.Module):
    def __init__(self, *widths):
        super().__init__()
        self.stem = nn.Conv2d(1, widths[0], 3, padding=1)
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(one, two, 3, 2, 1), nn.BatchNorm2d(two), nn.ReLU())
            for one, two in zip(widths, widths[1:])
        )
        self.head = nn.Linear(widths[-1], 10)

    def forward(self, input):
        x = self.stem(input)
        for stage in self.stages:
            x = stage(x)
        return self.head(x.mean((2, 3)))

def wide():
    torch.manual_seed(1)
    return Stages(8, 16, 32)

def other():
    torch.manual_seed(2)
    return Stages(4, 24, 12)

example_inputs = {"input": torch.zeros(1, 1, 8, 8)}
"""

TOKENS = Signature(
    inputs=(
        TensorSpec(name="tokens", dtype="int64", shape=("batch", 6)),
        TensorSpec(name="attention_mask", dtype="int64", shape=("batch", 6)),
    ),
    outputs=(TensorSpec(name="output", dtype="float32", shape=("batch", 4)),),
)


class Layer(nn.Module):
    """A transformer's layer whose queries, keys and values come from three layers, or from one."""

    def __init__(self, width: int, heads: int, fused: bool) -> None:
        super().__init__()
        self.heads, self.fused = heads, fused
        if fused:
            self.qkv = nn.Linear(width, 3 * width)
        else:
            self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.norm, self.out = nn.LayerNorm(width), nn.Linear(width, width)

    def forward(self, x: Any) -> tuple[Any]:
        each = self.qkv(x).chunk(3, -1) if self.fused else (self.query(x), self.key(x), self.value(x))
        query, key, value = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in each)
        found = nn.functional.scaled_dot_product_attention(query, key, value)
        return (self.norm(x + self.out(found.transpose(1, 2).flatten(2))),)


class Encoder(nn.Module):
    """Some of them."""

    def __init__(self, width: int, layers: int, heads: int = 2, fused: bool = False) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, width)
        self.layers = nn.ModuleList(Layer(width, heads, fused) for _ in range(layers))
        self.head = nn.Linear(width, 4)

    def forward(self, tokens: Any, attention_mask: Any) -> Any:
        x = self.embed(tokens)
        for layer in self.layers:
            (x,) = layer(x)
        return self.head(x.mean(1))


@pytest.fixture
def teacher(tmp_path: Path) -> Callable[[str], Model]:
    """Return a function from the name of a factory to its model."""
    torch.set_num_threads(1)
    code = tmp_path / "nets.py"
    code.write_text(NETS)
    return lambda name: open_model(f"{code}:{name}", tmp_path / "opened").model


@pytest.fixture
def hints(image: Signature) -> Iterator[Callable[..., Hints]]:
    """Return a function that makes hints, which are closed in the end."""
    made: list[Hints] = []

    def make(kind: str, student: Any, *teachers: Any, signature: Signature = image) -> Hints:
        made.append(Hints(kind, student, teachers, signature))
        return made[-1]

    yield make
    for each in made:
        each.close()


def tokens(items: int = 3) -> dict[str, Any]:
    draw = torch.Generator().manual_seed(0)
    mask = torch.tensor([[1, 1, 1, 1, 0, 0]] * items)
    return {"tokens": torch.randint(0, 20, (items, 6), generator=draw), "attention_mask": mask}


class TestPairs:
    def test_maps_of_images_are_the_last_of_each_size_that_both_have(self, teacher: Any, hints: Any) -> None:
        student = build(kind="mobilenetv2", image=(1, 8, 8), classes=10, width=0.25, depth=0.1, called="input")
        found = hints("features", student, load_live(teacher("wide"))).pairs()
        places = {f"features.{place}": part for place, part in enumerate(student.features)}
        sizes = {}
        x = torch.zeros(1, 1, 8, 8)
        for name, part in places.items():
            x = part(x)
            sizes[tuple(x.shape[2:])] = name
        last = {(8, 8): sizes[8, 8], (4, 4): "features"}
        assert found == [(last[8, 8], "stem"), (last[4, 4], "stages.0")]

    @pytest.mark.parametrize(("own", "pairs"), [(2, [(0, 2), (1, 5)]), (3, [(0, 1), (1, 3), (2, 5)]), (6, None)])
    def test_layers_on_sequences_are_those_at_the_same_relative_depth(self, own: int, pairs: Any, hints: Any) -> None:
        found = hints("features", Encoder(8, own), Encoder(12, 6), signature=TOKENS)
        pairs = pairs or [(place, place) for place in range(6)]
        assert found.pairs() == [(f"layers.{one}", f"layers.{two}") for one, two in pairs]
        assert [tuple(adapter.weight.shape) for adapter in found.adapters] == [(12, 8)] * own

    def test_attention_of_transformers_is_queries_keys_and_values(self, hints: Any) -> None:
        found = hints("attention", Encoder(8, 1), Encoder(12, 2, 3, fused=True), signature=TOKENS).pairs()
        assert found == [(f"layers.0.{role}", "layers.1.qkv") for role in ("query", "key", "value")]

    def test_networks_with_nothing_in_common_are_told_so(self, teacher: Any, hints: Any, mlp: Any) -> None:
        for kind in ("features", "attention"):
            with pytest.raises(BadInput, match=f"hints={kind} finds nothing that both networks have in common"):
                hints(kind, mlp(), load_live(teacher("wide")))

    def test_hooks_are_gone_in_the_end(self, teacher: Any, image: Signature) -> None:
        student, model = load_live(teacher("wide")), load_live(teacher("other"))
        made = Hints("features", student, [model], image)
        assert any(part._forward_hooks for part in student.modules())
        made.close()
        assert not any(part._forward_hooks for net in (student, model) for part in net.modules())


class TestLoss:
    def test_a_network_that_is_its_teacher_has_none_but_for_the_adapters(self, teacher: Any, hints: Any) -> None:
        student, model, x = load_live(teacher("wide")), load_live(teacher("wide")), torch.randn(4, 1, 8, 8)
        for kind in ("attention", "features"):
            made = hints(kind, student, model)
            for adapter in made.adapters:
                nn.init.dirac_(adapter.weight)
                nn.init.zeros_(adapter.bias)
            student(x), model(x)
            assert float(made.loss({"input": x}).detach()) == pytest.approx(0, abs=1e-9)
        two = Encoder(8, 2)
        made = hints("attention", two, two, signature=TOKENS)
        two(**tokens())
        assert float(made.loss(tokens()).detach()) == pytest.approx(0, abs=1e-6)

    def test_features_are_in_units_of_the_teachers(self) -> None:
        own, other = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
        expected = np.mean((own - other).numpy() ** 2) / np.mean(other.numpy() ** 2)
        assert float(feature_loss(nn.Identity(), own, other)) == pytest.approx(expected)
        assert float(feature_loss(nn.Identity(), 9 * own, 9 * other)) == pytest.approx(expected)
        assert float(feature_loss(nn.Identity(), 0 * own, other)) == pytest.approx(1)

    def test_attention_of_images_asks_where_and_not_how_much(self) -> None:
        own, other = torch.randn(2, 3, 4, 4), torch.randn(2, 5, 4, 4)
        one, two = ((x.numpy() ** 2).sum(1).reshape(2, -1) for x in (own, other))
        cosines = (one * two).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(two, axis=1)
        assert float(attention_loss(own, other)) == pytest.approx(float(np.mean(2 - 2 * cosines)), rel=1e-5)
        assert float(attention_loss(5 * own, other)) == pytest.approx(float(attention_loss(own, other)), rel=1e-5)

    def test_relations_are_a_divergence_of_softmaxes_of_all_pairs(self) -> None:
        own, other = torch.randn(2, 5, 4), torch.randn(2, 5, 6)

        def relation(x: Any, item: int, head: int) -> Any:
            part = np.split(x[item].numpy().astype(np.float64), 2, axis=1)[head]
            scores = np.exp(part @ part.T / math.sqrt(part.shape[1]))
            return scores / scores.sum(1, keepdims=True)

        rows = [
            np.sum(relation(other, i, h) * np.log(relation(other, i, h) / relation(own, i, h)), axis=1)
            for i in range(2)
            for h in range(2)
        ]
        assert float(relation_loss(2, own, other)) == pytest.approx(float(np.mean(rows)), rel=1e-4)

    def test_tokens_that_are_masked_say_nothing(self) -> None:
        own, other, mask = torch.randn(2, 5, 4), torch.randn(2, 5, 4), torch.tensor([[1, 1, 1, 0, 0]] * 2).bool()
        for loss in (lambda *each: relation_loss(2, *each), lambda *each: feature_loss(nn.Identity(), *each)):
            before = float(loss(own, other, mask))
            changed = own.clone()
            changed[:, 3:] += 7
            assert float(loss(changed, other, mask)) == pytest.approx(before)
            assert float(loss(own[:, :3], other[:, :3], None)) == pytest.approx(before, rel=1e-5)

    def test_the_mask_is_found_among_the_inputs(self, hints: Any) -> None:
        student, model = Encoder(8, 1), Encoder(8, 1)
        made, given = hints("attention", student, model, signature=TOKENS), tokens()
        student(**given), model(**given)
        masked = float(made.loss(given))
        student(**given), model(**given)
        assert float(made.loss({"tokens": given["tokens"]})) != pytest.approx(masked)

    def test_several_teachers_count_alike(self, teacher: Any, hints: Any) -> None:
        student, x = load_live(teacher("wide")), torch.randn(4, 1, 8, 8)
        models = [load_live(teacher("other")), load_live(teacher("wide"))]
        alone = []
        for chosen in ([models[0]], [models[1]], models):
            made = hints("attention", student, *chosen)
            student(x), [model(x) for model in chosen]
            alone.append(float(made.loss({})))
        assert alone[2] == pytest.approx((alone[0] + alone[1]) / 2)

    def test_nothing_is_compared_unless_it_is_asked_for(self, teacher: Any, hints: Any) -> None:
        made = hints("none", load_live(teacher("wide")), load_live(teacher("other")))
        assert (made.loss({}), made.pairs(), len(made.adapters)) == (0.0, [], 0)


class TestFit:
    @pytest.fixture
    def guide(self, teacher: Any, image: Signature, few: Task, tmp_path: Path) -> Any:
        return teacher_of([teacher("wide")], image, few, tmp_path, live=True)

    def test_by_attention_a_student_comes_to_look_where_its_teacher_does(
        self, teacher: Any, guide: Any, few: Task, learn: Any
    ) -> None:
        def apart(student: Any, model: Any, x: Any) -> float:
            made = Hints("attention", student, [model], _image())
            student(x), model(x)
            found = float(made.loss({}))
            made.close()
            return found

        with_hints, without = (self.taught("attention", w, apart, teacher, guide, few, learn) for w in (1.0, 0.0))
        assert with_hints < 0.8 * without

    def test_by_features_a_students_maps_come_to_tell_its_teachers(
        self, teacher: Any, guide: Any, few: Task, learn: Any
    ) -> None:
        def unexplained(student: Any, model: Any, x: Any) -> float:
            maps = (net.stages[1](net.stages[0](net.stem(x))).detach() for net in (student, model))
            one, two = (each.transpose(0, 1).flatten(1).T for each in maps)
            one = torch.cat([one, torch.ones(len(one), 1)], 1)
            rest = two - one @ torch.linalg.lstsq(one, two).solution
            return float(rest.square().mean() / two.var())

        with_hints, without = (self.taught("features", w, unexplained, teacher, guide, few, learn) for w in (10.0, 0.0))
        assert with_hints < 0.8 * without

    def taught(self, kind: str, weight: float, judge: Any, teacher: Any, guide: Any, few: Task, learn: Any) -> float:
        """Return how far a student is from its teacher after a fit with hints of that weight."""
        student = load_live(teacher("other"))
        learn(student, few, Recipe(epochs=12, batch=16, lr=0.01, hints=kind, hint_weight=weight), teacher=guide)
        x = tensors_of(feeds(few, few.split("train"), slice(0, 64)))["input"]
        return float(judge(student, guide.modules[0], x))

    def test_it_goes_on_bit_for_bit_with_its_adapters(
        self, teacher: Any, guide: Any, few: Task, learn: Any, tmp_path: Path
    ) -> None:
        recipe = Recipe(epochs=3, batch=16, lr=0.01, hints="features", distill=0.5)
        whole = load_live(teacher("other"))
        learn(whole, few, recipe, teacher=guide, folder=tmp_path / "whole")
        for _ in range(40):
            parts = load_live(teacher("other"))
            ended = learn(
                parts, few, recipe, teacher=guide, folder=tmp_path / "parts", deadline=time.monotonic() + 0.01
            )
            if ended.finished:
                break
        assert ended.finished
        for name, value in whole.state_dict().items():
            assert torch.equal(value, parts.state_dict()[name]), name
        assert not any(part._forward_hooks for part in whole.modules())

    @pytest.mark.parametrize(
        "more", [{"ema": 0.9}, {"checkpointing": True}, {"augment": "mixup"}, {"precision": "bf16"}]
    )
    def test_hints_go_together_with(
        self, more: dict[str, Any], teacher: Any, guide: Any, few: Task, learn: Any
    ) -> None:
        student = load_live(teacher("other"))
        recipe = Recipe(epochs=2, batch=16, hints="features", distill=0.5, **more)
        fitted = learn(student, few, recipe, teacher=guide)
        assert all(math.isfinite(epoch.loss) for epoch in fitted.history)

    def test_recomputed_blocks_learn_the_same(self, teacher: Any, guide: Any, few: Task, learn: Any) -> None:
        ends = []
        for checkpointing in (False, True):
            student = load_live(teacher("other"))
            recipe = Recipe(epochs=1, batch=16, hints="features", distill=0.5, checkpointing=checkpointing)
            learn(student, few, recipe, teacher=guide)
            ends.append(student.state_dict())
        for name, value in ends[0].items():
            torch.testing.assert_close(value, ends[1][name])

    def test_a_compiled_network_can_not_be_looked_into(self) -> None:
        with pytest.raises(BadInput, match="can't look into a compiled network"):
            Recipe(hints="features", compile=True)

    def test_a_live_teacher_shows_its_networks(self, guide: Any) -> None:
        assert isinstance(guide, LiveTeacher)
        assert [type(module).__name__ for module in guide.modules] == ["Stages"]
        assert Recipe(hints="attention").live


def _image() -> Signature:
    return Signature(
        inputs=(TensorSpec(name="input", dtype="float32", shape=("batch", 1, 8, 8)),),
        outputs=(TensorSpec(name="output", dtype="float32", shape=("batch", 10)),),
    )
