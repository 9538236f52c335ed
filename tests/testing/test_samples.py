from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from trimtab.core import plugins
from trimtab.testing import samples

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
    assert shown[0].startswith("['onnx'] 2 ")
    assert "trimtab[openvino]" in shown[0]
    assert "trimtab[torch]" in shown[0]


def test_importing_the_suites_imports_no_framework_and_no_pytest() -> None:
    code = (
        "import sys, trimtab.testing; from trimtab.testing.laws import FRAMEWORKS; "
        "print([name for name in (*FRAMEWORKS, 'onnx', 'pytest') if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
