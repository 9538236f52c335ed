"""The laws of a format."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from trimtab.core.codec import dumps, loads
from trimtab.core.errors import MissingExtra, TrimtabError
from trimtab.core.protocols import Described, Format, Opening
from trimtab.core.values import Model, Workload
from trimtab.testing import laws
from trimtab.testing.samples import SOURCES, source


class FormatSuite:
    """What every format keeps. Subclass it, name the class `Test…`, set `plugin`, and define `source`."""

    plugin: ClassVar[type[Any]]

    def source(self, folder: Path, seed: int = 0) -> str:
        """Write a model to the folder and return what a person would type to open it.

        Another seed has to give other weights, and nothing but `folder` may be written to.
        """
        if self.plugin.name not in SOURCES:
            laws.skip(f"there is no sample of the format {self.plugin.name}: define source() in a suite of your own")
        return laws.unless_missing(lambda: source(self.plugin.name, folder, seed))

    def test_has_a_name_and_no_option_without_a_default(self) -> None:
        laws.check_kind(self.plugin, Format)

    def test_reads_nothing_that_an_opening_does_not_have(self) -> None:
        strange = set(getattr(self.plugin, "reads", ())) - {"weights", "states", "example"}
        assert not strange, f"it says that it reads {sorted(strange)} of an opening"

    def test_claims_its_own_and_nothing_else(self, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        (tmp_path / "notes.txt").write_text("no model")
        np.savez(tmp_path / "inputs.npz", inputs=np.zeros(3))
        others = [str(tmp_path / name) for name in ("empty", "notes.txt", "inputs.npz", "gone.txt")]
        for name in SOURCES:
            if name != self.plugin.name:
                others += _unless_missing(lambda name=name: [source(name, tmp_path / name)])  # type: ignore[misc] # binds the loop's name
        own = self.source(tmp_path / "own")
        assert self.plugin().claims(own), f"it does not claim {own}"
        claimed = [other for other in others if self.plugin().claims(other)]
        assert not claimed, f"it claims {claimed}"

    def test_claiming_imports_no_framework(self, tmp_path: Path) -> None:
        held = laws.elsewhere(self.plugin, ("claims", (self.source(tmp_path),)))
        assert not held, f"to say whether a model is its own, {held} were imported"

    def test_opening_changes_nothing_and_writes_only_where_it_may(self, tmp_path: Path) -> None:
        text = self.source(tmp_path / "given")
        before = laws.contents(tmp_path)
        self._open(text, tmp_path / "opened")
        after = laws.contents(tmp_path, without=tmp_path / "opened")
        assert after == before, (
            f"these files are new or changed: {sorted(map(str, dict(after.items() - before.items())))}"
        )

    def test_the_same_model_has_the_same_digest_wherever_it_lies(self, tmp_path: Path) -> None:
        text = self.source(tmp_path / "here")
        first, again = (self._open(text, tmp_path / name).digest for name in ("one", "two"))
        shutil.move(tmp_path / "here", tmp_path / "there")
        moved = self._open(text.replace(str(tmp_path / "here"), str(tmp_path / "there")), tmp_path / "three").digest
        assert first == again, "opening the same model twice gave two digests"
        assert first == moved, "the digest changed when the files were moved"

    def test_other_weights_have_another_digest(self, tmp_path: Path) -> None:
        models = [self._open(self.source(tmp_path / f"{seed}", seed), tmp_path / f"opened-{seed}") for seed in range(2)]
        assert models[0].digest != models[1].digest, "two models of different weights have one digest"
        assert models[0].signature == models[1].signature, "other weights changed the signature"

    def test_the_signature_names_every_input_and_output(self, tmp_path: Path) -> None:
        signature = self._open(self.source(tmp_path / "given"), tmp_path / "opened").signature
        for specs in (signature.inputs, signature.outputs):
            assert specs, "the model has no inputs or no outputs"
            assert all(spec.name for spec in specs), "an input or output has no name"
            assert len({spec.name for spec in specs}) == len(specs), "the same name twice"
            for spec in specs:
                np.dtype(spec.dtype)
                sizes = [size if isinstance(size, str) else size >= 0 for size in spec.shape]
                assert all(sizes), f"{spec.name} has shape {spec.shape}: a free dimension is its name or '?'"

    def test_a_model_written_down_can_be_loaded_again(self, tmp_path: Path) -> None:
        model = self._open(self.source(tmp_path / "given"), tmp_path / "opened")
        again = loads(Model, dumps(model))
        assert again == model, "the model is not made of plain values"
        assert model.format == self.plugin.name, f"the model says that its format is {model.format}"
        assert laws.unless_missing(lambda: self.plugin().load(again)) is not None

    def test_a_missing_file_is_one_clear_line(self, tmp_path: Path) -> None:
        text = self.source(tmp_path / "given")
        shutil.rmtree(tmp_path / "given")
        laws.check_refusal(lambda: self._open(text, tmp_path / "opened"), "a model that is not there")

    def test_a_damaged_file_is_one_clear_line(self, tmp_path: Path) -> None:
        damages: dict[str, Callable[[bytes], bytes]] = {
            "empty": lambda content: b"",
            "cut in half": lambda content: content[: len(content) // 2],
            "text": lambda content: b"<!doctype html><p>404: not found</p>",
        }
        for number, (what, damage) in enumerate(damages.items()):
            text = self.source(tmp_path / f"{number}")
            largest = max(_files(tmp_path / f"{number}"), key=lambda path: path.stat().st_size)
            largest.write_bytes(damage(largest.read_bytes()))
            laws.check_refusal(lambda text=text: self._open(text, tmp_path / "opened"), f"{largest.name}, {what},")  # type: ignore[misc] # binds the loop's name

    def test_no_pickle_in_place_of_a_file_ever_runs(self, tmp_path: Path) -> None:
        mark = tmp_path / "the pickle ran"
        self.source(tmp_path / "count")
        for number in range(len(_files(tmp_path / "count"))):
            text = self.source(tmp_path / f"{number}")
            _files(tmp_path / f"{number}")[number].write_bytes(pickle.dumps(_Evil(mark)))
            try:
                model = self._open(text, tmp_path / f"opened-{number}")
                self.plugin().load(model)
            except TrimtabError as error:
                laws.check_sentence(str(error))
            assert not mark.exists(), "a pickle was read, and ran"

    def test_what_it_tells_about_a_model_is_counted_and_doubles_with_the_items(self, tmp_path: Path) -> None:
        plugin = self.plugin()
        if not isinstance(plugin, Described):
            laws.skip(f"{plugin.name} does not describe its models")
        model = self._open(self.source(tmp_path / "given"), tmp_path / "opened")
        contents = laws.unless_missing(lambda: plugin.contents(model))
        assert contents == plugin.contents(model), "asked twice, it tells two things"
        assert all(path.is_file() for path in contents.files), f"some of {contents.files} are no files"
        assert sum(count for _, count in contents.parameters) > 0, "the model has no parameters"
        one, two = (laws.unless_missing(lambda n=n: plugin.work(model, _asked(model, n))) for n in (1, 2))  # type: ignore[misc] # binds the loop's number
        assert 0 < one.nonzero <= one.macs, f"{one.nonzero} of {one.macs} MACs are not zero"
        assert two.macs == 2 * one.macs, "twice the items are not twice the work"

    def _open(self, text: str, folder: Path) -> Model:
        return laws.unless_missing(lambda: _opened(self.plugin, text, folder))


def _opened(plugin: type[Any], text: str, folder: Path) -> Model:
    model: Model = plugin().open(text, Opening(folder=folder))
    return model


def _asked(model: Model, batch: int) -> Workload:
    """Return a workload that leaves no dimension free."""
    free = {
        size if size != "?" else f"{spec.name}:{axis}"
        for spec in model.signature.data_inputs
        for axis, size in enumerate(spec.shape)
        if isinstance(size, str) and axis > 0
    }
    return Workload(batch=batch, lengths=tuple(sorted((name, 8) for name in free)))


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _unless_missing(call: Callable[[], list[str]]) -> list[str]:
    try:
        return call()
    except MissingExtra:
        return []


class _Evil:
    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self._mark,)
