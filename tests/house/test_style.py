"""The rules of the house that no linter knows."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "trimtab"
FILES = sorted(SOURCE.rglob("*.py"))
FRAMEWORKS = {
    "onnx", "onnxruntime", "openvino", "nncf", "torch", "transformers", "tokenizers", "safetensors", "onnxscript",
    "PIL", "mlflow", "tensorboard", "torch_pruning", "tensorly", "kornia", "ray",
}  # fmt: skip
MOST_LINES, MOST_PARAMETERS = 60, 8


@pytest.fixture(scope="module")
def trees():
    return {str(path.relative_to(SOURCE)): ast.parse(path.read_text("utf-8")) for path in FILES}


@pytest.fixture(scope="module")
def functions(trees):
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return [
        (f"{name}:{node.lineno} {node.name}", node)
        for name, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, kinds)
    ]


def test_no_function_is_longer_than_a_screen(functions):
    long = [name for name, node in functions if node.end_lineno - node.lineno >= MOST_LINES]
    assert long == []


def test_no_signature_has_more_parameters_than_a_person_can_hold(functions):
    wide = []
    for name, node in functions:
        given = node.args
        count = len([*given.posonlyargs, *given.args, *given.kwonlyargs])
        options_of_a_command = name.startswith("cli/")  # typer reads the options of a command from its parameters
        if count - (given.args[:1] != [] and given.args[0].arg in ("self", "cls")) > MOST_PARAMETERS:
            wide += [] if options_of_a_command else [name]
    assert wide == []


def test_frameworks_are_imported_where_they_are_used_and_nowhere_at_the_top(trees):
    found = []
    for name, tree in trees.items():
        for node in tree.body:
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            found += [f"{name}: {module}" for module in modules if module.partition(".")[0] in FRAMEWORKS]
    assert found == []


def test_every_exception_from_a_rule_has_its_reason_on_the_line():
    mark = re.compile(r"#\s*(?:noqa(?::\s*[A-Z]+\d+(?:,\s*[A-Z]+\d+)*)?|type:\s*ignore(?:\[[\w-]+(?:,\s*[\w-]+)*\])?)")
    bare = []
    for path in FILES:
        for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1):
            if (found := mark.search(line)) and len(re.findall(r"\w+", line[found.end() :])) < 2:
                bare.append(f"{path.relative_to(ROOT)}:{number}")
    assert bare == []


def test_the_extras_name_the_files_that_use_them():
    text = (ROOT / "pyproject.toml").read_text()
    block = text.partition("[project.optional-dependencies]\n")[2].partition("\n[")[0]
    named = re.findall(r"[\w/*]+\.py", block)
    assert len(named) >= 6
    assert [pattern for pattern in named if not list(SOURCE.glob(pattern))] == []


def test_every_entry_point_names_a_file_and_a_class_that_are_there(trees):
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    for group, points in groups.items():
        for name, value in points.items():
            module, _, kind = value.partition(":")
            file = module.removeprefix("trimtab.").replace(".", "/") + ".py"
            classes = {node.name: node for node in trees[file].body if isinstance(node, ast.ClassDef)}
            assert kind in classes, f"{group}: {name} names {value}"
            assert f'name = "{name}"' in ast.unparse(classes[kind]).replace("'", '"')
