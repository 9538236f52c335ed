from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import numpy_helper

from trimtab.core.protocols import Context
from trimtab.core.values import Step, Task, Variant, options
from trimtab.formats.onnx import OnnxFormat, save
from trimtab.testing import TechniqueSuite


class Scale:
    """Keeps every law: multiplies the weights."""

    name = "scale"

    def __init__(self, factor: float = 0.5) -> None:
        self.factor = factor

    def refuses(self, variant: Variant, task: Task) -> str | None:
        return None if variant.model.format == "onnx" else f"scale works on onnx models, not {variant.model.format}"

    def apply(self, variant: Variant, context: Context) -> Variant:
        proto = OnnxFormat().load(variant.model)
        self.change(proto)
        model = save(proto, context.folder / "model.onnx")
        return variant.after(model, Step(technique=self.name, options=options(factor=self.factor), seed=context.seed))

    def change(self, proto: Any) -> None:
        for tensor in proto.graph.initializer:
            weight = numpy_helper.to_array(tensor)
            if weight.dtype.kind == "f":
                tensor.CopyFrom(numpy_helper.from_array(weight * np.float32(self.factor), tensor.name))


class NeedsAnOption(Scale):
    def __init__(self, factor: float) -> None:
        super().__init__(factor)


class RefusesNothing(Scale):
    def refuses(self, variant: Variant, task: Task) -> str | None:
        return None if variant.model.format != "openvino" else "it works on onnx models, not openvino"


class MakesNaN(Scale):
    def change(self, proto: Any) -> None:
        self.factor = float("nan")
        super().change(proto)


class RenamesItsOutput(Scale):
    def change(self, proto: Any) -> None:
        proto.graph.node[-1].output[0] = proto.graph.output[0].name = "renamed"


class WritesIntoTheGiven(Scale):
    def apply(self, variant: Variant, context: Context) -> Variant:
        variant.model.path.write_bytes(variant.model.path.read_bytes() + b"\x3a\x00")
        return super().apply(variant, context)


class WritesHere(Scale):
    def apply(self, variant: Variant, context: Context) -> Variant:
        Path("log.txt").write_text(str(Path.cwd()))
        return super().apply(variant, context)


class WritesBeside(Scale):
    def apply(self, variant: Variant, context: Context) -> Variant:
        return super().apply(variant, replace(context, folder=variant.model.path.parent))


class ForgetsItsStep(Scale):
    def apply(self, variant: Variant, context: Context) -> Variant:
        return replace(super().apply(variant, context), steps=variant.steps)


class ForgetsTheStepsBefore(Scale):
    def apply(self, variant: Variant, context: Context) -> Variant:
        made = super().apply(variant, context)
        return replace(made, steps=made.steps[-1:])


class ForgetsItsOptions(Scale):
    def apply(self, variant: Variant, context: Context) -> Variant:
        made = super().apply(variant, context)
        return replace(made, steps=(*variant.steps, replace(made.steps[-1], options=())))


class ForgetsTheSeed(Scale):
    def change(self, proto: Any) -> None:
        self.factor, given = self.factor + np.random.default_rng().uniform(), self.factor
        super().change(proto)
        self.factor = given


LAWS = {
    NeedsAnOption: ("test_has_a_name_and_no_option_without_a_default", "has no default"),
    RefusesNothing: ("test_refuses_a_foreign_format_in_words", "None is not a text"),
    MakesNaN: ("test_returns_a_variant_that_runs_or_refuses_in_words", "NaN"),
    RenamesItsOutput: ("test_inputs_and_outputs_keep_their_names_and_types", "renamed"),
    WritesIntoTheGiven: ("test_leaves_the_given_variant_alone", "were changed"),
    WritesHere: ("test_writes_only_in_its_folder", "outside of its folder"),
    WritesBeside: ("test_writes_only_in_its_folder", "outside of its folder"),
    ForgetsItsStep: ("test_records_its_step_last", "the steps are now"),
    ForgetsTheStepsBefore: ("test_records_its_step_last", "the steps are now"),
    ForgetsItsOptions: ("test_the_step_is_enough_to_do_it_again", "another model"),
    ForgetsTheSeed: ("test_the_step_is_enough_to_do_it_again", "another model"),
}


@pytest.mark.parametrize(("plugin", "law", "words"), [(plugin, *law) for plugin, law in LAWS.items()])
def test_the_law_that_is_broken_says_so(plugin: type[Any], law: str, words: str, broken: Any) -> None:
    samples = TechniqueSuite.samples
    onnx = {"samples": lambda self: [s for s in samples(self) if s.variant.model.format == "onnx"]}
    given = {"options": options(factor=0.25), **onnx}
    assert words in broken(TechniqueSuite, plugin, law, **given)


@pytest.mark.parametrize("law", sorted({law for law, _ in LAWS.values()}))
def test_an_honest_technique_keeps_it(law: str, broken: Any) -> None:
    assert broken(TechniqueSuite, Scale, law, options=options(factor=0.25)) == ""


def test_importing_a_framework_to_refuse_is_noticed(broken: Any, module: Any) -> None:
    text = "class Heavy:\n name = 'heavy'\n def refuses(self, variant, task):\n  import onnxruntime\n  return 'never'\n"
    assert "onnxruntime" in broken(TechniqueSuite, module(text).Heavy, "test_refusing_imports_no_framework")
