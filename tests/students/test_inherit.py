"""A student begins with what fits of its teacher, layer by layer, in order."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from trimtab.students.inherit import _aligned, inherit  # noqa: E402 (after the skip)
from trimtab.students.networks import KINDS, build  # noqa: E402

nn = torch.nn


def net(kind: str = "resnet", seed: int = 0, **given: Any) -> Any:
    torch.manual_seed(seed)
    made = build(kind=kind, image=(1, 16, 16), classes=10, **given)
    for layer in made.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for tensor in (layer.weight, layer.bias, layer.running_mean):
                nn.init.normal_(tensor)
    return made.eval()


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_network_inherits_all_and_answers_the_same(kind: str) -> None:
    teacher, student = net(kind, 1, width=0.5), net(kind, 2, width=0.5)
    pairs = inherit(student, teacher)
    assert all(one == other for one, other in pairs)
    images = torch.randn(2, 1, 16, 16)
    assert torch.equal(student(x=images), teacher(x=images))


def test_a_slimmer_one_takes_the_first_channels_of_every_layer() -> None:
    teacher, student = net(seed=1), net(seed=2, width=0.5)
    assert len(inherit(student, teacher)) == 1 + 18 + 2 + 1
    weights = teacher.state_dict()
    for name, value in student.state_dict().items():
        assert torch.equal(value, weights[name][tuple(slice(size) for size in value.shape)]), name


def test_a_shallower_one_takes_whole_layers_in_their_order() -> None:
    teacher, student = net(seed=1), net(seed=2, depth=1 / 3)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    pairs = inherit(student, teacher)
    assert {name for name, _ in pairs} == {
        n for n, p in student.named_modules() if isinstance(p, nn.Conv2d | nn.Linear)
    }
    for name, source in pairs:
        assert torch.equal(student.get_submodule(name).weight, teacher.get_submodule(source).weight)
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())


def test_layers_of_another_kind_or_too_small_a_source_stay_as_they_were_drawn() -> None:
    student = nn.Sequential(nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 8, 1), nn.Linear(8, 4))
    before = {name: value.clone() for name, value in student.state_dict().items()}
    teacher = nn.Sequential(nn.Conv2d(1, 6, 3), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 1), nn.Linear(8, 4))
    assert inherit(student, teacher) == (("2", "2"), ("3", "3"))
    changed = {name for name, value in student.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"2.weight", "2.bias", "3.weight", "3.bias"}


def test_pairs_are_those_in_order_with_the_largest_sum() -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        shares = (torch.rand(3, 4, generator=generator) * (torch.rand(3, 4, generator=generator) > 0.4)).tolist()
        sums = [
            sum(shares[i][j] for i, j in zip(rows, columns, strict=True))
            for count in range(4)
            for rows in itertools.combinations(range(3), count)
            for columns in itertools.combinations(range(4), count)
        ]
        found = _aligned(shares)
        assert sum(shares[i][j] for i, j in found) == pytest.approx(max(sums))
        assert found == sorted(found)
        assert all(one[0] < other[0] and one[1] < other[1] for one, other in itertools.pairwise(found))


def test_a_teacher_without_such_layers_leaves_nothing() -> None:
    assert inherit(net(), nn.Sequential(nn.ReLU())) == ()
