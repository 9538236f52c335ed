"""The bundle: a folder with the model, how to run it, what is known of it, and three lines that load it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from trimtab.core import plugins
from trimtab.core.codec import dumps, loads
from trimtab.core.engine import misfit, ready
from trimtab.core.errors import BadInput, Unsafe
from trimtab.core.files import digest_files, inside, make_folder, whole_folder, write_bytes, write_text
from trimtab.core.protocols import Array, Arrays, Engine, Opening
from trimtab.core.values import Certificate, Machine, Measurement, Model, Options, Step, Task, Variant, options
from trimtab.data.batches import prepare_raw
from trimtab.data.text import tokenizer_file
from trimtab.serving.snippet import snippet

MANIFEST = "manifest.json"
MODEL = "model"
SNIPPET = "run.py"
TOKENIZER = "tokenizer.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What `manifest.json` holds. Paths are relative to the bundle; `checksums` are SHA-256 of the files that it needs.

    `task` says what the answers mean (kind, classes, threshold …) and how items are prepared; it holds no items.
    """

    trimtab: str
    variant: Variant
    task: Task
    measurement: Measurement | None
    certificate: Certificate | None
    machine: Machine
    checksums: Options
    time: str


def check_place(folder: Path, *others: str) -> None:
    """Raise `BadInput` when a bundle, or the files written beside it, would overwrite what is no earlier bundle's."""
    manifest = folder / MANIFEST
    if manifest.is_file() and '"trimtab"' in manifest.read_text("utf-8", errors="replace"):
        return
    taken = " and ".join(name for name in (MANIFEST, MODEL, SNIPPET, TOKENIZER, *others) if (folder / name).exists())
    if taken:
        raise BadInput(f"{folder} holds {taken} already, which would be overwritten; choose another --output")


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

    The model's files are copied under `model/`, and the tokenizer that texts are prepared with beside it; what was
    there of an earlier bundle is replaced.
    """
    target = make_folder(folder) / MODEL
    with whole_folder(target) as place:
        relative = _copy(variant.model.path, place)
    files = sorted(path for path in target.rglob("*") if path.is_file())
    placed = replace(variant, model=replace(variant.model, path=Path(MODEL) / relative))
    steps = tuple(_carried(step, folder) for step in task.preprocessing)
    if steps != task.preprocessing:
        files.append(folder / TOKENIZER)
    else:
        (folder / TOKENIZER).unlink(missing_ok=True)
    manifest = Manifest(
        trimtab=version,
        variant=placed,
        task=replace(task, splits=(), preprocessing=steps),
        measurement=measurement,
        certificate=certificate,
        machine=machine,
        checksums=tuple((path.relative_to(folder).as_posix(), digest_files([path])) for path in files),
        time=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    write_text(folder / SNIPPET, snippet(placed))
    write_text(folder / MANIFEST, dumps(manifest, indent=1))
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of a bundle, the path of its tokenizer made absolute; its files are checked by checksums."""
    path = folder / MANIFEST
    if not path.is_file():
        raise BadInput(f"{folder} is no bundle: it has no {MANIFEST}; give the folder that trimtab optimize wrote")
    try:
        manifest = loads(Manifest, path.read_text("utf-8"))
    except (BadInput, UnicodeDecodeError) as error:
        raise BadInput(f"{path} is damaged or of another version of trimtab ({error}); optimize again") from error
    for name, digest in manifest.checksums:
        file = inside(folder, str(name))
        if not file.is_file():
            raise BadInput(f"the bundle {folder} lacks its file {name}; copy the whole folder again")
        if digest_files([file]) != digest:
            raise BadInput(f"the file {name} of the bundle {folder} was changed; copy the whole folder again")
    steps = tuple(_found(step, folder) for step in manifest.task.preprocessing)
    return replace(manifest, task=replace(manifest.task, preprocessing=steps))


def bundled_variant(folder: Path, manifest: Manifest, trust_pickle: bool = False) -> Variant:
    """Return the variant of a bundle with the path of its model made absolute.

    The model is opened with the checks that every file from a stranger gets; one that runs code when it is loaded
    raises `Unsafe` unless it is trusted.
    """
    model = manifest.variant.model
    path = inside(folder, model.path.as_posix())
    with TemporaryDirectory(prefix="trimtab-") as scratch:
        opening = Opening(folder=Path(scratch), trust_pickle=trust_pickle)
        try:
            plugins.make("formats", model.format).open(str(path), opening)
        except Unsafe as error:
            raise Unsafe(f"{error} (in Python: trust_pickle=True)") from error
    return replace(manifest.variant, model=replace(model, path=path))


