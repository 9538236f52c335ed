"""The students by name: a ResNet, MobileNetV2, MobileNetV3-small, ShuffleNetV2 and EfficientNet-Lite0.

Each has a width and a depth of its own and is fitted to its images: where they are small the first strides are 1, so
that the last map is not too small too soon. At width 1, depth 1 and 224 × 224 pixels they are the published ones; the
ResNet is the one for small images, ResNet-20 at width 1 and depth 1 and ResNet-8 at depth 1/3.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from trimtab.students.layers import (
    basic,
    conv,
    divisible,
    drawn,
    fitted,
    inverted,
    repeats,
    shuffled,
    student,
    torch_for_students,
)

FACTORY = "trimtab.students.networks:build"
"""What builds a student again from plain arguments."""

_LEAST = 4  # pixels a side of the last map; MobileNetV2 on 32 × 32 pixels is commonly trained like this
_LEAST_OF_RESNET = 7  # He et al. 2016 average 8 × 8 pixels of 32 × 32

_V2 = ((1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 32, 3, 2, 3), (6, 64, 4, 2, 3), (6, 96, 3, 1, 3), (6, 160, 3, 2, 3),
       (6, 320, 1, 1, 3))  # fmt: skip
_LITE = ((1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3), (6, 112, 3, 1, 5), (6, 192, 4, 2, 5),
         (6, 320, 1, 1, 3))  # fmt: skip
"""Stages of inverted residuals: how much wider inside, channels, blocks, first stride, kernel."""

_V3 = (
    (16, 3, 2, (16,), True, "ReLU"),
    (24, 3, 2, (72, 88), False, "ReLU"),
    (40, 5, 2, (96, 240, 240), True, "Hardswish"),
    (48, 5, 1, (120, 144), True, "Hardswish"),
    (96, 5, 2, (288, 576, 576), True, "Hardswish"),
)
"""Stages of MobileNetV3-small: channels, kernel, first stride, inner widths of its blocks, excited, activation."""

_SHUFFLED = {0.5: (48, 96, 192), 1.0: (116, 232, 464), 1.5: (176, 352, 704), 2.0: (244, 488, 976)}
"""The channels of ShuffleNetV2's stages by its published widths; other widths are in proportion to 1."""

Layers = tuple[list[Any], list[Any]]
"""Layers on maps, and those behind their mean."""

Image = tuple[int, int, int]
"""Channels, height and width."""


def build(
    *, kind: str, image: Image, classes: int, width: float = 1.0, depth: float = 1.0, called: str = "image"
) -> Any:
    """Return a classifier with weights drawn by PyTorch's global random numbers.

    Args:
        kind: one of `KINDS`.
        image: channels, height and width of what it takes.
        classes: how many numbers it answers.
        width: what the numbers of channels are multiplied by.
        depth: what the numbers of blocks in each stage are multiplied by; one stays at least.
        called: the name of its input.

    Raises:
        ValueError: there is no such kind, or a size makes no sense.
    """
    if kind not in KINDS:
        raise ValueError(f"there is no student {kind!r}; known are: {', '.join(KINDS)}")
    if not called.isidentifier():
        raise ValueError(f"{called!r} is no name of an input")
    if min(*image, classes, width, depth) <= 0:
        raise ValueError("the sizes of a student must be above 0")
    return drawn(student(*_MAKERS[kind](image, classes, width, depth), called))


def _resnet(image: Image, classes: int, width: float, depth: float) -> Layers:
    first, *strides = fitted((2, 2, 2, 2), min(image[1:]), _LEAST_OF_RESNET)
    takes = divisible(16 * width)
    layers = [conv(image[0], takes, 3, stride=first, act="ReLU")]
    for number, stride in enumerate(strides):
        makes = divisible(16 * width * 2**number)
        for place in range(repeats(3, depth)):
            layers.append(basic(takes, makes, stride if place == 0 else 1))
            takes = makes
    return layers, [torch_for_students().nn.Linear(takes, classes)]


def _mobilenet_v2(image: Image, classes: int, width: float, depth: float) -> Layers:
    return _mobile(_V2, image, classes, width, depth)


def _efficientnet_lite0(image: Image, classes: int, width: float, depth: float) -> Layers:
    return _mobile(_LITE, image, classes, width, depth)


def _mobile(stages: Any, image: Image, classes: int, width: float, depth: float) -> Layers:
    """Return inverted residuals between a 3×3 stem and a 1×1 convolution, which is never narrower than published."""
    nn = torch_for_students().nn
    first, *strides = fitted((2, *(stage[3] for stage in stages)), min(image[1:]), _LEAST)
    takes, last = divisible(32 * width), divisible(1280 * max(1.0, width))
    layers = [conv(image[0], takes, 3, stride=first, act="ReLU6")]
    for (wider, channels, count, _, kernel), stride in zip(stages, strides, strict=True):
        makes = divisible(channels * width)
        for place in range(repeats(count, depth)):
            layers.append(inverted(takes, makes, kernel, stride=1 if place else stride, wide=takes * wider))
            takes = makes
    return [*layers, conv(takes, last, 1, act="ReLU6")], [nn.Dropout(0.2), nn.Linear(last, classes)]


def _mobilenet_v3_small(image: Image, classes: int, width: float, depth: float) -> Layers:
    nn = torch_for_students().nn
    first, *strides = fitted((2, *(stage[2] for stage in _V3)), min(image[1:]), _LEAST)
    takes = divisible(16 * width)
    layers = [conv(image[0], takes, 3, stride=first, act="Hardswish")]
    for (channels, kernel, _, inner, excited, act), stride in zip(_V3, strides, strict=True):
        makes = divisible(channels * width)
        for place in range(repeats(len(inner), depth)):
            wide = divisible(inner[min(place, len(inner) - 1)] * width)
            step = 1 if place else stride
            layers.append(inverted(takes, makes, kernel, stride=step, wide=wide, act=act, excited=excited))
            takes = makes
    last, hidden = 6 * takes, divisible(1024 * width)
    head = [nn.Linear(last, hidden), nn.Hardswish(), nn.Dropout(0.2), nn.Linear(hidden, classes)]
    return [*layers, conv(takes, last, 1, act="Hardswish")], head


def _shufflenet_v2(image: Image, classes: int, width: float, depth: float) -> Layers:
    nn = torch_for_students().nn
    first, pooled, *strides = fitted((2, 2, 2, 2, 2), min(image[1:]), _LEAST)
    channels = _SHUFFLED.get(width) or tuple(divisible(each * width, 4) for each in _SHUFFLED[1.0])
    takes, last = 24, 2048 if width >= 2 else 1024
    layers = [conv(image[0], takes, 3, stride=first, act="ReLU")]
    if pooled > 1:
        layers.append(nn.MaxPool2d(3, pooled, 1))
    for makes, count, stride in zip(channels, (4, 8, 4), strides, strict=True):
        for place in range(repeats(count, depth)):
            layers.append(shuffled(takes, makes, 1 if place else stride))
            takes = makes
    return [*layers, conv(takes, last, 1, act="ReLU")], [nn.Linear(last, classes)]


_MAKERS: dict[str, Callable[[Image, int, float, float], Layers]] = {
    "resnet": _resnet,
    "mobilenetv2": _mobilenet_v2,
    "mobilenetv3-small": _mobilenet_v3_small,
    "shufflenetv2": _shufflenet_v2,
    "efficientnet-lite0": _efficientnet_lite0,
}

KINDS = tuple(_MAKERS)
