"""The steps of preprocessing: plain functions from a batch [items, ...] to a batch, by the name people type.

Images are [items, height, width] or [items, height, width, channels] until a `layout` step; sound is
[items, samples] or [items, samples, channels]. The keyword arguments of a function are the options of its step.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from trimtab.core.errors import BadInput, MissingExtra
from trimtab.core.protocols import Array
from trimtab.core.values import Step
from trimtab.data.python import as_array, call, find_function

ONCE = "once"
"""The option that marks a step which is done when the task is opened, not for every batch."""

INPUT = "input"
"""The option that binds a step to one of several model inputs."""


def resize(
    batch: Array,
    *,
    size: int | None = None,
    height: int | None = None,
    width: int | None = None,
    filter: str = "bilinear",
) -> Array:
    """Resize images as Pillow does (antialiased): the shorter side to `size`, or to exactly `height` × `width`."""
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingExtra("pillow", "images", "resizing images") from error
    filters = {"bilinear": 2, "nearest": 0, "bicubic": 3, "lanczos": 1, "box": 4}  # numbers of PIL.Image.Resampling
    if filter not in filters:
        raise BadInput(f"resize has no filter {filter!r}; choose one of {', '.join(filters)}")
    _need_images(batch, "resize")
    target = _target(batch.shape[1], batch.shape[2], size, height, width)
    if target == batch.shape[1:3]:
        return batch
    kind = Image.Resampling(filters[filter])

    def one(image: Array) -> Array:
        if image.ndim == 3 and not (image.dtype == np.uint8 and image.shape[2] == 3):
            return np.stack([one(image[..., channel]) for channel in range(image.shape[2])], axis=-1)
        plain = image if image.dtype == np.uint8 else image.astype(np.float32)
        return np.asarray(Image.fromarray(plain).resize((target[1], target[0]), kind))

    resized = np.stack([one(image) for image in batch])
    if batch.dtype.kind in "iu" and batch.dtype != np.uint8:
        return np.round(resized).astype(batch.dtype)
    return resized


def crop(batch: Array, *, size: int | None = None, height: int | None = None, width: int | None = None) -> Array:
    """Cut the centre of images: `size` × `size`, or `height` × `width`."""
    _need_images(batch, "crop")
    tall, wide = height or size, width or size
    if tall is None or wide is None:
        raise BadInput("crop needs size, or height and width; add them to --preprocess")
    if tall > batch.shape[1] or wide > batch.shape[2]:
        raise BadInput(
            f"crop to {tall} × {wide} is larger than the image, {batch.shape[1]} × {batch.shape[2]}; resize it first"
        )
    top, left = round((batch.shape[1] - tall) / 2), round((batch.shape[2] - wide) / 2)
    return batch[:, top : top + tall, left : left + wide]


def rgb(batch: Array) -> Array:
    """Make grey images [.., height, width] or [.., 1] colour ones of three equal channels; leave colour ones alone."""
    _need_images(batch, "rgb")
    grey_images = batch[..., None] if batch.ndim == 3 else batch
    return np.repeat(grey_images, 3, axis=-1) if grey_images.shape[-1] == 1 else grey_images


def grey(batch: Array) -> Array:
    """Make colour images grey (ITU-R 601-2 luma, as Pillow does), [items, height, width]; leave grey ones alone."""
    _need_images(batch, "grey")
    if batch.ndim == 3 or batch.shape[-1] == 1:
        return batch if batch.ndim == 3 else batch[..., 0]
    if batch.dtype == np.uint8:
        weighted = batch[..., :3].astype(np.uint32) @ np.array([19595, 38470, 7471], dtype=np.uint32)
        return ((weighted + 0x8000) >> 16).astype(np.uint8)
    return np.asarray((batch[..., :3] @ np.array([0.299, 0.587, 0.114])).astype(batch.dtype))


def layout(batch: Array, *, to: str = "NCHW") -> Array:
    """Put the channel axis where the model wants it: "NCHW" or "NHWC"; grey images [items, height, width] get one."""
    _need_images(batch, "layout")
    if to not in ("NCHW", "NHWC"):
        raise BadInput(f"layout has no order {to!r}; choose NCHW or NHWC")
    last = batch[..., None] if batch.ndim == 3 else batch
    return np.ascontiguousarray(np.moveaxis(last, -1, 1)) if to == "NCHW" else last


def scale(batch: Array, *, divisor: float = 255.0) -> Array:
    """Divide by a number, 255 by default; the result is float32."""
    if not divisor:
        raise BadInput("scale can't divide by 0; give another divisor")
    return batch.astype(np.float32) / np.float32(divisor)


def normalize(batch: Array, *, mean: str | float = 0.0, std: str | float = 1.0, axis: int = 1) -> Array:
    """Subtract the mean and divide by the standard deviation: one number, or one per channel along `axis`."""
    middle, spread = _along(batch, mean, axis, "mean"), _along(batch, std, axis, "std")
    if not spread.all():
        raise BadInput("normalize can't divide by a std of 0; give another std")
    return (batch.astype(np.float32, copy=False) - middle) / spread


def cast(batch: Array, *, dtype: str) -> Array:
    """Turn the numbers into another dtype, by numpy's name."""
    try:
        return batch.astype(np.dtype(dtype), copy=False)
    except TypeError as error:
        raise BadInput(f"cast has no dtype {dtype!r}; use numpy's name, such as float32") from error