def runs_code(model: Model, task: Task) -> bool:
    """Say whether loading that model, preparing items for it or judging its answers runs code that is named there."""
    format = plugins.plugin_class("formats", model.format)
    return bool(getattr(format, "runs_code", False) or _functions(task))


def check_code(manifest: Manifest, trust_pickle: bool) -> None:
    """Raise `Unsafe` when preparing items or judging answers would run functions that the manifest names."""
    named = _functions(manifest.task)
    if named and not trust_pickle:
        raise Unsafe(
            f"the bundle names code to run ({', '.join(named)}); if you trust who made it, add --trust-pickle "
            "(in Python: trust_pickle=True)"
        )


def _functions(task: Task) -> list[str]:
    named = [str(dict(step.options).get("function")) for step in task.preprocessing if step.technique == "call"]
    return [*named, task.metric] if ":" in task.metric else named


class Loaded:
    """A model ready for production: call it with named arrays (or one array) and get named arrays back.

    Inputs are what the model itself takes; `prepare` turns raw items into that.
    """

    __slots__ = ("_engine", "_first", "_names", "_signature", "_trusted", "manifest")

    def __init__(self, engine: Engine, manifest: Manifest, trusted: bool = False) -> None:
        self._engine = engine
        self._trusted = trusted
        self._signature = manifest.variant.model.signature
        self._names = {spec.name for spec in self._signature.data_inputs}
        self._first = self._signature.data_inputs[0].name
        self.manifest = manifest

    def __call__(self, inputs: Arrays | Array, /) -> dict[str, Array]:
        """Return the outputs by name for one batch; raise `BadInput` where the inputs are not what the model takes."""
        named = inputs if type(inputs) is dict or isinstance(inputs, Mapping) else {self._first: inputs}
        if named.keys() != self._names:  # an engine may answer with what it held before
            raise BadInput(misfit(named, self._signature))
        try:
            return self._engine(named)
        except Exception as error:  # looked into only now, so that a good call costs nothing
            if wrong := misfit(named, self._signature):
                raise BadInput(wrong) from error
            raise

    def prepare(self, items: Arrays | Array) -> dict[str, Array]:
        """Return raw items (one row each) preprocessed as they were for every number in the manifest.

        Texts are padded to the longest of these only.
        """
        check_code(self.manifest, self._trusted)
        named = items if isinstance(items, Mapping) else {self._first: items}
        return prepare_raw(named, self.manifest.task.preprocessing, self.manifest.variant.model)


def load(folder: str | Path, trust_pickle: bool = False) -> Loaded:
    """Load a bundle into this process.

    Args:
        folder: what `trimtab optimize` or `trimtab apply` wrote.
        trust_pickle: load it even when that runs code which the bundle names.

    Raises:
        BadInput: this is no bundle, or it was changed.
        Unsafe: loading its model runs code, and that was not allowed.
        MissingExtra: its engine is not installed.
    """
    root = Path(folder)
    manifest = read_manifest(root)
    return Loaded(ready(bundled_variant(root, manifest, trust_pickle)), manifest, trust_pickle)


def _carried(step: Step, folder: Path) -> Step:
    """Copy the tokenizer that a step names into the bundle and return the step with its path in there."""
    named = dict(step.options).get("tokenizer")
    if named is None:
        return step
    source = tokenizer_file(Path(str(named)))
    if source is None:
        raise BadInput(f"there is no tokenizer.json at {named}, which the bundle needs; put it there and run again")
    write_bytes(folder / TOKENIZER, source.read_bytes())
    return replace(step, options=options(dict(step.options), tokenizer=TOKENIZER))


def _found(step: Step, folder: Path) -> Step:
    """Return the step with the path of its tokenizer, which must lie in the bundle, made absolute."""
    named = dict(step.options).get("tokenizer")
    if named is None:
        return step
    return replace(step, options=options(dict(step.options), tokenizer=str(inside(folder, str(named)))))


def _copy(source: Path, target: Path) -> Path:
    """Copy a model into the folder and return its path in there."""
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True)
        return Path()
    shutil.copy2(source, target / source.name)
    for beside in _companions(source):
        (target / beside.relative_to(source.parent)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(beside, target / beside.relative_to(source.parent))
    return Path(source.name)


def _companions(source: Path) -> list[Path]:
    """Return the files that a model file needs beside it: weights of OpenVINO, external data of ONNX."""
    if source.suffix == ".xml":
        return [source.with_suffix(".bin")]
    if source.suffix == ".onnx":
        from trimtab.formats.onnx import external_files

        return list(external_files(source))
    return []
