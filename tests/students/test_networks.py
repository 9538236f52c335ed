"""Students have the published sizes, fit their images, and are the same again from the same arguments and seed."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from trimtab.formats.torch_tracing import forward_inputs  # noqa: E402 (after the skip)
from trimtab.students.layers import divisible, fitted, repeats  # noqa: E402
from trimtab.students.networks import KINDS, build  # noqa: E402

PUBLISHED = [
    ("mobilenetv2", 1.0, 3_504_872),
    ("mobilenetv2", 0.5, 1_968_680),
    ("mobilenetv2", 1.4, 6_108_776),
    ("mobilenetv3-small", 1.0, 2_542_856),
    ("shufflenetv2", 0.5, 1_366_792),
    ("shufflenetv2", 1.0, 2_278_604),
    ("shufflenetv2", 1.5, 3_503_624),
    ("shufflenetv2", 2.0, 7_393_996),
    ("efficientnet-lite0", 1.0, 4_652_008),
]
"""Parameters at 224 × 224 pixels and 1,000 classes, as torchvision and timm publish them with the weights."""


def size(module: Any) -> int:
    return sum(weight.numel() for weight in module.parameters())


@pytest.mark.parametrize(("kind", "width", "parameters"), PUBLISHED)
def test_a_standard_student_has_the_published_number_of_parameters(kind: str, width: float, parameters: int) -> None:
    assert size(build(kind=kind, image=(3, 224, 224), classes=1000, width=width)) == parameters


def test_resnets_for_small_images_have_the_layers_that_their_names_count() -> None:
    made = {depth: build(kind="resnet", image=(3, 32, 32), classes=10, depth=depth) for depth in (1.0, 1 / 3)}
    counts = {depth: sum(layer.ndim == 4 and layer.shape[-1] == 3 for layer in net.parameters()) + 1
              for depth, net in made.items()}  # fmt: skip
    assert counts == {1.0: 20, 1 / 3: 8}
    # 0.27 million of He et al. 2016, and two shortcuts of 1×1 convolutions with their normalization
    assert size(made[1.0]) == 269_722 + (16 * 32 + 2 * 32) + (32 * 64 + 2 * 64)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("side", "last"), [(4, 4), (8, 4), (28, 4), (32, 4), (64, 4), (128, 4), (224, 7)])
def test_the_last_map_keeps_four_pixels_a_side_or_the_standard_seven(kind: str, side: int, last: int) -> None:
    net = build(kind=kind, image=(1, side, side), classes=10, width=0.25, depth=0.3).eval()
    height, width = net.features(torch.zeros(1, 1, side, side)).shape[2:]
    if kind == "resnet":
        last = {4: 4, 8: 8, 28: 7, 224: 14}.get(side, 8)
    assert (height, width) == (last, last)


@pytest.mark.parametrize("kind", KINDS)
def test_it_takes_an_input_of_any_name_and_answers_every_class(kind: str) -> None:
    net = build(kind=kind, image=(2, 20, 30), classes=7, width=0.25, called="pixels")
    assert forward_inputs(net) == (["pixels"], ["pixels"])
    assert net(pixels=torch.zeros(3, 2, 20, 30)).shape == (3, 7)


@pytest.mark.parametrize("kind", KINDS)
def test_width_and_depth_make_it_smaller(kind: str) -> None:
    whole, slim, flat = (
        build(kind=kind, image=(1, 28, 28), classes=10, **less) for less in ({}, {"width": 0.5}, {"depth": 0.4})
    )
    assert size(slim) < 0.62 * size(whole)
    assert size(flat) < size(whole)
    assert len(list(flat.modules())) < len(list(whole.modules()))


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_draws_the_same_weights_and_answers_are_of_the_order_of_one(kind: str) -> None:
    made = []
    for _ in range(2):
        torch.manual_seed(4)
        made.append(build(kind=kind, image=(1, 16, 16), classes=10, width=0.5))
    assert all(torch.equal(one, other) for one, other in zip(made[0].parameters(), made[1].parameters(), strict=True))
    answer = made[0](image=torch.randn(32, 1, 16, 16))
    assert 1e-3 < float(answer.detach().std()) < 10


def test_strides_are_spared_from_the_first_one_on() -> None:
    assert fitted((2, 1, 2, 2, 2, 1, 2), 224, 4) == [2, 1, 2, 2, 2, 1, 2]
    assert fitted((2, 1, 2, 2, 2, 1, 2), 28, 4) == [1, 1, 1, 2, 2, 1, 2]
    assert fitted((2, 2, 2), 3, 4) == [1, 1, 1]


@pytest.mark.parametrize(
    ("asked", "found"), [(32 * 0.75, 24), (24 * 0.75, 24), (1, 8), (20, 24), (19, 24), (16 * 0.5, 8)]
)
def test_channels_are_a_multiple_of_eight_near_what_is_asked_for(asked: float, found: int) -> None:
    assert divisible(asked) == found


def test_a_stage_keeps_one_block_at_least() -> None:
    assert [repeats(3, depth) for depth in (0.1, 1 / 3, 0.5, 1.0, 1.5)] == [1, 1, 2, 3, 5]


@pytest.mark.parametrize(
    "wrong", [{"kind": "vgg"}, {"classes": 0}, {"width": -1.0}, {"image": (1, 0, 5)}, {"called": "a b"}]
)
def test_what_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"no student 'vgg'|must be above 0|'a b' is no name"):
        build(**{"kind": "resnet", "image": (1, 8, 8), "classes": 2, **wrong})
