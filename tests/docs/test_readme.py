"""README.md and the tutorial are run as they are printed, on a small budget."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SMALL = ["--budget", "20s", "--trials", "3", "--only", "onnxruntime", "--only", "simplify"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One folder for both pages: what the first optimized, the second continues."""
    return tmp_path_factory.mktemp("reader")


def run(words, folder):
    here = Path(sys.executable).parent
    environment = {
        **os.environ,
        "PATH": f"{here}{os.pathsep}{os.environ['PATH']}",
        "TRIMTAB_HOME": str(folder / "home"),
    }
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=540)
    assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done.stdout


def follow(page, folder):
    """Do what a reader does: every command and every Python block, in their order."""
    for language, text in page.blocks:
        if language == "python":
            run([sys.executable, "-c", text], folder)
        for line in text.splitlines() if language == "console" else ():
            words = shlex.split(line.removeprefix("$ "))
            budgeted = words[:2] == ["trimtab", "optimize"] and "--dry-run" not in words
            run(words + SMALL * budgeted, folder)


@pytest.mark.slow
def test_the_readme_works_as_printed(readme, folder):
    follow(readme, folder)
    assert {"manifest.json", "run.py", "report.html"} <= {path.name for path in (folder / "fast").iterdir()}


@pytest.mark.slow
def test_the_tutorial_works_as_printed(tutorial, folder):
    follow(tutorial, folder)


def test_is_short(readme):
    assert len(readme.text.split()) <= 600


def test_shows_a_short_example_early(readme):
    before, _, rest = readme.text.partition("```console\n")
    example = rest.partition("```")[0].splitlines()
    assert len(example) <= 10
    assert len(before.splitlines()) + len(example) + 1 < 25


def test_draws_every_room_of_the_house(readme):
    (tree,) = readme.of("text")
    drawn = set(re.findall(r"(\w+)/", tree.partition("docs/")[0])) - {"src", "trimtab"}
    rooms = {path.parent.name for path in (ROOT / "src" / "trimtab").glob("*/__init__.py")} - {"assets"}
    assert drawn == rooms


def test_its_nouns_are_values(readme):
    from trimtab.core import values

    nouns = re.findall(r"^- \*\*(\w+)\*\*:", readme.text, re.MULTILINE)
    assert nouns
    assert all(hasattr(values, noun) for noun in nouns)
