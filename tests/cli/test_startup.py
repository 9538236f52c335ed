"""What the command line imports: nothing that a command does not need."""

import subprocess
import sys

import pytest

from trimtab.assets import digits

FRAMEWORKS = {"onnx", "onnxruntime", "openvino", "nncf", "torch", "transformers", "tokenizers"}
HEAVY = {"sklearn", "scipy", "matplotlib", "seaborn"}

PROBE = """
import sys
sys.argv = ["trimtab", *sys.argv[1:]]
from trimtab.cli import main
try:
    main()
except SystemExit:
    pass
print("\\n@", *{name.partition(".")[0] for name in sys.modules})
"""


def imported(*arguments: str) -> set[str]:
    done = subprocess.run([sys.executable, "-c", PROBE, *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.rpartition("\n@")[2].split())


@pytest.mark.parametrize("arguments", [("--help",), ("--version",), ("optimize", "--help")])
def test_help_imports_no_framework_and_nothing_heavy(arguments):
    assert not imported(*arguments) & (FRAMEWORKS | HEAVY)


def test_inspecting_an_onnx_model_imports_no_framework_but_onnx():
    found = imported("inspect", str(digits().model))
    assert found & FRAMEWORKS == {"onnx"}
    assert not found & {"sklearn", "matplotlib", "seaborn"}
