"""How items are kept: what comes out of a store is what went in, or within what is said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trimtab.core.errors import BadInput
from trimtab.core.values import Model, Signature, Split, Task, TensorSpec
from trimtab.data.arrays import open_array
from trimtab.data.request import DataRequest
from trimtab.data.task import open_task
from trimtab.training import items
from trimtab.training.items import Given, Keeping, Stored, kept_items
from trimtab.training.recipe import Recipe

torch = pytest.importorskip("torch")

COUNT = 400
ROWS = np.random.default_rng(1).permutation(COUNT)[:50]
Open = Callable[..., tuple[Task, Split]]


@pytest.fixture
def opened(tmp_path: Path) -> Open:
    """Open arrays by name (of the inputs) as a task whose items are all but a few to train on."""

    def make(preprocess: str | None = None, **arrays: Any) -> tuple[Task, Split]:
        specs = tuple(
            TensorSpec(
                name=name, dtype="int64" if array.dtype.kind == "i" else "float32", shape=_shape(array, preprocess)
            )
            for name, array in arrays.items()
        )
        outputs = (TensorSpec(name="output", dtype="float32", shape=("batch", 2)),)
        model = Model(
            format="fake", path=Path("net.py"), digest="fake", signature=Signature(inputs=specs, outputs=outputs)
        )
        count = len(next(iter(arrays.values())))
        given = {**arrays, "labels": np.arange(count) % 2, "split": np.repeat(["train", "test"], [count - 40, 40])}
        task = open_task(given, model, tmp_path / "data", DataRequest(preprocess=preprocess))
        split = task.split("train")
        assert split is not None
        return task, split

    return make


def _shape(array: Any, preprocess: str | None) -> tuple[int | str, ...]:
    channels = {"mnist": 1, "imagenet": 3}
    return ("batch", channels[preprocess], *array.shape[1:3]) if preprocess else ("batch", *array.shape[1:])


def images(*shape: int) -> Any:
    return np.random.default_rng(0).integers(0, 256, (COUNT + 100, *shape), dtype=np.uint8)


def kept(given: tuple[Task, Split], store: str, folder: Path) -> tuple[Stored, Keeping]:
    found, keeping = kept_items(*given, store, folder, batch=32)
    assert isinstance(found, Stored)
    assert keeping is not None
    return found, keeping


def within(found: Any, expected: Any) -> bool:
    """Say whether numbers are the same within four units in the last place of the largest."""
    most = 4 * np.finfo(np.float32).eps * np.abs(expected).max()
    return found.dtype == expected.dtype == np.float32 and np.abs(found - expected).max() <= most


def rows_of(split: Split) -> Any:
    return np.random.default_rng(1).permutation(len(split))[:50]


def test_float32_keeps_every_bit_over_the_borders_of_shards(
    opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(items, "_SHARD_BYTES", 4 * 28 * 28 * 128)
    task, split = opened("mnist", image=images(28, 28))
    found, keeping = kept((task, split), "float32", tmp_path)
    assert [file.shape[0] for file in keeping.inputs[0].shards] == [128, 128, 128, len(split) - 384]
    rows = rows_of(split)
    assert len(np.unique(rows // 128)) > 2
    assert np.array_equal(found(rows)["image"], Given(task, split)(rows)["image"])
    assert (keeping.off, keeping.prepared_bytes) == (0.0, 4 * 28 * 28 * len(split))
    assert keeping.prepared_bytes < keeping.bytes < keeping.prepared_bytes + 4 * 200, "headers"


def test_bytes_hold_images_exactly_with_their_normalization_fused(opened: Open, tmp_path: Path) -> None:
    task, split = opened("mnist", image=images(28, 28))
    found, keeping = kept((task, split), "uint8", tmp_path)
    rows = rows_of(split)
    assert within(found(rows)["image"], Given(task, split)(rows)["image"])
    (image,) = keeping.inputs
    assert np.array_equal(open_array(image.shards[0])[:, 0], open_array(split.inputs[0])), "the very bytes"
    assert image.steps == pytest.approx([1 / 255 / 0.3081])
    assert image.origins == pytest.approx([-0.1307 / 0.3081])
    assert keeping.bytes == pytest.approx(keeping.prepared_bytes / 4, rel=0.01)


def test_each_channel_has_a_scale_of_its_own(opened: Open, tmp_path: Path) -> None:
    task, split = opened("imagenet", image=images(16, 16, 3))
    found, keeping = kept((task, split), "uint8", tmp_path)
    rows = rows_of(split)
    assert within(found(rows)["image"], Given(task, split)(rows)["image"])
    assert keeping.inputs[0].steps == pytest.approx([1 / 255 / std for std in (0.229, 0.224, 0.225)])


def test_fractions_that_were_bytes_once_are_bytes_again(opened: Open, tmp_path: Path) -> None:
    given = (images(6) // 16).astype(np.float32) / 16 - np.float32(0.3)
    task, split = opened(x=given)
    found, keeping = kept((task, split), "uint8", tmp_path)
    rows = rows_of(split)
    assert within(found(rows)["x"], Given(task, split)(rows)["x"])
    assert keeping.bytes < keeping.given_bytes / 3


def test_a_channel_of_one_value_is_kept(opened: Open, tmp_path: Path) -> None:
    task, split = opened(x=np.full((COUNT, 3), 0.7, np.float32))
    found, _ = kept((task, split), "uint8", tmp_path)
    assert np.array_equal(found(ROWS % len(split))["x"], np.full((50, 3), 0.7, np.float32))


@pytest.mark.parametrize(
    ("values", "why"),
    [
        (np.arange(257.0), "it takes more than 256 values"),
        (np.array([0.0, 1.0, 1000.0]), "its values are not equally spaced"),
        (np.array([0.0, 1.0, 2.5]), "its values are not equally spaced"),
        (np.array([0.0, 1e-3, 1.0]), "its values are not equally spaced"),
    ],
)
def test_what_a_byte_can_not_hold_is_refused_with_the_reason(
    opened: Open, tmp_path: Path, values: Any, why: str
) -> None:
    given = np.resize(values, (COUNT, 5)).astype(np.float32)
    with pytest.raises(BadInput, match=f"store=uint8 can't hold the input 'x' exactly: {why}; give store=bf16 or"):
        kept_items(*opened(x=given), "uint8", tmp_path, batch=32)


def test_bf16_is_what_pytorch_rounds_to(opened: Open, tmp_path: Path) -> None:
    task, split = opened(x=np.random.default_rng(0).standard_normal((COUNT, 7)).astype(np.float32))
    found, keeping = kept((task, split), "bf16", tmp_path)
    rows = rows_of(split)
    exact = Given(task, split)(rows)["x"]
    assert np.array_equal(found(rows)["x"], torch.from_numpy(exact).bfloat16().float().numpy())
    assert 0 < keeping.off <= 2.0**-8 * 4
    assert keeping.bytes == pytest.approx(keeping.given_bytes / 2, rel=0.05)


@pytest.mark.parametrize("store", ["float32", "bf16", "uint8"])
def test_whole_numbers_stay_whole_in_fewer_bytes(opened: Open, tmp_path: Path, store: str) -> None:
    rng = np.random.default_rng(0)
    given = {"ids": rng.integers(0, 30_000, (COUNT, 6)), "mask": rng.integers(0, 2, (COUNT, 6)),
             "offset": rng.integers(-3, 300, (COUNT, 2))}  # fmt: skip
    task, split = opened(**given)
    found, keeping = kept((task, split), store, tmp_path)
    rows = rows_of(split)
    for name, array in Given(task, split)(rows).items():
        assert found(rows)[name].dtype == np.int64
        assert np.array_equal(found(rows)[name], array)
    assert {each.name: each.shards[0].dtype for each in keeping.inputs} == {
        "ids": "uint16", "mask": "uint8", "offset": "int16"
    }  # fmt: skip


def test_what_is_kept_already_is_not_made_again(opened: Open, tmp_path: Path) -> None:
    given = opened(x=np.ones((COUNT, 3), np.float32))
    _, first = kept(given, "float32", tmp_path)
    made = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("float32-*/*")}
    _, again = kept(given, "float32", tmp_path)
    assert again == first
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("float32-*/*")} == made != {}


def test_items_are_left_as_given_where_nothing_else_is_asked(opened: Open, tmp_path: Path) -> None:
    task, split = opened("mnist", image=images(28, 28))
    found, keeping = kept_items(task, split, Recipe().store, tmp_path / "items", batch=32)
    assert keeping is None
    assert found(ROWS % len(split))["image"].shape == (50, 1, 28, 28)
    assert not (tmp_path / "items").exists()
