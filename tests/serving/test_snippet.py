from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest

from trimtab.core.hints import openvino_hints
from trimtab.core.values import Model, Settings, Signature, TensorSpec, Variant
from trimtab.serving.snippet import snippet

EVIL = "x\": __import__('os').system('true'), \"y'\n\"\"\"\\"


def spec(name: str, shape: tuple[int | str, ...] = (), dtype: str = "float32", **more: str) -> TensorSpec:
    return TensorSpec(name=name, shape=shape, dtype=dtype, **more)  # type: ignore[arg-type] # a role, given by the tests


def variant(settings: Settings, *inputs: TensorSpec, path: str = "model/net.onnx", output: str = "scores") -> Variant:
    signature = Signature(inputs=inputs or (spec("x"),), outputs=(spec(output),))
    return Variant(model=Model(format="onnx", path=Path(path), digest="d", signature=signature), settings=settings)


def example(code: str) -> dict[str, np.ndarray]:
    """Return the inputs that the code would run on, without running anything else of it."""
    tail = next(node for node in ast.parse(code).body if isinstance(node, ast.If))
    given = tail.body[0].value.args[0]
    return eval(compile(ast.Expression(given), "run.py", "eval"), {"np": np})  # noqa: S307 # what is tested


SETTINGS = [
    Settings(runtime="onnxruntime"),
    Settings(runtime="openvino"),
    Settings(runtime="openvino", static_shapes=True),
    Settings(runtime="torch"),
]


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: settings.label())
def test_the_example_feeds_every_input_but_constants(settings):
    inputs = (
        spec("ids", ("batch", "sequence"), "int64"),
        spec("h", (1, 4), role="state", fed_by="h_out"),
        spec("scale"),
        spec("k", (2,), role="constant"),
    )
    given = example(snippet(variant(settings, *inputs)))
    assert {name: (array.shape, array.dtype.name) for name, array in given.items()} == {
        "ids": ((1, 1), "int64"), "h": ((1, 4), "float32"), "scale": ((), "float32"),
    }  # fmt: skip


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: settings.label())
def test_names_of_strangers_stay_names(settings):
    """A model file is untrusted, and this code is run: no name in it may become code."""
    code = snippet(variant(settings, spec(EVIL, (1,)), path=f"model/{EVIL}", output=EVIL))
    used = {node.id for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name)}
    assert "__import__" not in used
    assert list(example(code)) == [EVIL]
    paths = {node.value for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Constant)}
    assert settings.runtime == "torch" or f"model/{EVIL}" in paths


def test_openvino_is_told_what_the_runtime_tells_it():
    settings = Settings(runtime="openvino", precision="fp32", threads=2, streams=1)
    tree = ast.parse(snippet(variant(settings)))
    hints = next(node.value for node in tree.body if isinstance(node, ast.Assign) and node.targets[0].id == "hints")
    assert ast.literal_eval(hints) == openvino_hints(settings)


@pytest.mark.parametrize(
    ("settings", "lines"),
    [
        (Settings(runtime="onnxruntime"), []),
        (Settings(runtime="onnxruntime", threads=3), ["options.intra_op_num_threads = 3"]),
        (
            Settings(runtime="onnxruntime", spinning=True, fusion=False),
            [
                'options.add_session_config_entry("session.intra_op.allow_spinning", "1")',
                "options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL",
            ],
        ),
    ],
    ids=["defaults", "threads", "spinning without fusion"],
)
def test_onnxruntime_gets_only_the_options_that_were_chosen(settings, lines):
    code = snippet(variant(settings)).splitlines()
    assert [line for line in code if line.startswith("options.")] == lines


@pytest.mark.parametrize(
    ("runtime", "command"), [("torch-compile", "pip install 'trimtab[torch]'"), ("abacus", "pip install trimtab")]
)
def test_engines_without_code_of_their_own_are_run_by_trimtab(runtime, command):
    code = snippet(variant(Settings(runtime=runtime)))
    told = ast.get_docstring(ast.parse(code))
    assert told == f"Runs this model with trimtab and its engine ({runtime}) installed: {command}."
    assert "trimtab.load(Path(__file__).parent, trust_pickle=True)" in code
