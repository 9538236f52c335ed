"""An engine, a meter and a technique of other distributions are found, keep the laws, and change real readings."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from trimtab.core import plugins
from trimtab.testing import PERCEPTRON, MeterSuite, RuntimeSuite, TechniqueSuite

PLUGINS = Path(__file__).parents[1] / "plugins"
FILES = sorted(PLUGINS.glob("*/*.py"))
FOREIGN = [
    ("runtimes", "onnx-reference", "OnnxReference", RuntimeSuite),
    ("meters", "sparsity", "Sparsity", MeterSuite),
    ("techniques", "zero-weights", "ZeroWeights", TechniqueSuite),
]
DENSE = 16 * 32 + 32 * 4

Run = Callable[..., str]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Install the three distributions as pip does, into a folder, and return a function that runs Python beside it."""
    folder = tmp_path_factory.mktemp("foreign")
    sources = shutil.copytree(PLUGINS, folder / "sources")  # building leaves files behind
    environment = {**os.environ, "PYTHONPATH": str(folder / "installed"), "OMP_NUM_THREADS": "1"}

    def python(*arguments: str) -> str:
        done = subprocess.run([sys.executable, *arguments], env=environment, cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, f"{arguments}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    pip = ("-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-index", "--no-deps")
    places = [str(path) for path in sorted(sources.iterdir())]
    python(*pip, "--no-build-isolation", "--target", str(folder / "installed"), *places)
    return python


@pytest.fixture(scope="module")
def trimtab(run: Run) -> Run:
    """Return a function that runs the command line."""
    return lambda *words: run("-c", "from trimtab.cli import main; main()", *words)


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A perceptron of 640 weights, and items that it answers without a mistake."""
    folder = tmp_path_factory.mktemp("given")
    model, data = folder / "perceptron.onnx", folder / "items.npz"
    model.write_bytes(PERCEPTRON.graph(0).SerializeToString())
    inputs = PERCEPTRON.inputs(400, 0)
    np.savez(data, inputs=inputs["x"], labels=np.argmax(PERCEPTRON.answer(inputs)["scores"], axis=1))
    return str(model), str(data)


def values(text: str) -> dict[str, Any]:
    """Return the readings without a place by their names."""
    return {reading["name"]: reading["value"] for reading in json.loads(text)["readings"] if reading["place"] is None}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_each_is_one_file_of_at_most_forty_lines(path: Path) -> None:
    assert list(path.parent.glob("*.py")) == [path]
    assert len(path.read_text().splitlines()) <= 40


def test_there_is_one_of_each_kind() -> None:
    assert len(FILES) == len(FOREIGN) == 3


def test_the_technique_is_the_one_that_the_guide_prints() -> None:
    guide = (PLUGINS.parents[1] / "CONTRIBUTING.md").read_text()
    printed = re.search(r"```python\n(.*?)```", guide, re.DOTALL)
    assert printed is not None
    assert (PLUGINS / "zero_weights" / "trimtab_zero_weights.py").read_text() == printed[1]


@pytest.mark.parametrize(("group", "name"), [entry[:2] for entry in FOREIGN])
def test_is_found_once_installed_with_no_edit(group: str, name: str, run: Run) -> None:
    found = run("-c", f"from trimtab.core import plugins; print(*plugins.names({group!r}))").split()
    assert name not in plugins.names(group)
    assert sorted(found) == sorted([*plugins.names(group), name])


def test_all_keep_every_law_of_their_seam(run: Run, tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    tests = [f"{Path(__file__).parent / f'test_{group}.py'}::Test{title}" for group, _, title, _ in FOREIGN]
    run("-m", "pytest", "-q", f"--junitxml={report}", f"--rootdir={PLUGINS.parents[1]}", *tests)
    cases = list(ElementTree.parse(report).getroot().iter("testcase"))
    laws = [law for *_, suite in FOREIGN for law in dir(suite) if law.startswith("test_")]
    assert sorted(case.get("name", "") for case in cases) == sorted(laws)
    assert not [case.get("name") for case in cases if len(case)], "a law was skipped"


def test_the_meter_reads_what_a_person_measures(trimtab: Run, given: tuple[str, str]) -> None:
    assert values(trimtab("measure", given[0], "--meter", "sparsity", "--json")) == {"sparsity": 0.0}


def test_the_technique_changes_the_readings_by_what_was_counted_by_hand(
    trimtab: Run, given: tuple[str, str], tmp_path: Path
) -> None:
    trimtab("apply", "zero-weights", given[0], "--data", given[1], "-o", "share=0.5", "--output", str(tmp_path / "out"))
    meters = ("--meter", "sparsity", "--meter", "compute", "--json")
    before, after = (values(trimtab("measure", model, *meters)) for model in (given[0], str(tmp_path / "out")))
    assert (before["macs"], before["macs_nonzero"]) == (DENSE, DENSE)
    assert (after["macs"], after["macs_nonzero"]) == (DENSE, DENSE / 2)
    assert after["sparsity"] == pytest.approx(DENSE / 2 / (DENSE + 32 + 4))  # the biases stay


def test_the_engine_runs_the_model_and_is_timed(trimtab: Run, given: tuple[str, str]) -> None:
    asked = ("--data", given[1], "--meter", "quality", "--meter", "latency", "--json")
    text = trimtab("measure", given[0], "--runtime", "onnx-reference", *asked)
    found = values(text)
    assert json.loads(text)["variant"]["settings"]["runtime"] == "onnx-reference"
    assert found["accuracy"] == 1.0
    assert found["latency_p50"] > 0


def test_a_search_plans_with_the_engine_and_the_technique(trimtab: Run, given: tuple[str, str], tmp_path: Path) -> None:
    output = ("--output", str(tmp_path / "fast"))
    plan = trimtab("optimize", given[0], "--data", given[1], "--max-drop", "5pt", "--dry-run", *output)
    assert re.search(r"^.*untouched.*\bonnx-reference\b", plan, re.MULTILINE)
    assert re.search(r"^technique.*\bzero-weights\b.*\bshare\b", plan, re.MULTILINE)
