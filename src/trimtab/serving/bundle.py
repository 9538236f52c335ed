"""The bundle: a folder with the model, how to run it, what is known of it, and three lines that load it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from trimtab.core.codec import dumps, loads
from trimtab.core.engine import ready
from trimtab.core.errors import BadInput
from trimtab.core.files import digest_files, disk_errors, inside, make_folder, write_text
from trimtab.core.protocols import Array, Arrays, Engine
from trimtab.core.values import Certificate, Machine, Measurement, Options, Step, Task, Variant
from trimtab.data.batches import prepare_raw
from trimtab.serving.snippet import snippet

MANIFEST = "manifest.json"
MODEL = "model"


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What `manifest.json` holds. Paths are relative to the bundle; `checksums` are SHA-256 of the model's files."""

    trimtab: str
    variant: Variant
    preprocessing: tuple[Step, ...]
    classes: tuple[str, ...]
    kind: str
    threshold: float | None
    output: str | None
    measurement: Measurement | None
    certificate: Certificate | None
    machine: Machine
    checksums: Options
    time: str


def write_bundle(
    folder: Path,
    variant: Variant,
    task: Task,
    *,
    measurement: Measurement | None,
    certificate: Certificate | None,
    machine: Machine,
    version: str,
) -> Manifest:
    """Write model, manifest and the stand-alone snippet to the folder and return the manifest.

    The model's files are copied under `model/`; what was there of an earlier bundle is replaced.
    """
    target = make_folder(folder) / MODEL
    source = variant.model.path
    with disk_errors(target):
        if target.exists():
            shutil.rmtree(target)
        relative = _copy(source, target)
    files = sorted(path for path in target.rglob("*") if path.is_file())
    placed = replace(variant, model=replace(variant.model, path=Path(MODEL) / relative))
    manifest = Manifest(
        trimtab=version,
        variant=placed,
        preprocessing=task.preprocessing,
        classes=task.classes,
        kind=task.kind,
        threshold=task.threshold,
        output=task.output,
        measurement=measurement,
        certificate=certificate,
        machine=machine,
        checksums=tuple((str(path.relative_to(folder)), digest_files([path])) for path in files),
        time=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    write_text(folder / "run.py", snippet(placed))
    write_text(folder / MANIFEST, dumps(manifest, indent=1))
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of a bundle; its files are checked against their checksums."""
    path = folder / MANIFEST
    if not path.is_file():
        raise BadInput(f"{folder} is no bundle: it has no {MANIFEST}; give the folder that trimtab optimize wrote")
    manifest = loads(Manifest, path.read_text())
    for name, digest in manifest.checksums:
        file = inside(folder, name)
        if not file.is_file():
            raise BadInput(f"the bundle {folder} lacks its file {name}; copy the whole folder again")
        if digest_files([file]) != digest:
            raise BadInput(f"the file {name} of the bundle {folder} was changed; copy the whole folder again")
    return manifest


def bundled_variant(folder: Path, manifest: Manifest) -> Variant:
    """Return the variant of a bundle with the path of its model made absolute."""
    model = manifest.variant.model
    return replace(manifest.variant, model=replace(model, path=inside(folder, str(model.path))))


class Loaded:
    """A model ready for production: call it with named arrays (or one array) and get named arrays back.

    Inputs are what the model itself takes; `prepare` turns raw items into that.
    """

    __slots__ = ("_engine", "_first", "manifest")

    def __init__(self, engine: Engine, manifest: Manifest) -> None:
        self._engine = engine
        self._first = manifest.variant.model.signature.data_inputs[0].name
        self.manifest = manifest

    def __call__(self, inputs: Arrays | Array, /) -> dict[str, Array]:
        """Return the outputs by name for one batch."""
        if type(inputs) is dict:
            return self._engine(inputs)
        return self._engine(inputs if isinstance(inputs, Mapping) else {self._first: inputs})

    def prepare(self, items: Arrays | Array) -> dict[str, Array]:
        """Return raw items (one row each) preprocessed as they were for every number in the manifest."""
        named = items if isinstance(items, Mapping) else {self._first: items}
        return prepare_raw(named, self.manifest.preprocessing, self.manifest.variant.model)


def load(folder: str | Path) -> Loaded:
    """Load a bundle into this process."""
    root = Path(folder)
    manifest = read_manifest(root)
    return Loaded(ready(bundled_variant(root, manifest)), manifest)


def _copy(source: Path, target: Path) -> Path:
    """Copy a model to the folder and return its path in there."""
    if source.is_dir():
        shutil.copytree(source, target)
        return Path()
    target.mkdir()
    shutil.copy2(source, target / source.name)
    for beside in companions(source):
        (target / beside.relative_to(source.parent)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(beside, target / beside.relative_to(source.parent))
    return Path(source.name)


def companions(source: Path) -> list[Path]:
    """Return the files that a model file needs beside it: weights of OpenVINO, external data of ONNX."""
    if source.suffix == ".xml":
        return [source.with_suffix(".bin")]
    if source.suffix == ".onnx":
        from trimtab.formats.onnx import external_files

        return list(external_files(source))
    return []
