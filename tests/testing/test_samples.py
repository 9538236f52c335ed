from __future__ import annotations

import importlib
import subprocess
import sys
from unittest import SkipTest

import numpy as np
import pytest

from trimtab.core import plugins
from trimtab.data.batches import feeds, labels
from trimtab.testing import PERCEPTRON, TOKENS, samples, source, task
from trimtab.testing.samples import accepted

module = importlib.import_module("trimtab.testing.samples")  # its name is that of a function, too

WITHOUT_EXTRAS = """
import sys
from trimtab.testing import laws, samples
sys.meta_path.insert(0, laws.Missing(laws.OPTIONAL))
for _ in range(2):
    found, missing = samples()
    print(sorted({sample.variant.model.format for sample in found}), len(missing), *missing)
"""


@pytest.mark.parametrize("sample", samples()[0], ids=lambda s: f"{s.variant.model.format}-{s.network.name}")
def test_numpy_and_the_engine_of_the_format_give_the_same_answers(sample) -> None:
    variant, inputs = sample.variant, sample.network.inputs(3, 7)
    engine = plugins.make("runtimes", variant.settings.runtime).load(variant)
    np.testing.assert_allclose(engine(inputs)["scores"], sample.network.answer(inputs)["scores"], atol=1e-5)


def test_without_the_extras_there_are_samples_in_onnx_and_the_others_are_named() -> None:
    code = [sys.executable, "-c", WITHOUT_EXTRAS]
    shown = subprocess.run(code, capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(set(shown)) == 1  # asked twice, the same answer
    assert shown[0].startswith("['onnx'] 3 ")
    assert "trimtab[openvino]" in shown[0]
    assert "trimtab[torch]" in shown[0]


def test_importing_the_suites_imports_no_framework_and_no_pytest() -> None:
    code = (
        "import sys, trimtab.testing; from trimtab.testing.laws import FRAMEWORKS; "
        "print([name for name in (*FRAMEWORKS, 'onnx', 'pytest') if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


def test_a_copy_has_files_of_its_own(tmp_path) -> None:
    sample = samples()[0][0]
    copy = sample.copied(tmp_path / "mine")
    assert copy.variant.model.path.parent == tmp_path / "mine"
    assert copy.variant.key == sample.variant.key
    copy.variant.model.path.write_bytes(b"spoilt")
    assert sample.variant.model.path.read_bytes() != b"spoilt"


def test_each_sample_is_made_once_per_process() -> None:
    first, again = samples()[0], samples()[0]
    assert [sample.variant.model.path for sample in first] == [sample.variant.model.path for sample in again]


@pytest.mark.parametrize("network", [PERCEPTRON, TOKENS], ids=lambda network: network.name)
def test_the_network_is_right_on_every_item_of_its_task(network, tmp_path) -> None:
    made = task(network, tmp_path, items=9)
    assert made.labelled
    assert [split.name for split in made.splits] == ["calibrate", "select", "certify", "train"]
    for split in made.splits:
        held = feeds(made, split, slice(0, 9))
        right = network.answer(held)["scores"].argmax(axis=1)
        np.testing.assert_array_equal(labels(split), right)
        assert set(right) <= set(range(len(made.classes)))


def test_splits_of_a_task_hold_different_items(tmp_path) -> None:
    made = task(PERCEPTRON, tmp_path)
    held = [feeds(made, split, slice(0, len(split)))["x"] for split in made.splits]
    rows = np.concatenate(held)
    assert len(np.unique(rows, axis=0)) == len(rows)


def test_a_format_that_can_not_be_written_here_is_a_key_error(tmp_path) -> None:
    with pytest.raises(KeyError):
        source("no-such-format", tmp_path)


class TestAccepted:
    def test_what_is_left_is_returned(self) -> None:
        assert accepted("mine", ["a"], {"onnx": None, "torch": "not mine"}) == ["a"]

    def test_the_same_words_for_every_format_are_about_the_machine(self) -> None:
        with pytest.raises(SkipTest, match="there is no compiler"):
            accepted("mine", [], {"onnx": "there is no compiler", "torch": "there is no compiler"})

    def test_refusing_everything_is_an_error_that_says_what_to_override(self, monkeypatch) -> None:
        monkeypatch.setattr(module, "samples", lambda: ([], []))
        with pytest.raises(AssertionError, match=r"mine refuses every sample, override samples\(\): .*only tflite"):
            accepted("mine", [], {"onnx": "only tflite"})

    def test_samples_that_are_missing_may_be_why(self, monkeypatch) -> None:
        monkeypatch.setattr(module, "samples", lambda: ([], ["pip install it"]))
        with pytest.raises(SkipTest, match="pip install it"):
            accepted("mine", [], {"onnx": "only tflite"})
