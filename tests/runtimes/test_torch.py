"""PyTorch eager and compiled: the same answers, whatever the settings."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trimtab.core.errors import BadInput
from trimtab.core.values import Machine, Model, Settings, Signature, TensorSpec, Variant, Workload, options

torch = pytest.importorskip("torch")

from trimtab.formats.torch import save_module  # noqa: E402 (after the skip)
from trimtab.runtimes.torch import TorchRuntime  # noqa: E402
from trimtab.runtimes.torch_compile import TorchCompileRuntime  # noqa: E402
from trimtab.workbench.opening import as_given  # noqa: E402

nn = torch.nn
NHWC = options(channels_last=True)


@pytest.fixture(scope="module")
def network() -> Any:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(512, 4)
    ).eval()


@pytest.fixture(scope="module")
def model(network: Any, tmp_path_factory: pytest.TempPathFactory) -> Model:
    return save_module(network, torch.zeros(1, 3, 8, 8), tmp_path_factory.mktemp("model"))


def images(batch: int) -> dict[str, Any]:
    return {"input": np.random.default_rng(0).standard_normal((batch, 3, 8, 8), dtype=np.float32)}


def machine(*flags: str, cores: int = 2) -> Machine:
    return Machine(
        cpu="",
        flags=flags,
        cores=cores,
        memory_bytes=0,
        hypervisor=None,
        governor=None,
        system="",
        python="",
        versions=(),
    )


@pytest.mark.parametrize("kind", ["torch", "torch-export", "huggingface"])
def test_pytorch_models_run_eagerly_when_nobody_says_how(kind: str) -> None:
    model = Model(format=kind, path=Path("model"), digest="", signature=Signature(inputs=(), outputs=()))
    assert as_given(model).settings == Settings(runtime="torch")


@pytest.mark.parametrize(
    ("settings", "tolerance"),
    [
        (Settings(runtime="torch"), 1e-6),
        (Settings(runtime="torch", threads=1), 1e-6),
        (Settings(runtime="torch", extra=NHWC), 1e-5),
        (Settings(runtime="torch", precision="bf16"), 5e-2),
        (Settings(runtime="torch", precision="bf16", extra=NHWC), 5e-2),
    ],
    ids=lambda value: value.label() if isinstance(value, Settings) else "",
)
def test_answers_like_the_module(settings: Settings, tolerance: float, network: Any, model: Model) -> None:
    engine = TorchRuntime().load(Variant(model=model, settings=settings))
    for batch in (1, 3):
        feeds = images(batch)
        before = feeds["input"].copy()
        found = engine(feeds)
        with torch.inference_mode():
            expected = network(torch.from_numpy(feeds["input"])).numpy()
        assert found["output"].dtype == np.float32
        np.testing.assert_allclose(found["output"], expected, atol=tolerance)
        np.testing.assert_array_equal(feeds["input"], before)


def test_bf16_computes_in_bf16(model: Model) -> None:
    fp32, bf16 = (
        TorchRuntime().load(Variant(model=model, settings=Settings(runtime="torch", precision=precision)))(images(2))
        for precision in (None, "bf16")
    )
    assert not np.array_equal(fp32["output"], bf16["output"])


def test_one_answer_does_not_change_when_the_next_is_computed(model: Model) -> None:
    engine = TorchRuntime().load(Variant(model=model, settings=Settings(runtime="torch")))
    first = engine(images(2))["output"]
    kept = first.copy()
    engine({"input": images(2)["input"] * 5})
    np.testing.assert_array_equal(first, kept)


def test_read_only_inputs_are_taken_without_a_warning(model: Model, recwarn: pytest.WarningsRecorder) -> None:
    feeds = images(1)
    feeds["input"].flags.writeable = False
    TorchRuntime().load(Variant(model=model, settings=Settings(runtime="torch")))(feeds)
    assert not [warning for warning in recwarn if "writ" in str(warning.message)]


def test_inputs_that_do_not_fit_are_one_clear_line(model: Model) -> None:
    engine = TorchRuntime().load(Variant(model=model, settings=Settings(runtime="torch")))
    with pytest.raises(BadInput, match="can't run this model on these inputs") as caught:
        engine({"input": np.zeros((1, 3, 9, 9), np.float32)})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("runtime", [TorchRuntime(), TorchCompileRuntime()])
def test_refuses_in_words(runtime: Any, model: Model) -> None:
    def reason(settings: Settings, given: Model = model) -> str:
        return runtime.refuses(Variant(model=given, settings=settings)) or ""

    flat = (TensorSpec(name="x", dtype="float32", shape=("batch", 4)),)
    vectors = Model(format="torch", path=Path(), digest="", signature=Signature(inputs=flat, outputs=flat))
    onnx = Model(format="onnx", path=Path(), digest="", signature=model.signature)
    assert reason(Settings(runtime=runtime.name)) == ""
    assert "this one is onnx" in reason(Settings(runtime=runtime.name), onnx)
    assert "'cuda'" in reason(Settings(runtime=runtime.name, device="cuda"))
    assert "'int4'" in reason(Settings(runtime=runtime.name, precision="int4"))
    assert "four axes" in reason(Settings(runtime=runtime.name, extra=NHWC), vectors)
    assert "no setting turbo" in reason(Settings(runtime=runtime.name, extra=options(turbo=True)))


def test_settings_begin_with_the_defaults_and_follow_the_machine() -> None:
    plain = TorchRuntime().settings(machine(cores=1), Workload())
    able = TorchRuntime().settings(machine("avx512_bf16"), Workload())
    assert plain[0] == able[0] == Settings(runtime="torch")
    assert {setting.precision for setting in plain} == {None}
    assert {setting.precision for setting in able} == {None, "bf16"}
    assert Settings(runtime="torch", threads=1) in able


def test_refusing_imports_no_framework() -> None:
    script = (
        "import sys, trimtab.runtimes.torch, trimtab.runtimes.torch_compile; from pathlib import Path\n"
        "from trimtab.core.values import *\n"
        "model = Model(format='torch', path=Path(), digest='', signature=Signature(inputs=(), outputs=()))\n"
        "trimtab.runtimes.torch.TorchRuntime().refuses(Variant(model=model, settings=Settings(runtime='torch')))\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
