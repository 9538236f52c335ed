from __future__ import annotations

import copy
import warnings
from typing import Any

import numpy as np
import pytest

from trimtab.core.errors import BadInput
from trimtab.core.values import Signature, Task, TensorSpec
from trimtab.data.batches import feeds
from trimtab.training.recipe import Recipe

torch = pytest.importorskip("torch")

from trimtab.training.network import (  # noqa: E402 (after the skip)
    Network,
    answers_of,
    moving_average,
    recomputing,
    seeded,
    tensors_of,
    with_dropout,
)


def batch(task: Task, count: int = 8) -> dict[str, Any]:
    return tensors_of(feeds(task, task.split("train"), np.arange(count)))


def test_the_answers_to_a_split_are_those_to_its_items_in_evaluation(conv, image: Signature, digits: Task) -> None:
    module = conv().train()
    split = digits.split("train")
    assert len(split) > 256, "more than one call"
    found = answers_of(module, image, digits, split)
    assert not module.training
    with torch.no_grad():
        expected = module(torch.from_numpy(feeds(digits, split, slice(None))["input"].copy())).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_reading_a_split_warns_of_nothing(mlp, image: Signature, few: Task) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        answers_of(mlp(), image, few, few.split("select"))


def test_tensors_share_memory_but_for_what_must_not_be_written_to() -> None:
    free, kept = np.zeros(3, np.float32), np.zeros(3, np.float32)
    kept.flags.writeable = False
    found = tensors_of({"free": free, "kept": kept})
    for tensor in found.values():
        tensor += 1
    assert (free.tolist(), kept.tolist()) == ([1, 1, 1], [0, 0, 0])


def test_the_answer_has_a_graph_and_is_narrow_where_that_is_wanted(conv, image: Signature, few: Task) -> None:
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        answer = Network(conv(), image, few, Recipe(precision=precision)).answer(batch(few))
        assert (answer.dtype, answer.shape, answer.requires_grad) == (dtype, (8, 10), True)


def test_images_and_weights_are_laid_out_as_wanted_and_the_module_is_left_as_it_came(conv, image, few) -> None:
    module, plain = conv().eval(), conv().eval()
    network = Network(module, image, few, Recipe(channels_last=True))
    seen = []
    module[0][0].register_forward_hook(lambda layer, given, out: seen.append((layer.weight, given[0], out)))
    found = network.answer(batch(few))
    assert len(seen) == 1
    assert seen[0][2].is_contiguous(memory_format=torch.channels_last)
    assert module[1][0].weight.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found, plain(batch(few)["input"]))
    network.leave({})
    assert all(weight.is_contiguous() for weight in module.parameters())


def test_with_dropout_sets_every_rate_for_a_time(conv) -> None:
    module = conv()

    def rates() -> list[float]:
        return [part.p for part in module.modules() if isinstance(part, torch.nn.Dropout)]

    with with_dropout(module, 0.4):
        assert rates() == [0.4, 0.4]
    assert rates() == [0.1, 0.1]


def test_dropout_without_a_layer_of_it_is_refused(mlp) -> None:
    with (
        pytest.raises(BadInput, match="no dropout layer whose rate could be set; leave dropout out"),
        with_dropout(mlp(), 0.4),
    ):
        pass


def test_the_moving_average_follows_weights_and_statistics(conv, image: Signature, few: Task) -> None:
    module = conv().train()
    network = Network(module, image, few, Recipe(ema=0.9))
    expected: dict[str, Any] = {}
    for number in range(4):
        network.answer(batch(few))
        with torch.no_grad():
            for weight in module.parameters():
                weight += 0.1 * (number + 1)
        network.average()
        now = {name: value.clone().float() for name, value in module.state_dict().items()}
        expected = {name: 0.9 * expected.get(name, now[name]) + 0.1 * now[name] for name in now}
    found = network.weights()
    for name, value in found.items():
        if value.is_floating_point():
            torch.testing.assert_close(value, expected[name])
    assert not torch.equal(found["3.weight"], module.state_dict()["3.weight"])


def test_what_is_asked_for_answers_is_the_moving_average(mlp, image: Signature, few: Task) -> None:
    module = mlp()
    network = Network(module, image, few, Recipe(ema=0.9))
    network.average()
    before = network.predict(few, few.split("select"))
    with torch.no_grad():
        module[3].weight += 1
    np.testing.assert_array_equal(network.predict(few, few.split("select")), before)
    network.average()
    assert not np.array_equal(network.predict(few, few.split("select")), before)


