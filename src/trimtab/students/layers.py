"""What the students are made of: convolutions with batch normalization, inverted residuals, shuffled halves."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import cache
from typing import Any

from trimtab.formats.torch_tracing import import_torch


def torch_for_students() -> Any:
    """Return the module `torch`."""
    return import_torch("building a student")


@cache
def _classes() -> dict[str, Any]:
    torch = torch_for_students()
    base: Any = torch.nn.Module

    class Residual(base):  # type: ignore[misc] # torch is imported here, not at the top
        """Adds what its body makes of the input to the input, which a shortcut fits where shapes differ."""

        def __init__(self, body: Any, shortcut: Any, after: Any) -> None:
            super().__init__()
            self.body, self.shortcut, self.after = body, shortcut, after

        def forward(self, x: Any) -> Any:
            return self.after(self.body(x) + self.shortcut(x))

    class Excite(base):  # type: ignore[misc] # torch is imported here, not at the top
        """Scales every channel by what it is told of the means of all (Hu et al. 2018)."""

        def __init__(self, channels: int, squeezed: int) -> None:
            super().__init__()
            self.squeeze, self.excite = torch.nn.Conv2d(channels, squeezed, 1), torch.nn.Conv2d(squeezed, channels, 1)
            self.inner, self.outer = torch.nn.ReLU(), torch.nn.Hardsigmoid()

        def forward(self, x: Any) -> Any:
            return x * self.outer(self.excite(self.inner(self.squeeze(x.mean((2, 3), keepdim=True)))))

    class Shuffle(base):  # type: ignore[misc] # torch is imported here, not at the top
        """Convolves one half of the channels, or all of them twice, and mixes both results (Ma et al. 2018)."""

        def __init__(self, body: Any, beside: Any) -> None:
            super().__init__()
            self.body, self.beside = body, beside

        def forward(self, x: Any) -> Any:
            one, other = x.chunk(2, 1) if self.beside is None else (self.beside(x), x)
            both = torch.cat((one, self.body(other)), 1)
            return both.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2)

    return {"residual": Residual, "excite": Excite, "shuffle": Shuffle}


def student(features: Sequence[Any], head: Sequence[Any], called: str) -> Any:
    """Return a classifier of some layers on maps and, behind their mean, some on vectors; its input has that name."""
    nn = torch_for_students().nn
    base: Any = nn.Module

    class Student(base):  # type: ignore[misc] # torch is imported here, not at the top
        """Maps images [N, channels, height, width] to one number per class."""

        def __init__(self) -> None:
            super().__init__()
            self.features, self.head = nn.Sequential(*features), nn.Sequential(*head)

        def forward(self, *given: Any, **named: Any) -> Any:
            (image,) = (*given, *named.values())
            return self.head(self.features(image).mean((2, 3)))

    both = inspect.Parameter.POSITIONAL_OR_KEYWORD
    names = [inspect.Parameter(name, both) for name in ("self", called)]
    Student.forward.__signature__ = inspect.Signature(names)  # type: ignore[attr-defined] # torch.export reads it
    return Student()


def conv(takes: int, makes: int, kernel: int, *, stride: int = 1, groups: int = 1, act: str = "Identity") -> Any:
    """Return a convolution, its batch normalization and an activation of torch.nn."""
    nn = torch_for_students().nn
    inner = nn.Conv2d(takes, makes, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(inner, nn.BatchNorm2d(makes), getattr(nn, act)())


def basic(takes: int, makes: int, stride: int) -> Any:
    """Return two 3×3 convolutions around a shortcut (He et al. 2016)."""
    nn = torch_for_students().nn
    body = nn.Sequential(conv(takes, makes, 3, stride=stride, act="ReLU"), conv(makes, makes, 3))
    same = stride == 1 and takes == makes
    shortcut = nn.Identity() if same else conv(takes, makes, 1, stride=stride)
    return _classes()["residual"](body, shortcut, nn.ReLU())


def inverted(
    takes: int, makes: int, kernel: int, *, stride: int, wide: int, act: str = "ReLU6", excited: bool = False
) -> Any:
    """Return a widening, a depthwise and a narrowing convolution around a shortcut (Sandler et al. 2018).

    `excited` scales the channels of the widest part by their means, as Howard et al. 2019 do.
    """
    nn = torch_for_students().nn
    steps = [] if wide == takes else [conv(takes, wide, 1, act=act)]
    steps.append(conv(wide, wide, kernel, stride=stride, groups=wide, act=act))
    if excited:
        steps.append(_classes()["excite"](wide, divisible(wide / 4)))
    body = nn.Sequential(*steps, conv(wide, makes, 1))
    return _classes()["residual"](body, nn.Identity(), nn.Identity()) if stride == 1 and takes == makes else body


def shuffled(takes: int, makes: int, stride: int) -> Any:
    """Return a unit of ShuffleNetV2; where it keeps size and channels, half of them pass by."""
    nn = torch_for_students().nn
    half, grows = makes // 2, stride > 1 or takes != makes
    enters = takes if grows else half
    body = nn.Sequential(
        conv(enters, half, 1, act="ReLU"),
        conv(half, half, 3, stride=stride, groups=half),
        conv(half, half, 1, act="ReLU"),
    )
    beside = nn.Sequential(conv(takes, takes, 3, stride=stride, groups=takes), conv(takes, half, 1, act="ReLU"))
    return _classes()["shuffle"](body, beside if grows else None)


def divisible(channels: float, by: int = 8) -> int:
    """Return a number of channels as a multiple of `by`: at least one, at least nine tenths of what is asked for."""
    found = max(by, int(channels + by / 2) // by * by)
    return found + by if found < 0.9 * channels else found


def repeats(count: int, depth: float) -> int:
    """Return how many times a block stands in a stage, at least once."""
    return max(1, int(count * depth + 0.5))


def fitted(strides: Sequence[int], side: int, least: int) -> list[int]:
    """Return the strides of a network, the first ones made 1 until its last map has `least` pixels a side or more.

    The convolutions are padded so that a stride of 2 halves a side, rounded up.
    """
    halvings = sum(stride > 1 for stride in strides)
    while halvings and -(-side // 2**halvings) < least:
        halvings -= 1
    spared, found = sum(stride > 1 for stride in strides) - halvings, []
    for stride in strides:
        found.append(1 if stride > 1 and spared > 0 else stride)
        spared -= stride > 1
    return found


def drawn(module: Any) -> Any:
    """Draw the weights of a module as those papers do: by fan-out (He et al. 2015), and small ones behind the mean."""
    nn = torch_for_students().nn
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out")
        elif isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=0.01)
        if isinstance(layer, nn.Conv2d | nn.Linear) and layer.bias is not None:
            nn.init.zeros_(layer.bias)
    return module
