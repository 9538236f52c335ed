"""Augmentation of images on tensors, a batch at a time, by kornia; and mixup of whole batches.

Geometry works on images that are normalized already: what comes in from outside the frame is 0, the mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trimtab.core.errors import BadInput, MissingExtra
from trimtab.formats.torch_tracing import import_torch

_PAD, _DEGREES, _SCALES, _ERASED, _MIXUP = 1 / 8, 10.0, (0.9, 1.1), (0.02, 0.2), 0.2
_MOST_CHANNELS = 4


class Augment:
    """Changes a batch of images at random, every item for itself, by PyTorch's global random numbers."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = [name for name in names if name != "mixup"]
        self._made: Any = None

    def __call__(self, images: Any) -> Any:
        """Return other images of the same shape [items, channels, height, width] and type."""
        if not self._names:
            return images
        if images.ndim != 4 or images.shape[1] > _MOST_CHANNELS:
            raise BadInput(
                f"augmentation needs images [items, channels, height, width], and the model takes "
                f"{list(images.shape)}; leave augment out"
            )
        if self._made is None:
            self._made = _chain(self._names, tuple(images.shape[2:]))
        return self._made(images)


def _chain(names: Sequence[str], size: tuple[int, int]) -> Any:
    try:
        import kornia.augmentation as kornia
    except ImportError as error:
        raise MissingExtra("kornia", "train", "augmentation") from error
    pad = max(1, round(_PAD * min(size)))
    makers = {
        "crop": lambda: kornia.RandomCrop(size, padding=pad),
        "flip": lambda: kornia.RandomHorizontalFlip(p=0.5),
        "rotate": lambda: kornia.RandomRotation(_DEGREES, p=1.0),
        "scale": lambda: kornia.RandomAffine(0.0, scale=_SCALES, p=1.0),
        "erase": lambda: kornia.RandomErasing(scale=_ERASED, p=0.5),
    }
    return import_torch("augmentation").nn.Sequential(*(makers[name]() for name in names))


def mixed(images: Any) -> tuple[Any, Any, float]:
    """Return every image mixed with another one, the places of those, and the share of the first (Zhang et al. 2018).

    The share is one draw of Beta(0.2, 0.2) for the whole batch.
    """
    torch = import_torch("mixup")
    share = float(torch.distributions.Beta(_MIXUP, _MIXUP).sample())
    order = torch.randperm(len(images))
    return share * images + (1 - share) * images[order], order, share
