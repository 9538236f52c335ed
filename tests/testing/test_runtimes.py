from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from trimtab.core.values import Machine, Settings, Variant, Workload
from trimtab.runtimes.onnxruntime import OnnxRuntime
from trimtab.testing import RuntimeSuite


class Wrapped(OnnxRuntime):
    """Keeps every law; what is broken below is one of its methods, or what it does with inputs and outputs."""

    name = "wrapped"

    def load(self, variant: Variant) -> Any:
        engine = super().load(variant)
        return lambda inputs: self.answer(engine, inputs)

    def answer(self, engine: Any, inputs: Any) -> Any:
        return engine(inputs)


class RefusesNothing(Wrapped):
    def refuses(self, variant: Variant) -> str | None:
        return None


class IgnoresTheDevice(Wrapped):
    def refuses(self, variant: Variant) -> str | None:
        return super().refuses(variant.on(replace(variant.settings, device="cpu")))


class IgnoresItsSettings(Wrapped):
    def refuses(self, variant: Variant) -> str | None:
        return super().refuses(variant.on(Settings(runtime=self.name, device=variant.settings.device)))


class OffersNothing(Wrapped):
    def settings(self, machine: Machine, workload: Workload) -> Sequence[Settings]:
        return [Settings(runtime=self.name)] if workload.concurrency == 1 else []


class OffersTwice(Wrapped):
    def settings(self, machine: Machine, workload: Workload) -> Sequence[Settings]:
        return [Settings(runtime=self.name)] * 2


class OffersAnothers(Wrapped):
    def settings(self, machine: Machine, workload: Workload) -> Sequence[Settings]:
        return [Settings(runtime="onnxruntime")]


class NamesItsOutputs(Wrapped):
    def answer(self, engine: Any, inputs: Any) -> Any:
        return {f"output_{number}": value for number, value in enumerate(engine(inputs).values())}


class WidensItsOutputs(Wrapped):
    def answer(self, engine: Any, inputs: Any) -> Any:
        return {name: value.astype(np.float64) for name, value in engine(inputs).items()}


class AnswersTheFirstItem(Wrapped):
    def answer(self, engine: Any, inputs: Any) -> Any:
        return engine({name: value[:1] for name, value in inputs.items()})


class MixesTheItems(Wrapped):
    def answer(self, engine: Any, inputs: Any) -> Any:
        return {name: value[::-1] for name, value in engine(inputs).items()}


class RoundsItsAnswers(Wrapped):
    def answer(self, engine: Any, inputs: Any) -> Any:
        return {name: np.round(value, 2) for name, value in engine(inputs).items()}


class ScalesItsInputs(Wrapped):
    def answer(self, engine: Any, inputs: Any) -> Any:
        given = {name: np.array(value) for name, value in inputs.items()}
        for value in inputs.values():
            value.flags.writeable = True
            value *= 2
        return engine(given)


class RemembersTheLastCall(Wrapped):
    last: Any = 0.0

    def answer(self, engine: Any, inputs: Any) -> Any:
        found = {name: value + 1e-3 * self.last for name, value in engine(inputs).items()}
        self.last = next(iter(found.values())).mean()
        return found


ANSWERS = "test_answers_what_the_network_computes"
LAWS = {
    RefusesNothing: ("test_refuses_a_foreign_format_in_words", "None is not a text"),
    IgnoresTheDevice: ("test_refuses_a_device_that_does_not_exist", "None is not a text"),
    IgnoresItsSettings: ("test_refuses_a_setting_that_it_does_not_have", "None is not a text"),
    OffersNothing: ("test_offers_different_settings_of_its_own_with_its_defaults_first", "no settings"),
    OffersTwice: ("test_offers_different_settings_of_its_own_with_its_defaults_first", "twice"),
    OffersAnothers: ("test_offers_different_settings_of_its_own_with_its_defaults_first", "another runtime"),
    NamesItsOutputs: (ANSWERS, "output_0"),
    WidensItsOutputs: (ANSWERS, "float64"),
    AnswersTheFirstItem: (ANSWERS, "not (3, 4)"),
    MixesTheItems: (ANSWERS, "is off by"),
    RoundsItsAnswers: (ANSWERS, "is off by"),
    ScalesItsInputs: ("test_leaves_its_inputs_alone_and_takes_those_that_nobody_may_write_to", "inputs were changed"),
    RemembersTheLastCall: ("test_equal_calls_have_equal_answers", "depends on the last"),
}


def onnx_only(self: Any) -> Any:
    return [sample for sample in RuntimeSuite.samples(self) if sample.variant.model.format == "onnx"]


@pytest.mark.parametrize(("plugin", "law", "words"), [(plugin, *law) for plugin, law in LAWS.items()])
def test_the_law_that_is_broken_says_so(plugin: type[Any], law: str, words: str, broken: Any) -> None:
    assert words in broken(RuntimeSuite, plugin, law, samples=onnx_only)


@pytest.mark.parametrize("law", sorted({law for law, _ in LAWS.values()}))
def test_an_honest_runtime_keeps_it(law: str, broken: Any) -> None:
    assert broken(RuntimeSuite, Wrapped, law) == ""


def test_importing_a_framework_to_refuse_is_noticed(broken: Any, module: Any) -> None:
    text = (
        "from trimtab.runtimes.onnxruntime import OnnxRuntime\nclass Heavy(OnnxRuntime):\n name = 'heavy'\n"
        " def refuses(self, variant):\n  import onnxruntime\n  return super().refuses(variant)\n"
    )
    law = "test_refusing_and_offering_settings_import_no_framework"
    assert "onnxruntime" in broken(RuntimeSuite, module(text).Heavy, law)


def test_a_framework_that_is_missing_without_a_word_is_noticed(broken: Any, module: Any) -> None:
    text = (
        "from trimtab.runtimes.onnxruntime import OnnxRuntime\nclass Bare(OnnxRuntime):\n name = 'bare'\n"
        " def load(self, variant):\n  import torch\n  return super().load(variant)\n"
    )
    pytest.importorskip("torch")
    law = "test_a_missing_framework_is_named_with_the_extra_that_brings_it"
    assert "torch" in broken(RuntimeSuite, module(text).Bare, law)