def test_a_state_is_gone_on_from(conv, image: Signature, few: Task) -> None:
    first, second = (Network(conv(seed), image, few, Recipe(ema=0.9)) for seed in (0, 1))
    first.average()
    second.restore(copy.deepcopy(first.state()))
    for one, other in zip(first.state().values(), second.state().values(), strict=True):
        assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_one_weight_that_is_no_number_is_seen(mlp, image: Signature, few: Task) -> None:
    module = mlp()
    network = Network(module, image, few, Recipe())
    assert network.finite()
    with torch.no_grad():
        module[1].weight[0, 0] = float("nan")
    assert not network.finite()


def gradients(module: Any, given: Any) -> list[Any]:
    torch.manual_seed(7)
    module.zero_grad()
    module(given).square().sum().backward()
    return [weight.grad.clone() for weight in module.parameters()]


def test_recomputed_activations_give_the_same_gradients_and_statistics_bit_for_bit(conv, few: Task) -> None:
    plain, saving = conv().train(), conv().train()
    given = batch(few)["input"]
    with recomputing(saving):
        calls = []
        saving[0][0].register_forward_hook(lambda *_: calls.append(1))
        for one, other in zip(gradients(plain, given), gradients(saving, given), strict=True):
            assert torch.equal(one, other)
        assert len(calls) == 2, "forward ran again in the backward pass"
        saving.eval()(given)
        assert len(calls) == 3, "but not in evaluation"
    for name, value in plain.state_dict().items():
        assert torch.equal(value, saving.state_dict()[name]), name
    assert all("forward" not in vars(part) for part in saving.modules())
    assert {part.momentum for part in saving.modules() if isinstance(part, torch.nn.BatchNorm2d)} == {0.1}


def test_the_moving_average_of_a_module_that_recomputes_has_weights_of_its_own(conv, image, few) -> None:
    module = conv()
    network = Network(module, image, few, Recipe(ema=0.9, checkpointing=True))
    network.average()
    before = network.predict(few, few.split("select"))
    with torch.no_grad():
        module[0][0].weight.zero_()
    np.testing.assert_array_equal(network.predict(few, few.split("select")), before)


def test_only_the_outer_blocks_recompute_and_lists_of_lists_are_looked_into() -> None:
    layers = torch.nn

    class Net(layers.Module):
        def __init__(self) -> None:
            super().__init__()
            inner = layers.Sequential(layers.Sequential(layers.Linear(4, 4), layers.ReLU()), layers.Linear(4, 4))
            self.stages = layers.ModuleList([layers.ModuleList([inner])])

        def forward(self, x: Any) -> Any:
            for stage in self.stages:
                for block in stage:
                    x = block(x)
            return x

    net = Net().train()
    with recomputing(net):
        held = [name for name, part in net.named_modules() if "forward" in vars(part)]
        assert held == ["stages.0.0"]
        assert net(torch.ones(2, 4)).shape == (2, 4)


def test_what_has_no_blocks_can_not_recompute(mlp) -> None:
    with pytest.raises(BadInput, match=r"no blocks .*; leave checkpointing out"), recomputing(mlp()):
        pass


@pytest.mark.parametrize("error", [RuntimeError("mat1 and mat2\ncan't be multiplied"), KeyError("x")])
def test_what_goes_wrong_in_the_network_is_one_line(error, image: Signature, few: Task) -> None:
    class Broken(torch.nn.Module):
        def forward(self, input: Any) -> Any:
            raise error

    network = Network(Broken(), image, few, Recipe())
    for run in (lambda: network.answer(batch(few)), lambda: network.predict(few, few.split("select"))):
        with pytest.raises(BadInput, match=r"the network fails in (training|evaluation) \(") as caught:
            run()
        assert "\n" not in str(caught.value)


def test_of_several_outputs_the_one_that_answers_is_taken(image: Signature, few: Task) -> None:
    class Two(torch.nn.Module):
        def forward(self, input: Any) -> Any:
            return {"output": input.flatten(1)[:, :10], "other": input}

    other = TensorSpec(name="other", dtype="float32", shape=("batch", 1, 8, 8))
    both = Signature(inputs=image.inputs, outputs=(*image.outputs, other))
    with pytest.raises(BadInput, match="2 outputs"):
        Network(Two(), both, few, Recipe())
    named = Task(splits=few.splits, classes=few.classes, output="output")
    assert Network(Two(), both, named, Recipe()).answer(batch(few)).shape == (8, 10)


def test_a_seed_is_that_of_all_that_pytorch_draws() -> None:
    seeded(5)
    first = torch.rand(3)
    seeded(5)
    assert torch.equal(torch.rand(3), first)


def test_the_copy_that_follows_has_no_part_in_training(mlp) -> None:
    module = mlp()
    mean = moving_average(module, 0.5)
    assert not set(map(id, module.parameters())) & set(map(id, mean.parameters()))
