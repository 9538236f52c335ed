"""Distillation alone: a MobileNetV2 of its usual design (stride 1 in the stem for small images) learns what the network
answers, at temperature 4 with nine tenths of the loss (Hinton et al. 2015), by SGD with a cosine schedule.
"""

import torch
from lesson import Lesson, outputs
from torch import Tensor, nn
from torch.nn import functional

EPOCHS, RATE, TEMPERATURE, SHARE = 100, 0.1, 4.0, 0.9
STAGES = ((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Expansion, channels, blocks and stride of each stage (Sandler et al. 2018, table 2), the stem at stride 1."""


def normed(given: int, made: int, size: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """Return a convolution with batch normalization."""
    layer = nn.Conv2d(given, made, size, stride, size // 2, groups=groups, bias=False)
    return [layer, nn.BatchNorm2d(made)]


class Block(nn.Module):
    """An inverted residual."""

    def __init__(self, given: int, made: int, expansion: int, stride: int) -> None:
        super().__init__()
        inner = given * expansion
        first = [] if expansion == 1 else [*normed(given, inner, 1), nn.ReLU6()]
        self.body = nn.Sequential(*first, *normed(inner, inner, 3, stride, inner), nn.ReLU6(), *normed(inner, made, 1))
        self.short = stride == 1 and given == made

    def forward(self, given: Tensor) -> Tensor:
        """Return the block's answer."""
        return given + self.body(given) if self.short else self.body(given)


def mobilenetv2(channels: int, classes: int, width: float) -> nn.Module:
    """Return the student."""

    def scaled(size: float) -> int:
        return max(8, int(size * width + 4) // 8 * 8)

    now = scaled(32)
    layers: list[nn.Module] = [*normed(channels, now, 3), nn.ReLU6()]
    for expansion, size, blocks, stride in STAGES:
        for number in range(blocks):
            layers.append(Block(now, scaled(size), expansion, stride if number == 0 else 1))
            now = scaled(size)
    last = max(1280, scaled(1280)) if width > 1 else scaled(1280)
    layers += [*normed(now, last, 1), nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(last, classes)]
    return nn.Sequential(*layers)


if __name__ == "__main__":
    lesson = Lesson(__doc__, ("--width", float, 0.25), ("--shift", int, 0))
    told = outputs(lesson.model, lesson.items)
    student = mobilenetv2(lesson.items.shape[1], told.shape[1], lesson.given.width)
    optimizer = torch.optim.SGD(student.parameters(), lr=RATE, momentum=0.9, weight_decay=4e-5)

    def loss(answers: Tensor, labels: Tensor, rows: Tensor) -> Tensor:
        """Return nine parts of what the teacher says and one of the labels."""
        soft = functional.kl_div(
            functional.log_softmax(answers / TEMPERATURE, 1), functional.log_softmax(told[rows] / TEMPERATURE, 1),
            log_target=True, reduction="batchmean",
        )  # fmt: skip
        return SHARE * TEMPERATURE**2 * soft + (1 - SHARE) * functional.cross_entropy(answers, labels)

    lesson.train(
        student, optimizer, EPOCHS, lambda epochs: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs), loss,
        shift=lesson.given.shift,
    )  # fmt: skip
    lesson.export(student)
