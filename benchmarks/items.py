"""Items prepared by hand, apart from trimtab's own preprocessing, so that the two can be held against each other."""

from __future__ import annotations

import gzip
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

GREY_TO_IMAGENET = """\
# Grey images of any size, as a network trained on ImageNet expects them.
[[step]]
name = "resize"
height = 224
width = 224

[[step]]
name = "rgb"

[[step]]
name = "layout"
to = "NCHW"

[[step]]
name = "scale"

[[step]]
name = "normalize"
mean = [0.485, 0.456, 0.406]
std = [0.229, 0.224, 0.225]
"""

TOKENIZE = """\
[[step]]
name = "tokenize"
tokenizer = "tokenizer.json"
length = 128
"""


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Return the bytes of an IDX file, gzipped or not, in its shape."""
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    rank = content[3]
    shape = struct.unpack(f">{rank}I", content[4 : 4 + 4 * rank])
    return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape)


def write_idx(path: Path, array: NDArray[np.uint8]) -> None:
    """Write bytes as an IDX file."""
    path.write_bytes(struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes())


def copy_idx(source: Path, target: Path, train_items: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Copy the test files and the first training items to a folder; return those training images and labels."""
    target.mkdir()
    for path in source.glob("t10k-*"):
        shutil.copy(path, target)
    kept = [read_idx(source / f"train-{part}-ubyte.gz")[:train_items].copy() for part in ("images-idx3", "labels-idx1")]
    for part, array in zip(("images-idx3", "labels-idx1"), kept, strict=True):
        write_idx(target / f"train-{part}-ubyte", array)
    return kept[0], kept[1]


def imagenet_images(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return grey images [N, h, w] as float32 [N, 3, 224, 224]: bilinear, over 255, ImageNet's mean and spread."""
    from PIL import Image

    made = np.empty((len(images), 3, 224, 224), dtype=np.float32)
    for row, image in enumerate(images):
        grey = np.asarray(Image.fromarray(image).resize((224, 224), Image.Resampling.BILINEAR), dtype=np.float32) / 255
        for channel, (mean, std) in enumerate(zip(MEAN, STD, strict=True)):
            made[row, channel] = (grey - mean) / std
    return made


def tokenize(tokenizer: Path, texts: list[str], length: int) -> dict[str, NDArray[Any]]:
    """Return token ids and mask [N, length], cut and padded."""
    from tokenizers import Tokenizer

    loaded = Tokenizer.from_file(str(tokenizer))
    loaded.enable_truncation(length)
    loaded.enable_padding(length=length)
    encoded = loaded.encode_batch(texts)
    return {
        "input_ids": np.array([one.ids for one in encoded]),
        "attention_mask": np.array([one.attention_mask for one in encoded]),
    }
