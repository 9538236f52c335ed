"""What the pages say exists: options, commands, links, code; and the site opens without a network."""

import dataclasses
import importlib.util
import inspect
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import typer.main

from trimtab.cli.app import app
from trimtab.core import plugins, protocols, values
from trimtab.data.preprocess import read_toml
from trimtab.stats.noninferiority import fewest_items
from trimtab.training.recipe import Recipe

ROOT = Path(__file__).parents[2]
COMMANDS = typer.main.get_command(app).commands
OTHERS = {"--version", "--help"}
FOREIGN = {
    "--no-deps", "--target", "--editable", "--logdir", "--backend-store-uri", "--nnodes", "--nproc-per-node",
    "--rdzv-backend", "--rdzv-endpoint", "--no-python", "--head", "--address",
}  # fmt: skip
"""Options of pip, TensorBoard, MLflow, torchrun and Ray, which pages name."""


@pytest.fixture(scope="module")
def generate():
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def options(command):
    return {option for parameter in COMMANDS[command].params for option in parameter.opts if option[0] == "-"} | OTHERS


def test_every_option_that_a_page_names_exists(pages):
    known = set().union(*map(options, COMMANDS)) | FOREIGN
    lines = [(page.path.name, line) for page in pages for line in page.text.splitlines()]
    ours = [
        (name, line) for name, line in lines if "benchmarks/" not in line or "trimtab " in line
    ]  # not the peers' own
    named = {(name, option) for name, line in ours for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*", line)}
    assert {(name, option) for name, option in named if option not in known} == set()


def test_every_command_line_is_one_that_the_command_takes(pages):
    lines = [line for page in pages for line in page.commands() if line.startswith("trimtab ")]
    assert len(lines) > 20
    for line in lines:
        words = shlex.split(line)
        given = {word.partition("=")[0] for word in words if re.fullmatch(r"--[a-z][a-z-]*(=.*)?", word)}
        assert given <= options(words[1]), line


def test_python_compiles(pages):
    blocks = [(page.path.name, text) for page in pages for text in page.of("python")]
    assert blocks
    for name, text in blocks:
        compile(text, name, "exec")


def test_toml_is_read_as_steps_or_as_a_project(pages, tmp_path):
    for page in pages:
        for number, text in enumerate(page.of("toml")):
            if "[[step]]" not in text:
                assert set(tomllib.loads(text)) == {"project"}
                continue
            path = tmp_path / f"{number}.toml"
            path.write_text(text)
            assert len(read_toml(path)) == text.count("[[step]]")


def test_the_numbers_of_items_are_those_of_the_test(pages):
    page = next(page.text for page in pages if page.path.name == "proving.md")
    assert f"below {fewest_items(0.01)}, of half a point below {fewest_items(0.005)}" in page


def test_every_command_has_its_section_with_all_options(generate):
    page = generate.commands()
    for name in COMMANDS:
        section = page.partition(f"## trimtab {name}\n")[2].partition("\n## ")[0]
        assert all(f"`{option}`" in section for option in options(name) - OTHERS), name


def test_every_plugin_has_its_section(generate):
    page = generate.plugin_pages()
    assert all(f"\n### {name}\n" in page for group in plugins.GROUPS for name in plugins.names(group))
    assert "| `calibration` | `str` | `'minmax'` | `minmax`, `entropy`, `percentile` |" in page


def test_every_option_of_training_has_its_row_with_its_meaning(generate):
    page = generate.training()
    assert all(f"\n| `{field.name}` | " in page for field in dataclasses.fields(Recipe))
    assert "| `epochs` | passes over the train split, or over a share of it. | `int` | `10` |" in page
    assert "| `adam` | `0.001` |" in page


def test_every_reading_has_unit_and_direction(generate):
    page = generate.readings_page()
    assert "| `latency_p50` | median time of one warm call | `s` | lower |" in page
    assert "| `throughput` |" in page
    assert "| `1/s` | higher |" in page


def test_a_reading_without_a_meaning_is_an_error(generate, monkeypatch):
    monkeypatch.delitem(generate.MEANING, "macs")
    with pytest.raises(SystemExit, match="macs"):
        generate.readings_page()


def test_exit_codes_are_those_of_the_errors(generate):
    page = generate.exit_codes()
    assert re.search(r"\| `1` \|.*`CertificateBroken`", page)
    assert re.search(r"\| `2` \|.*`BadInput`", page)
    assert re.search(r"\| `3` \|.*`GoalUnmet`", page)


def test_results_stand_between_the_marks_and_are_replaced(generate, tmp_path):
    page = "# Page\n\n<!-- results -->\nold\n<!-- end -->\ntail\n"
    assert "Not run yet." in generate.with_results(page, tmp_path)
    (tmp_path / "digits.md").write_text("# Digits\n\n## Times\n\n| a\\1 |\n")
    once = generate.with_results(page, tmp_path)
    assert "### Digits\n\n#### Times\n\n| a\\1 |" in once
    assert "old" not in once
    assert once.endswith("tail\n")
    assert generate.with_results(once, tmp_path) == once


@pytest.mark.slow
def test_the_site_is_built_without_a_warning_and_loads_nothing_from_elsewhere(generate, tmp_path):
    pytest.importorskip("mkdocs")
    docs = tmp_path / "docs"
    for path in (ROOT / "docs").rglob("*.md"):
        target = docs / path.relative_to(ROOT / "docs")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    (tmp_path / "mkdocs.yml").write_bytes((ROOT / "mkdocs.yml").read_bytes())
    generate.main(docs)
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    html = "".join(path.read_text("utf-8") for path in (tmp_path / "site").rglob("*.html"))
    assert re.findall(r"<(?:script|img|link|iframe)[^>]+(?:src|href)=\"(?:https?:)?//[^\"]+", html) == []


def test_what_the_design_has_no_use_for_yet_is_named_as_it_is():
    section = (ROOT / "docs" / "design.md").read_text("utf-8").partition("## What the plan had")[2]
    fields = set(re.findall(r"`([A-Z]\w+)\.(\w+)`", section))
    assert {("Variant", "absorbed"), ("Settings", "replicas"), ("Workload", "concurrency")} <= fields
    assert [(kind, name) for kind, name in fields if name not in getattr(values, kind).__dataclass_fields__] == []
    offered = {name for name, kind in vars(protocols).items() if inspect.isclass(kind)}
    assert {name for name in ("Profiled", "Concurrent", "Refs", "Executor", "PowerSource") if name in offered} == set()
    assert not hasattr(protocols.Format, "save")
