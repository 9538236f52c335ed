"""The fit loop: what it learns, that it goes on bit for bit where it was killed, and what it does when it diverges."""

from __future__ import annotations

import copy
import math
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trimtab.core.errors import BadInput, TrimtabError
from trimtab.core.values import Model, Signature, Task, TensorSpec
from trimtab.data.batches import labels as labels_of
from trimtab.data.task import open_task
from trimtab.training import fit as fitting
from trimtab.training.checkpoint import FILE, Epoch, restore
from trimtab.training.fit import Course, Fitted, fit
from trimtab.training.recipe import Recipe

torch = pytest.importorskip("torch")

from trimtab.training.network import answers_of  # noqa: E402 (after the skip)

PLAIN = {"optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.0, "schedule": "constant", "warmup": 0.0}
ALL = {
    "epochs": 3, "batch": 32, "accumulate": 2, "optimizer": "adam-then-sgd", "label_smoothing": 0.1, "dropout": 0.3,
    "class_weights": "balanced", "l1": 1e-5, "clip": 1.0, "ema": 0.9,
}  # fmt: skip
RECIPES = {
    "everything, from epoch to epoch": Recipe(**ALL, switch="epoch:1", augment="crop+rotate+erase+mixup"),
    "everything else, from step to step": Recipe(
        **ALL, switch="step:6", augment="flip+scale", precision="bf16", channels_last=True, checkpointing=True
    ),
    "one cycle of RMSprop": Recipe(epochs=3, batch=32, optimizer="rmsprop", schedule="one-cycle", dropout=0.5),
    "Nesterov in steps": Recipe(epochs=3, batch=32, optimizer="sgd", schedule="step", augment="flip", dropout=0.2),
    "bytes": Recipe(epochs=3, batch=32, optimizer="sgd", augment="flip", store="uint8"),
}


class Killed(Exception):
    """Stands for the signal that ends a process."""


def weights(module: Any) -> dict[str, Any]:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def same(one: Any, other: Any) -> bool:
    here, there = weights(one), weights(other)
    return set(here) == set(there) and all(torch.equal(value, there[name]) for name, value in here.items())


def timeless(fitted: Fitted) -> Fitted:
    history = tuple(replace(each, seconds=0, cpu_s=0, waited_s=0, read_s=0) for each in fitted.history)
    return replace(fitted, history=history, keeping=None)


def test_a_small_network_learns_digits(mlp, learn, digits: Task, image: Signature) -> None:
    module = mlp()
    heard: list[Epoch] = []
    fitted = learn(module, digits, Recipe(epochs=8, lr=5e-3), heard=heard.append)
    assert fitted.finished
    assert fitted.history == tuple(heard)
    assert [epoch.number for epoch in heard] == list(range(1, 9))
    best = max(epoch.score for epoch in heard)
    assert best > 0.9
    select = digits.split("select")
    found = answers_of(module, image, digits, select).argmax(axis=1)
    assert np.mean(found == labels_of(select)) == best
    assert not module.training


def test_what_an_epoch_tells_is_what_happened(mlp, learn, few: Task) -> None:
    recipe = Recipe(epochs=2, batch=32, optimizer="sgd", lr=0.1, schedule="step", warmup=1.0)
    first, second = learn(mlp(), few, recipe).history
    assert (first.steps, second.steps) == (4, 8)
    assert first.rate == pytest.approx(0.1)
    assert second.rate == pytest.approx(0.001)
    assert {first.optimizer, second.optimizer} == {"sgd"}
    assert second.loss < first.loss == pytest.approx(math.log(10), abs=0.5)
    assert all(
        epoch.seconds > 0 and epoch.cpu_s > 0 and epoch.read_s > 0 and 0 <= epoch.waited_s <= epoch.seconds
        for epoch in (first, second)
    )


def augmented(recipe: Recipe) -> None:
    if recipe.augmentations:
        pytest.importorskip("kornia")


@pytest.mark.parametrize("name", RECIPES)
def test_killed_after_every_step_it_ends_as_if_it_never_was(name: str, conv, learn, few: Task, tmp_path: Path) -> None:
    recipe = RECIPES[name]
    augmented(recipe)
    whole, parts = conv(), conv()
    expected = learn(whole, few, recipe)
    found, calls = None, 0
    while found is None or not found.finished:
        parts = conv(seed=calls)  # a new process knows nothing of the weights, nor of the random numbers drawn so far
        found = learn(parts, few, recipe, folder=tmp_path / "parts", deadline=0.0)
        calls += 1
    assert calls == 10, "twelve steps, one a call; after the last one of an epoch the next epoch begins"
    assert same(parts, whole)
    assert timeless(found) == timeless(expected)


@pytest.mark.parametrize("name", RECIPES)
def test_killed_after_an_epoch_it_ends_as_if_it_never_was(name: str, conv, learn, few: Task, tmp_path: Path) -> None:
    recipe = RECIPES[name]
    augmented(recipe)
    whole, parts = conv(), conv()
    expected = learn(whole, few, recipe)

    def killing(epoch: Epoch) -> None:
        raise Killed

    for seed in (0, 1, 2):
        with pytest.raises(Killed):
            learn(conv(seed), few, recipe, folder=tmp_path / "parts", heard=killing)
    found = learn(parts, few, recipe, folder=tmp_path / "parts", heard=killing)
    assert same(parts, whole)
    assert timeless(found) == timeless(expected)


@pytest.mark.parametrize(("pause", "kept"), [(-1.0, 6), (1e9, 4)], ids=["after every step", "after the epoch"])
def test_killed_within_an_epoch_it_goes_on_from_the_last_checkpoint(
    pause: float, kept: int, conv, learn, few: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = RECIPES["one cycle of RMSprop"]
    whole, parts = conv(), conv()
    expected = learn(whole, few, recipe)
    monkeypatch.setattr(fitting, "_CHECKPOINT_S", pause)
    calls = []

    class Dying(torch.nn.Sequential):
        def forward(self, input: Any) -> Any:
            calls.extend([1] * self.training)
            if len(calls) == 7:
                raise Killed
            return super().forward(input)

    dying = conv()
    dying.__class__ = Dying
    with pytest.raises(Killed):
        learn(dying, few, recipe, folder=tmp_path / "parts")
    assert restore(tmp_path / "parts", key(tmp_path / "parts"))[0].steps == kept
    found = learn(parts, few, recipe, folder=tmp_path / "parts")
    assert same(parts, whole)
    assert timeless(found) == timeless(expected)


def test_the_time_that_was_spent_before_it_was_killed_counts(mlp, learn, few: Task, tmp_path: Path) -> None:
    recipe, spent = Recipe(epochs=1, batch=32), []
    while not (fitted := learn(mlp(), few, recipe, folder=tmp_path / "parts", deadline=0.0)).finished:
        spent.append(restore(tmp_path / "parts", key(tmp_path / "parts"))[0].spent)
    assert len(spent) == 4 - 1
    assert [tuple(sorted(column)) for column in zip(*spent, strict=True)] == list(zip(*spent, strict=True))
    assert fitted.history[0].seconds > spent[-1][0]


def key(folder: Path) -> str:
    from safetensors import safe_open

    with safe_open(folder / FILE, framework="pt") as file:
        return str(file.metadata()["key"])


def test_a_fit_that_is_done_is_not_done_again(mlp, learn, few: Task, tmp_path: Path) -> None:
    first, again = mlp(), mlp(1)
    expected = learn(first, few, Recipe(epochs=2), folder=tmp_path / "one")
    assert (
        learn(again, few, Recipe(epochs=2), folder=tmp_path / "one", heard=lambda epoch: pytest.fail("again"))
        == expected
    )
    assert same(first, again)


def test_how_items_are_kept_changes_no_bit_or_hardly_any(conv, learn, few: Task) -> None:
    recipe, modules = Recipe(epochs=2, batch=32, optimizer="sgd"), {}
    for store in ("as-given", "float32", "uint8", "bf16"):
        modules[store] = conv()
        fitted = learn(modules[store], few, replace(recipe, store=store))
        assert (fitted.keeping.store if fitted.keeping else "as-given") == store
    assert same(modules["float32"], modules["as-given"])
    for store, most in (("uint8", 1e-4), ("bf16", 0.1)):
        apart = [float((one - other).abs().max()) for one, other in
                 zip(modules[store].parameters(), modules["as-given"].parameters(), strict=True)]  # fmt: skip
        assert 0 < max(apart) < most


def test_items_that_a_byte_can_not_hold_are_refused_before_anything_is_learnt(
    mlp, learn, image: Signature, tmp_path: Path
) -> None:
    inputs = np.random.default_rng(0).standard_normal((200, 1, 8, 8)).astype(np.float32)
    given = {"input": inputs, "labels": np.arange(200) % 10, "split": np.repeat(["train", "test"], 100)}
    model = Model(format="fake", path=Path("net.py"), digest="fake", signature=image)
    task = open_task(given, model, tmp_path / "data")
    with pytest.raises(BadInput, match="store=uint8 can't hold the input 'input' exactly: it takes more than 256"):
        learn(mlp(), task, Recipe(store="uint8"), folder=tmp_path / "fit")
    assert not (tmp_path / "fit" / FILE).exists()


def test_the_seed_is_the_only_chance(conv, learn, few: Task) -> None:
    modules = [conv() for _ in range(3)]
    for module, seed in zip(modules, (5, 5, 6), strict=True):
        torch.rand(seed)  # whatever was drawn before
        learn(module, few, Recipe(epochs=1, batch=32, dropout=0.5, seed=seed))
    assert same(modules[0], modules[1])
    assert not same(modules[0], modules[2])


def test_another_recipe_other_data_or_another_start_does_not_go_on(
    mlp, learn, few: Task, digits: Task, tmp_path
) -> None:
    folder = tmp_path / "one"
    learn(mlp(), few, Recipe(epochs=1), folder=folder)
    for task, recipe, start in (
        (few, Recipe(epochs=2), "here"),
        (digits, Recipe(epochs=1), "here"),
        (few, Recipe(epochs=1), "there"),
    ):
        with pytest.raises(BadInput, match="of another network, other data, another recipe or other code"):
            learn(mlp(), task, recipe, folder=folder, start=start)


def test_gradients_of_the_parts_of_a_batch_add_up_to_those_of_the_whole(mlp, learn, few: Task) -> None:
    found = []
    for accumulate in (1, 4, 32):
        module = mlp()
        learn(module, few, Recipe(epochs=1, batch=32, accumulate=accumulate, **{**PLAIN, "lr": 0.1}))
        found.append(weights(module))
    for other in found[1:]:
        for name, value in other.items():
            torch.testing.assert_close(value, found[0][name], atol=1e-6, rtol=1e-5)


def one_step(module: Any, learn: Callable[..., Fitted], task: Task, recipe: Recipe) -> Any:
    """Return how far one step moves all weights together (Euclidean norm)."""
    before = torch.cat([weight.detach().reshape(-1).clone() for weight in module.parameters()])
    learn(module, task, recipe, deadline=0.0)
    return (torch.cat([weight.detach().reshape(-1) for weight in module.parameters()]) - before).norm()


def test_clipping_bounds_a_step(mlp, learn, few: Task) -> None:
    recipe = Recipe(batch=32, lr=1.0, **PLAIN)
    free = one_step(mlp(), learn, few, recipe)
    assert float(free) > 0.2
    assert float(one_step(mlp(), learn, few, replace(recipe, clip=0.1))) == pytest.approx(0.1, rel=1e-4)
    assert float(one_step(mlp(), learn, few, replace(recipe, clip=1e6))) == pytest.approx(float(free))


def test_weight_decay_and_l1_make_weights_small_each_in_its_way(mlp, learn, few: Task) -> None:
    sizes = {}
    for name, given in {"none": {}, "l1": {"l1": 0.01}, "l2": {"weight_decay": 0.05}}.items():
        module = mlp()
        learn(module, few, Recipe(epochs=15, batch=32, lr=0.1, **{**PLAIN, **given}))
        weight = module[1].weight.detach().abs()
        sizes[name] = (float((weight < 3e-3).float().mean()), float(weight.square().sum()))
    assert sizes["l1"][0] > 3 * sizes["none"][0], "many are next to nothing"
    assert sizes["l2"][1] < 0.8 * sizes["none"][1], "all are smaller"


def scored(*values: float) -> Callable[[Any], float]:
    """Judge every epoch by the next of some numbers."""
    coming = iter(values)
    return lambda outputs: next(coming)


def test_it_stops_early_when_nothing_gets_better(mlp, learn, few: Task) -> None:
    judge = scored(0.3, 0.5, 0.4, 0.5, 0.9)
    fitted = learn(mlp(), few, Recipe(epochs=9, patience=2), judge)
    assert [epoch.score for epoch in fitted.history] == [0.3, 0.5, 0.4, 0.5]
    assert (fitted.best, fitted.finished) == (2, True)


def test_the_best_epoch_is_kept_not_the_last(conv, learn, few: Task) -> None:
    module = conv()
    seen: list[dict[str, Any]] = []
    fitted = learn(module, few, Recipe(epochs=3), scored(0.1, 0.9, 0.2), heard=lambda _: seen.append(weights(module)))
    assert fitted.best == 2
    kept = weights(module)
    assert all(torch.equal(value, seen[1][name]) for name, value in kept.items())
    assert not all(torch.equal(value, seen[2][name]) for name, value in kept.items())


def test_the_moving_average_is_what_is_validated_and_kept(conv, learn, few: Task, image: Signature) -> None:
    judged: list[Any] = []

    def judge(outputs: Any) -> float:
        judged.append(outputs)
        return 0.0

    plain, mean = conv(), conv()
    learn(plain, few, Recipe(epochs=1, batch=32), judge)
    learn(mean, few, Recipe(epochs=1, batch=32, ema=0.95), judge)
    for module, outputs in zip((plain, mean), judged, strict=True):
        np.testing.assert_allclose(answers_of(module, image, few, few.split("select")), outputs, atol=1e-6)
    assert not same(plain, mean)


def test_sgd_takes_over_where_the_curve_is_flat_and_that_is_told(mlp, learn, few: Task) -> None:
    recipe = Recipe(epochs=6, batch=32, optimizer="adam-then-sgd", lr=1e-3, sgd_lr=0.02, schedule="constant", warmup=0)
    fitted = learn(mlp(), few, recipe, scored(0.5, 0.4, 0.4, 0.5, 0.6, 0.7))
    assert [epoch.optimizer for epoch in fitted.history] == ["adam"] * 4 + ["sgd"] * 2
    assert [epoch.rate for epoch in fitted.history] == [1e-3] * 4 + [0.02] * 2
    assert fitted.notes == ("SGD took over from Adam after 16 steps",)


@pytest.fixture
def line(tmp_path: Path) -> Callable[..., Fitted]:
    """Fit y = w x to x = 1, y = 3.5 by gradient descent: w − 3.5 is multiplied by 1 − 2 × the rate in every step."""
    inputs, labels = np.ones((640, 1), np.float32), np.full(640, 3.5)
    splits = np.repeat(["train", "test"], [480, 160])
    specs = [TensorSpec(name=name, dtype="float32", shape=("batch", 1)) for name in ("input", "output")]
    signature = Signature(inputs=(specs[0],), outputs=(specs[1],))
    model = Model(format="fake", path=Path("net.py"), digest="fake", signature=signature)
    task = open_task({"input": inputs, "labels": labels, "split": splits}, model, tmp_path / "line")
    assert task.kind == "regression"

    def run(lr: float, module: Any = None, **given: Any) -> Fitted:
        module = module or torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.zeros_(module.weight)
        recipe = Recipe(epochs=2, batch=4, lr=lr, **{**PLAIN, **given})
        course = Course(folder=tmp_path / "fit", start="here")
        return fit(module, signature, task, recipe, lambda outputs: -float(np.mean((outputs - 3.5) ** 2)), course)

    return run


def test_a_fit_that_diverges_goes_back_and_on_at_half_the_rate(line, tmp_path: Path) -> None:
    module = torch.nn.Linear(1, 1, bias=False)
    fitted = line(1.6, module)  # times −2.2 a step; −0.6 at half the rate
    assert fitted.finished
    assert [epoch.rate for epoch in fitted.history] == [0.8, 0.8]
    assert [epoch.steps for epoch in fitted.history] == [105, 210]
    assert float(module.weight.detach()) == pytest.approx(3.5)
    (note,) = fitted.notes
    assert note.startswith("the loss was inf in epoch 1, step ")
    assert note.endswith("went back to step 0, on with a learning rate of 0.8")


def test_it_may_go_back_three_times(line) -> None:
    fitted = line(6.0)  # 3 and 1.5 are too much as well, 0.75 is not
    assert fitted.history[-1].rate == 0.75
    assert len(fitted.notes) == 3


def test_it_gives_up_in_one_line_and_leaves_nothing_to_go_on_from(line, tmp_path: Path) -> None:
    with pytest.raises(
        TrimtabError, match=r"training diverges: the loss was .*, after going back 3 times to half"
    ) as caught:
        line(1e6)
    assert "\n" not in str(caught.value)
    assert "give an lr below 6e+04, a longer warmup, or clip=1" in str(caught.value)
    assert list((tmp_path / "fit").iterdir()) == []


def test_answers_that_are_no_numbers_are_gone_back_from(line) -> None:
    class Lost(torch.nn.Linear):
        def forward(self, input: Any) -> Any:
            return super().forward(input) * (1 if self.training else float("nan"))

    with pytest.raises(TrimtabError, match="training diverges: the outputs were not finite after epoch 1, after going"):
        line(0.4, Lost(1, 1, bias=False))


def test_weights_that_are_no_numbers_are_not_learnt_on(mlp, learn, few: Task) -> None:
    module = mlp()
    with torch.no_grad():
        module[1].bias[3] = float("inf")
    with pytest.raises(BadInput, match="the weights hold NaN or infinity before any training"):
        learn(module, few, Recipe())


def test_bf16_and_channels_last_learn_as_well_and_leave_weights_as_they_came(conv, learn, digits: Task) -> None:
    scores = {}
    for name, given in {"plain": {}, "fast": {"precision": "bf16", "channels_last": True}}.items():
        module = conv()
        scores[name] = max(epoch.score for epoch in learn(module, digits, Recipe(epochs=3, lr=0.01, **given)).history)
        assert {weight.dtype for weight in module.parameters()} == {torch.float32}
        assert all(weight.is_contiguous() for weight in module.parameters())
    assert scores["plain"] > 0.85
    assert scores["fast"] > scores["plain"] - 0.05


def test_recomputing_activations_changes_no_weight(conv, learn, few: Task) -> None:
    plain, saving = conv(), conv()
    learn(plain, few, Recipe(epochs=2, batch=32))
    learn(saving, few, Recipe(epochs=2, batch=32, checkpointing=True))
    assert same(plain, saving)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which(os.environ.get("CXX", "g++")) is None, reason="torch.compile needs a C++ compiler")
def test_a_compiled_network_learns_the_same(mlp, learn, few: Task) -> None:
    plain, compiled = mlp(), mlp()
    learn(plain, few, Recipe(epochs=2, batch=32, **{**PLAIN, "lr": 0.1}))
    learn(compiled, few, Recipe(epochs=2, batch=32, compile=True, **{**PLAIN, "lr": 0.1}))
    for name, value in weights(plain).items():
        torch.testing.assert_close(weights(compiled)[name], value, atol=1e-5, rtol=1e-4)


def test_augmentation_needs_images_of_fractions(line) -> None:
    with pytest.raises(BadInput, match=r"augmentation needs images .*; leave augment out"):
        line(0.1, augment="mixup")


def test_labels_that_the_answers_can_not_be_compared_with_are_one_line(learn, few: Task) -> None:
    class Wide(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(1))

        def forward(self, input: Any) -> Any:
            return input.flatten(1)[:, :3] * self.scale

    with pytest.raises(
        BadInput, match="what the network answers can't be compared with what it should answer"
    ) as caught:
        learn(Wide(), few, Recipe(batch=32))
    assert "\n" not in str(caught.value)


def test_a_network_without_a_gradient_is_one_line(learn, few: Task) -> None:
    class Cut(torch.nn.Linear):
        def forward(self, input: Any) -> Any:
            return super().forward(input.flatten(1)).detach()

    with pytest.raises(BadInput, match="the network can't be trained"):
        learn(Cut(64, 10), few, Recipe(batch=32))


def test_without_items_to_train_on_or_to_choose_by_there_is_no_fit(mlp, learn, few: Task) -> None:
    reasons = {"train": "to train on: give them with --train", "select": "to choose the best epoch by: give them with"}
    for name, reason in reasons.items():
        left = replace(few, splits=tuple(split for split in few.splits if split.name != name))
        with pytest.raises(BadInput, match=f"there are no items {reason}"):
            learn(mlp(), left, Recipe(), score=lambda outputs: 0.0)


def test_a_teacher_that_is_wanted_must_be_there(mlp, learn, few: Task) -> None:
    with pytest.raises(BadInput, match="distill and hints need a teacher"):
        learn(mlp(), few, Recipe(distill=0.5))


def test_the_weights_of_the_start_are_there_to_go_back_to(mlp, learn, few: Task, tmp_path: Path) -> None:
    module = mlp()
    before = copy.deepcopy(weights(module))

    class Broken(type(module)):
        def forward(self, input: Any) -> Any:
            raise Killed

    module.__class__ = Broken
    with pytest.raises(Killed):
        learn(module, few, Recipe(), folder=tmp_path / "one")
    position, parts = restore(tmp_path / "one", key(tmp_path / "one"))
    assert (position.epoch, position.steps) == (0, 0)
    assert all(torch.equal(value, parts["module"][name]) for name, value in before.items())


def test_a_constraint_is_kept_after_every_step_and_no_epoch_without_it_is_the_best(
    mlp: Any, few: Task, learn: Any
) -> None:
    """The first column of the weights is held at zero; the constraint counts as met from the second epoch on."""
    module = mlp()
    seen: list[float] = []

    def hold(epochs: float) -> bool:
        with torch.no_grad():
            module[1].weight[:, 0] = 0.0
        seen.append(epochs)
        return epochs > 1.0

    scores = iter([0.9, 0.2, 0.3])
    fitted = learn(module, few, Recipe(epochs=3, batch=32), lambda outputs: next(scores), hold=hold)
    steps = fitted.history[0].steps
    assert seen == pytest.approx([number / steps for number in range(3 * steps + 1)])
    assert (fitted.best, fitted.history[0].score) == (3, 0.9)
    assert module[1].weight[:, 0].tolist() == [0.0] * 32
    assert int((module[1].weight == 0).sum()) == 32
