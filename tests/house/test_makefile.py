"""The two set-up commands: what they would run, without running it."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not on this machine")


def make(*arguments):
    return subprocess.run(
        ["make", "--no-print-directory", "-C", str(ROOT), *arguments], capture_output=True, text=True, timeout=60
    )


def test_lists_its_targets_by_default():
    shown = make().stdout
    assert all(f"make {target}" in shown for target in ("demo", "test", "check", "bench", "docs"))


def test_demo_installs_without_pytorch(tmp_path):
    planned = make("-n", "demo", f"DEMO={tmp_path}/new").stdout
    assert "'.[openvino]'" in planned
    assert planned.rstrip().endswith("trimtab demo")


def test_every_benchmark_that_publishes_is_run_by_bench(tmp_path):
    (tmp_path / ".installed").touch()
    planned = make("-n", "bench", f"VENV={tmp_path}").stdout
    scripts = [path for path in sorted((ROOT / "benchmarks").glob("*.py")) if "pages.publish(" in path.read_text()]
    assert scripts
    assert [path.name for path in scripts if f"benchmarks/{path.name}" not in planned] == []


def test_nothing_is_installed_twice(tmp_path):
    (tmp_path / ".installed").touch()
    assert "pip install" not in make("-n", "test", f"VENV={tmp_path}").stdout


def test_an_old_python_is_refused_in_one_line(tmp_path):
    old = tmp_path / "python3"
    old.write_text('#!/bin/sh\nshift\nexec python3 -c "import sys; sys.version_info = (3, 10); $1"\n')
    old.chmod(0o755)
    done = make("test", f"PYTHON={old}", f"VENV={tmp_path}/new")
    assert done.returncode != 0
    assert re.search(r"trimtab needs Python 3\.11 or newer", done.stderr)


def test_every_pin_is_exact():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert all(re.fullmatch(r"[a-z0-9-]+==[\w.]+", line) for line in lines if line and not line.startswith("#"))
    assert "torch==2.13.0" in lines


def test_continuous_integration_runs_what_people_run():
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    assert [line for line in lines if line.startswith("make")] == ["make check", "make test"]
