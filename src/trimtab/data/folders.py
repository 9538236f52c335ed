"""Reads folders of image or sound files: one folder per class, or all in one folder when there are no labels."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trimtab.core.errors import BadInput, MissingExtra
from trimtab.core.protocols import Array
from trimtab.data.table import ANY, Items, Table

IMAGES = frozenset((".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm"))
SOUNDS = frozenset((".wav", ".wave"))


def read_class_folders(folder: Path) -> Table:
    """Return the files of a folder of class folders; labels count the classes sorted by name."""
    classes = [path for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith(".")]
    files: list[Path] = []
    labels: list[int] = []
    for label, held in enumerate(classes):
        found = media_files(held)
        if not found:
            raise BadInput(f"the class folder {held} holds no images or .wav files; fill it or remove it")
        files += found
        labels += [label] * len(found)
    names = tuple(path.name for path in classes)
    return Table(columns={ANY: _items(files, folder)}, labels=np.array(labels), classes=names, notes=_order_note(names))


def read_flat_folder(folder: Path) -> Table:
    """Return the image or sound files that lie in one folder, without labels."""
    return Table(columns={ANY: _items(media_files(folder), folder)})


def media_files(folder: Path) -> list[Path]:
    """Return the image and sound files of a folder and its subfolders, sorted by path; hidden files are left out."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGES | SOUNDS and not path.name.startswith(".") and path.is_file()
    )


@dataclass(frozen=True, slots=True)
class Images:
    """Image files; grey ones are read as [height, width], colour ones as [height, width, 3], 8 bit unless deeper."""

    paths: Sequence[Path]
    folder: Path

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, row: int) -> tuple[Array, None]:
        """Return one image; it has no rate."""
        try:
            from PIL import Image
        except ImportError as error:
            raise MissingExtra("pillow", "images", "reading images") from error
        path = self.paths[row]
        try:
            with Image.open(path) as image:
                if image.mode in ("1", "L", "LA"):
                    return np.asarray(image.convert("L")), None
                if image.mode in ("I;16", "I", "F"):
                    return np.asarray(image), None
                return np.asarray(image.convert("RGB")), None
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise BadInput(f"the image {path} can't be read ({error}); replace or remove it") from error

    def name(self, row: int) -> str:
        """Return the path inside the folder."""
        return str(self.paths[row].relative_to(self.folder))


@dataclass(frozen=True, slots=True)
class Sounds:
    """WAV files; read as [samples] or, with several channels, [samples, channels], in the file's own dtype."""

    paths: Sequence[Path]
    folder: Path

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, row: int) -> tuple[Array, int]:
        """Return the samples of one file and how many there are per second."""
        from scipy.io import wavfile

        path = self.paths[row]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", wavfile.WavFileWarning)  # chunks that aren't sound
                rate, samples = wavfile.read(path)
        except (OSError, ValueError, EOFError) as error:
            raise BadInput(f"the sound file {path} can't be read ({error}); replace or remove it") from error
        if not len(samples):
            raise BadInput(f"the sound file {path} holds no samples; replace or remove it")
        return samples, int(rate)

    def name(self, row: int) -> str:
        """Return the path inside the folder."""
        return str(self.paths[row].relative_to(self.folder))


def _items(files: list[Path], folder: Path) -> Items:
    sounds = [path for path in files if path.suffix.lower() in SOUNDS]
    if not sounds:
        return Images(files, folder)
    if len(sounds) < len(files):
        raise BadInput(f"{folder} holds both images and sounds; keep one kind")
    return Sounds(files, folder)


def _order_note(names: tuple[str, ...]) -> tuple[str, ...]:
    if not all(name.isdigit() for name in names) or sorted(names, key=int) == list(names):
        return ()
    shown = ", ".join(names[:4])
    return (f"class folders are taken in the order of their names as text ({shown} …); --labels gives another order",)