def reshape(batch: Array, *, shape: str | int) -> Array:
    """Give each item another shape, such as "1, 8, 8", or -1 to flatten it."""
    wanted = [int(number) for number in numbers(shape)]
    try:
        return batch.reshape(len(batch), *wanted)
    except ValueError as error:
        raise BadInput(
            f"items of shape {list(batch.shape[1:])} can't be reshaped to {wanted}; check the shape"
        ) from error


def mono(batch: Array) -> Array:
    """Average the channels of sound [items, samples, channels]; leave sound of one channel alone."""
    if batch.ndim == 2:
        return batch
    mean = batch.mean(axis=2)
    return np.asarray((np.round(mean) if batch.dtype.kind in "iu" else mean).astype(batch.dtype))


def resample(batch: Array, *, rate: int, source_rate: int | None = None) -> Array:
    """Change sound to `rate` samples per second with a polyphase filter; `source_rate` is read from sound files."""
    from scipy.signal import resample_poly

    if source_rate is None:
        raise BadInput("resample needs source_rate, the samples per second of the data; add it to the step")
    if rate == source_rate:
        return batch
    divisor = math.gcd(int(rate), int(source_rate))
    made = resample_poly(batch.astype(np.float32), int(rate) // divisor, int(source_rate) // divisor, axis=1)
    if batch.dtype.kind in "iu":
        limits = np.iinfo(batch.dtype)
        made = np.clip(np.round(made.astype(np.float64)), limits.min, limits.max)
    return np.asarray(made.astype(batch.dtype))


def pad(batch: Array, *, length: int, value: float = 0.0) -> Array:
    """Make the first axis of every item `length` long: its end is cut off, or filled up with `value`."""
    if batch.ndim < 2:
        raise BadInput("pad needs items with an axis of time; these are single numbers")
    missing = int(length) - batch.shape[1]
    if missing <= 0:
        return batch[:, : int(length)]
    return np.pad(batch, [(0, 0), (0, missing), *[(0, 0)] * (batch.ndim - 2)], constant_values=value)


def own(batch: Array, *, function: str) -> Array:
    """Call the user's `module:function` on the batch; done once, when the task is opened."""
    made = as_array(call(find_function(function), batch))
    if made.ndim == 0 or len(made) != len(batch):
        raise BadInput(f"{function} returned {list(made.shape)} for {len(batch)} items; return one row per item")
    return made


STEPS: dict[str, Callable[..., Array]] = {
    function.__name__: function
    for function in (resize, crop, rgb, grey, layout, scale, normalize, cast, reshape, mono, resample, pad)
} | {"call": own}
"""Every step by name. `tokenize` is not among them: it makes several inputs of one column (see `text.py`)."""

BY_ITEM = frozenset(("resize", "crop", "rgb", "grey", "mono", "resample", "pad", "call"))
"""Steps that are done once, when the task is opened, for items that are read from files."""


def run(step: Step, batch: Array, source_rate: int | None = None) -> Array:
    """Return the batch after one step; `source_rate` is the samples per second where the items are sound."""
    given = {name: value for name, value in step.options if name not in (ONCE, INPUT)}
    if step.technique == "resample" and source_rate is not None:
        given.setdefault("source_rate", source_rate)
    try:
        return STEPS[step.technique](batch, **given)
    except TypeError as error:
        raise BadInput(f"the step {step.label()} can't be done ({error}); check its options") from error


def check(step: Step) -> Step:
    """Return the step when it and its options are known; raise `BadInput` that lists what is."""
    if step.technique != "tokenize" and step.technique not in STEPS:
        raise BadInput(f"there is no preprocessing step {step.technique!r}; known are: {', '.join(STEPS)}, tokenize")
    if step.technique == "tokenize":
        known = {"tokenizer": True, "length": False, "width": False, INPUT: False}
    else:
        signature = inspect.signature(STEPS[step.technique]).parameters
        known = {name: p.default is p.empty for name, p in signature.items() if name != "batch"} | {INPUT: False}
    given = dict(step.options)
    for name in given.keys() - {ONCE}:
        if name not in known:
            raise BadInput(f"the step {step.technique} has no option {name!r}; its options are: {', '.join(known)}")
    for name, needed in known.items():
        if needed and name not in given:
            raise BadInput(f"the step {step.technique} needs {name}; add {name} = … to it")
    return step


def concerns(step: Step, name: str) -> bool:
    """Say whether a step is meant for that model input."""
    return dict(step.options).get(INPUT, name) == name


def is_once(step: Step) -> bool:
    """Say whether a step was done when the task was opened."""
    return bool(dict(step.options).get(ONCE, False))


def numbers(given: Any) -> list[float]:
    """Return the numbers of an option: a number, or several in a text, separated by commas."""
    try:
        return [float(part) for part in given.split(",")] if isinstance(given, str) else [float(given)]
    except (TypeError, ValueError) as error:
        raise BadInput(f"{given!r} is not a number or several separated by commas; mend the step") from error


def _along(batch: Array, given: str | float, axis: int, name: str) -> Array:
    values = np.array(numbers(given), dtype=np.float32)
    if len(values) == 1:
        return values
    if batch.shape[axis] != len(values):
        raise BadInput(
            f"normalize has {len(values)} values of {name} for {batch.shape[axis]} channels on axis {axis} of "
            f"{list(batch.shape)}; set axis, or put layout first"
        )
    shape = [1] * batch.ndim
    shape[axis] = len(values)
    return values.reshape(shape)


def _need_images(batch: Array, step: str) -> None:
    if batch.ndim not in (3, 4) or (batch.ndim == 4 and batch.shape[-1] not in (1, 2, 3, 4)):
        raise BadInput(
            f"{step} takes images [height, width] or [height, width, channels], and these items are "
            f"{list(batch.shape[1:])}; put {step} before layout, or leave it out"
        )


def _target(tall: int, wide: int, size: int | None, height: int | None, width: int | None) -> tuple[int, int]:
    if height is not None and width is not None and size is None:
        return int(height), int(width)
    if size is None or height is not None or width is not None:
        raise BadInput("resize needs size (of the shorter side), or height and width; add one of them")
    short = min(tall, wide)
    return int(size * tall / short), int(size * wide / short)
