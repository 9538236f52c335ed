from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from trimtab.core.protocols import Opening
from trimtab.core.values import Contents, Model, Signature, TensorSpec, Work, Workload, content_digest
from trimtab.formats.onnx import OnnxFormat
from trimtab.testing import FormatSuite


class ClaimsAll(OnnxFormat):
    def claims(self, source: str) -> bool:
        return True


class ClaimsNothing(OnnxFormat):
    def claims(self, source: str) -> bool:
        return False


class WritesBeside(OnnxFormat):
    def open(self, source: str, opening: Opening) -> Model:
        Path(source).with_suffix(".cache").write_text("opened")
        return super().open(source, opening)


class DigestsThePath(OnnxFormat):
    def open(self, source: str, opening: Opening) -> Model:
        return replace(super().open(source, opening), digest=content_digest(source))


class DigestsTheFolder(OnnxFormat):
    def open(self, source: str, opening: Opening) -> Model:
        return replace(super().open(source, opening), digest=content_digest(str(opening.folder)))


class DigestsTheShapes(OnnxFormat):
    def open(self, source: str, opening: Opening) -> Model:
        model = super().open(source, opening)
        return replace(model, digest=content_digest(repr(model.signature)))


class NamesNothing(OnnxFormat):
    def open(self, source: str, opening: Opening) -> Model:
        nameless = TensorSpec(name="", dtype="float32", shape=(1,))
        return replace(super().open(source, opening), signature=Signature(inputs=(nameless,), outputs=(nameless,)))


class CallsItAnother(OnnxFormat):
    def open(self, source: str, opening: Opening) -> Model:
        return replace(super().open(source, opening), format="another")


class OpensAnything(OnnxFormat):
    def open(self, source: str, opening: Opening) -> Model:
        spec = (TensorSpec(name="x", dtype="float32", shape=(1,)),)
        return Model(format="onnx", path=Path(source), digest="0", signature=Signature(inputs=spec, outputs=spec))


class Unpickles(OnnxFormat):
    def open(self, source: str, opening: Opening) -> Model:
        if Path(source).read_bytes()[:1] == b"\x80":
            pickle.loads(Path(source).read_bytes())  # noqa: S301 # that is broken
        return super().open(source, opening)


class CountsCallsNotItems(OnnxFormat):
    def work(self, model: Model, workload: Workload) -> Work:
        return super().work(model, replace(workload, batch=1))


class HasNoParameters(OnnxFormat):
    def contents(self, model: Model) -> Contents:
        return replace(super().contents(model), parameters=())


DIGEST = "test_the_same_model_has_the_same_digest_wherever_it_lies"
TOLD = "test_what_it_tells_about_a_model_is_counted_and_doubles_with_the_items"
LAWS = {
    ClaimsAll: ("test_claims_its_own_and_nothing_else", "notes.txt"),
    ClaimsNothing: ("test_claims_its_own_and_nothing_else", "does not claim"),
    WritesBeside: ("test_opening_changes_nothing_and_writes_only_where_it_may", "cache"),
    DigestsThePath: (DIGEST, "were moved"),
    DigestsTheFolder: (DIGEST, "gave two digests"),
    DigestsTheShapes: ("test_other_weights_have_another_digest", "one digest"),
    NamesNothing: ("test_the_signature_names_every_input_and_output", "no name"),
    CallsItAnother: ("test_a_model_written_down_can_be_loaded_again", "another"),
    OpensAnything: ("test_a_damaged_file_is_one_clear_line", "was not refused"),
    Unpickles: ("test_no_pickle_in_place_of_a_file_ever_runs", "and ran"),
    CountsCallsNotItems: (TOLD, "not twice the work"),
    HasNoParameters: (TOLD, "no parameters"),
}


@pytest.mark.parametrize(("plugin", "law", "words"), [(plugin, *law) for plugin, law in LAWS.items()])
def test_the_law_that_is_broken_says_so(plugin: type[Any], law: str, words: str, broken: Any) -> None:
    assert words in broken(FormatSuite, plugin, law)


def test_a_missing_file_without_words_is_noticed(broken: Any) -> None:
    assert "was not refused" in broken(FormatSuite, OpensAnything, "test_a_missing_file_is_one_clear_line")


def test_importing_a_framework_to_claim_is_noticed(broken: Any, module: Any) -> None:
    text = (
        "from trimtab.formats.onnx import OnnxFormat\nclass Heavy(OnnxFormat):\n"
        " def claims(self, source):\n  import onnxruntime\n  return True\n"
    )
    assert "onnxruntime" in broken(FormatSuite, module(text).Heavy, "test_claiming_imports_no_framework")
