import sys
import wave
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trimtab.core.errors import BadInput, MissingExtra
from trimtab.data.folders import read_image, read_sound
from trimtab.data.sources import read_source
from trimtab.data.table import ANY


def save_images(folder: Path, classes: dict[str, int], mode: str = "RGB", size: tuple[int, int] = (6, 4)) -> np.ndarray:
    rng = np.random.default_rng(0)
    kept = []
    for name, count in classes.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 256, (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])).astype(
                np.uint8
            )
            Image.fromarray(pixels).save(folder / name / f"{number:03}.png")
            kept.append(pixels)
    return np.stack(kept)


def save_sound(path: Path, samples: np.ndarray, rate: int) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1 if samples.ndim == 1 else samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.astype("<i2").tobytes())


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_images_are_read_as_they_were_written_with_the_folder_as_label(tmp_path: Path, make_model, mode: str) -> None:
    pixels = save_images(tmp_path, {"dog": 3, "cat": 2}, mode)
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "cat" / "notes.txt").write_text("not an image")
    table = read_source(tmp_path, make_model().signature)
    assert table.classes == ("cat", "dog")
    assert table.labels.tolist() == [0, 0, 1, 1, 1]
    read = [table.columns[ANY].read(row)[0] for row in range(5)]
    np.testing.assert_array_equal(np.stack(read), pixels[[3, 4, 0, 1, 2]])
    assert table.columns[ANY].names[0] == str(Path("cat") / "000.png")


def test_a_palette_or_transparent_image_becomes_rgb(tmp_path: Path, make_model) -> None:
    (tmp_path / "a").mkdir()
    Image.new("RGBA", (3, 2), (10, 20, 30, 40)).save(tmp_path / "a" / "0.png")
    Image.new("P", (3, 2)).save(tmp_path / "a" / "1.png")
    items = read_source(tmp_path, make_model().signature).columns[ANY]
    assert [items.read(row)[0].shape for row in range(2)] == [(2, 3, 3)] * 2
    assert items.read(0)[0][0, 0].tolist() == [10, 20, 30]


def test_images_without_class_folders_have_no_labels(tmp_path: Path, make_model) -> None:
    save_images(tmp_path, {"x": 3})
    table = read_source(tmp_path / "x", make_model().signature)
    assert table.labels is None
    assert len(table) == 3


def test_an_unreadable_image_is_named(tmp_path: Path, make_model) -> None:
    save_images(tmp_path, {"a": 2})
    whole = (tmp_path / "a" / "001.png").read_bytes()
    items = read_source(tmp_path, make_model().signature).columns[ANY]
    for content in (b"", b"no image", whole[: len(whole) // 2]):
        (tmp_path / "a" / "001.png").write_bytes(content)
        with pytest.raises(BadInput, match=r"001\.png can't be read"):
            items.read(1)


def test_an_empty_class_folder_is_named(tmp_path: Path, make_model) -> None:
    save_images(tmp_path, {"a": 2})
    (tmp_path / "b").mkdir()
    with pytest.raises(BadInput, match="b holds no images"):
        read_source(tmp_path, make_model().signature)


def test_train_and_val_folders_of_class_folders_are_splits(tmp_path: Path, make_model) -> None:
    save_images(tmp_path / "train", {"a": 3, "b": 2})
    save_images(tmp_path / "val", {"b": 4})
    table = read_source(tmp_path, make_model().signature)
    assert table.classes == ("a", "b")
    assert table.labels.tolist() == [0, 0, 0, 1, 1, 1, 1, 1, 1]
    assert table.splits.tolist() == ["train"] * 5 + ["val"] * 4
    assert table.columns[ANY].names[5] == str(Path("b") / "000.png")


def test_numbered_classes_are_in_text_order_and_that_is_said(tmp_path: Path, make_model) -> None:
    save_images(tmp_path, {str(number): 1 for number in range(11)})
    table = read_source(tmp_path, make_model().signature)
    assert table.classes[:3] == ("0", "1", "10")
    assert "order of their names as text" in table.notes[0]


@pytest.mark.parametrize("channels", [1, 2])
def test_sound_is_read_with_its_rate(tmp_path: Path, make_model, channels: int) -> None:
    samples = np.random.default_rng(1).integers(-32768, 32767, (50, channels)).astype(np.int16)
    samples = samples[:, 0] if channels == 1 else samples
    (tmp_path / "yes").mkdir()
    save_sound(tmp_path / "yes" / "a.wav", samples, 8000)
    read, rate = read_source(tmp_path, make_model().signature).columns[ANY].read(0)
    np.testing.assert_array_equal(read, samples)
    assert rate == 8000


def test_a_broken_sound_file_is_named(tmp_path: Path, make_model) -> None:
    (tmp_path / "yes").mkdir()
    (tmp_path / "yes" / "a.wav").write_bytes(b"RIFF....WAVE")
    with pytest.raises(BadInput, match=r"a\.wav"):
        read_source(tmp_path, make_model().signature).columns[ANY].read(0)


def test_images_and_sounds_in_one_folder_are_refused(tmp_path: Path, make_model) -> None:
    save_images(tmp_path, {"a": 1})
    save_sound(tmp_path / "a" / "x.wav", np.zeros(9), 8000)
    with pytest.raises(BadInput, match="both images and sounds"):
        read_source(tmp_path, make_model().signature)


def test_hidden_files_and_folders_are_left_out(tmp_path: Path, make_model) -> None:
    save_images(tmp_path, {"a": 2})
    save_images(tmp_path / "a", {".thumbnails": 1, "more": 1})
    (tmp_path / "a" / "._001.png").write_bytes(b"a shadow of another system")
    column = read_source(tmp_path, make_model().signature).columns[ANY]
    assert column.names == tuple(str(Path("a") / name) for name in ("000.png", "001.png", Path("more") / "000.png"))


def test_class_names_may_be_any_text(tmp_path: Path, make_model) -> None:
    save_images(tmp_path, {"²": 1, "Straße 7": 1, "猫": 1})
    table = read_source(tmp_path, make_model().signature)
    assert (table.classes, table.notes) == (("Straße 7", "²", "猫"), ())


def test_deep_images_keep_their_numbers(tmp_path: Path, make_model) -> None:
    pixels = np.array([[0, 300], [65535, 7]], dtype=np.uint16)
    (tmp_path / "scan").mkdir()
    Image.fromarray(pixels).save(tmp_path / "scan" / "0.png")
    np.testing.assert_array_equal(read_source(tmp_path, make_model().signature).columns[ANY].read(0)[0], pixels)


def test_a_black_and_white_image_is_grey(tmp_path: Path) -> None:
    Image.new("1", (3, 2), 1).save(tmp_path / "0.png")
    np.testing.assert_array_equal(read_image(tmp_path / "0.png")[0], np.full((2, 3), 255, np.uint8))


def test_sound_without_a_sample_is_named(tmp_path: Path) -> None:
    save_sound(tmp_path / "a.wav", np.zeros(0), 8000)
    with pytest.raises(BadInput, match=r"a\.wav holds no samples; replace or remove it"):
        read_sound(tmp_path / "a.wav")


def test_images_without_pillow_name_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(MissingExtra, match=r"pip install 'trimtab\[images\]'"):
        read_image(tmp_path / "0.png")
