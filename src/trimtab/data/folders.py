"""Reads folders of image or sound files: one folder per class, or all in one folder when there are no labels."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np

from trimtab.core.errors import BadInput, MissingExtra
from trimtab.core.protocols import Array
from trimtab.data.table import ANY, Files, Table

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
    """Return the image and sound files of a folder and its subfolders, sorted by path; what is hidden is left out."""
    found = (path for path in folder.rglob("*") if path.suffix.lower() in IMAGES | SOUNDS and path.is_file())
    return sorted(path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts))


def read_image(path: Path) -> tuple[Array, int | None]:
    """Return an image, [height, width] when it is grey and [height, width, 3] when not, 8 bit unless it is deeper."""
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingExtra("pillow", "images", "reading images") from error
    try:
        with Image.open(path) as image:
            if image.mode in ("I;16", "I", "F"):
                return np.asarray(image), None
            return np.asarray(image.convert("L" if image.mode in ("1", "L", "LA") else "RGB")), None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise BadInput(f"the image {path} can't be read ({error}); replace or remove it") from error


def read_sound(path: Path) -> tuple[Array, int | None]:
    """Return a WAV file, [samples] or [samples, channels] in its own dtype, and its samples per second."""
    from scipy.io import wavfile

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", wavfile.WavFileWarning)  # chunks that aren't sound
            rate, samples = wavfile.read(path)
    except (OSError, ValueError, EOFError) as error:
        raise BadInput(f"the sound file {path} can't be read ({error}); replace or remove it") from error
    if not len(samples):
        raise BadInput(f"the sound file {path} holds no samples; replace or remove it")
    return samples, int(rate)


def _items(files: list[Path], folder: Path) -> Files:
    sounds = [path for path in files if path.suffix.lower() in SOUNDS]
    if 0 < len(sounds) < len(files):
        raise BadInput(f"{folder} holds both images and sounds; keep one kind")
    names = tuple(str(path.relative_to(folder)) for path in files)
    return Files(tuple(files), names, read_sound if sounds else read_image)


def _order_note(names: tuple[str, ...]) -> tuple[str, ...]:
    if not all(name.isdecimal() for name in names) or sorted(names, key=int) == list(names):
        return ()
    shown = ", ".join(names[:4])
    return (f"class folders are taken in the order of their names as text ({shown} …); --labels gives another order",)
