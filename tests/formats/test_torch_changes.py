"""Modules that were changed after their factory built them: kept, loaded, looked into, run, exported and bundled."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trimtab.core import plugins
from trimtab.core.errors import BadInput, Refused
from trimtab.core.machine import machine
from trimtab.core.protocols import Context, Opening
from trimtab.core.values import Model, Settings, Task, Variant, Workload

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from trimtab.formats.torch import TorchFormat, save_changed, save_module  # noqa: E402 (after the skip)

nn = torch.nn

CNN = """
from torch import nn, relu, zeros

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.1)
        self.head = nn.Linear(144, 10)

    def forward(self, image):
        return self.head(self.drop(relu(self.norm(self.conv(image))).flatten(1)))

live = Net()
example_inputs = zeros(1, 1, 8, 8)
"""

TIED = """
from torch import nn, zeros, int64

class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(20, 8)
        self.out = nn.Linear(8, 20, bias=False)
        self.out.weight = self.embed.weight

    def forward(self, tokens):
        return self.out(self.embed(tokens))

example_inputs = zeros(1, 5, dtype=int64)
"""

Opened = Callable[..., Model]


@pytest.fixture
def opened(tmp_path: Path) -> Opened:
    """Open the class of a file of that code."""
    torch.set_num_threads(1)

    def open_code(code: str = CNN, name: str = "Net") -> Model:
        (tmp_path / "net.py").write_text(code)
        return TorchFormat().open(f"{tmp_path / 'net.py'}:{name}", Opening(folder=tmp_path / "run"))

    return open_code


def parameter(tensor: Any) -> Any:
    return nn.Parameter(tensor.detach().clone())


def pruned(model: Model) -> Any:
    """Return the module of CNN without the second of its four channels, its statistics as after some training."""
    net, kept = TorchFormat().load(model), torch.tensor([0, 2, 3])
    net.conv.weight, net.conv.bias, net.conv.out_channels = parameter(net.conv.weight[kept]), nn.Parameter(ramp(3)), 3
    net.norm.weight, net.norm.bias, net.norm.num_features = nn.Parameter(ramp(3)), nn.Parameter(-ramp(3)), 3
    net.norm.running_mean, net.norm.running_var = ramp(3) / 9, 1 + ramp(3)
    net.head.weight, net.head.in_features = parameter(net.head.weight.view(10, 4, 36)[:, kept].flatten(1)), 108
    return net


def ramp(size: int) -> Any:
    return torch.arange(size) / size


def images(items: int) -> Any:
    return torch.rand(items, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def test_a_pruned_module_answers_the_same_bit_for_bit_after_loading(opened: Opened, tmp_path: Path) -> None:
    model = opened()
    net = pruned(model)
    made = save_changed(model, net, tmp_path / "made")
    again = TorchFormat().load(made)
    assert torch.equal(again(images(3)), net(images(3)))
    assert not any(part.training for part in again.modules())
    assert made.signature == model.signature
    assert made.path.parent == tmp_path / "made"
    assert TorchFormat().open(str(made.path), Opening(folder=tmp_path, trust_pickle=True)) == made


def test_another_process_loads_it(opened: Opened, tmp_path: Path) -> None:
    model = opened()
    net = pruned(model)
    made = save_changed(model, net, tmp_path / "made")
    script = (
        "from pathlib import Path; import torch\n"
        "from trimtab.core.values import *; from trimtab.formats.torch import *\n"
        f"m = Model(format='torch', path=Path({str(made.path)!r}), digest='', signature=None)\n"
        "print(TorchFormat().load(m)(torch.ones(1, 1, 8, 8)).tolist())"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert np.allclose(json.loads(done.stdout), net(torch.ones(1, 1, 8, 8)).detach().numpy(), rtol=1e-5)


def test_the_folder_holds_words_and_tensors_and_no_pickle(opened: Opened, tmp_path: Path) -> None:
    model = opened()
    made = save_changed(model, pruned(model), tmp_path / "made")
    assert sorted(file.name for file in made.path.iterdir()) == ["module.json", "weights.safetensors"]
    edits = json.loads((made.path / "module.json").read_text())["edits"]
    assert [(edit["path"], edit["layer"]["kind"]) for edit in edits] == [
        ("conv", "Conv2d"), ("norm", "BatchNorm2d"), ("head", "Linear"),
    ]  # fmt: skip
    assert edits[2]["layer"]["arguments"] == [["in_features", 108], ["out_features", 10]]


def test_the_module_the_model_and_the_random_numbers_are_left_alone(opened: Opened, tmp_path: Path) -> None:
    model = opened()
    net = pruned(model).train()
    net.norm.eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    files = {file.name: file.read_bytes() for file in model.path.iterdir()}
    torch.manual_seed(5)
    save_changed(model, net, tmp_path / "made")
    drawn = torch.rand(4)
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.rand(4))
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert [part.training for part in net.children()] == [True, False, True, True]
    assert {file.name: file.read_bytes() for file in model.path.iterdir()} == files


def test_the_digest_follows_the_edits(opened: Opened, tmp_path: Path) -> None:
    model = opened()
    net = pruned(model)
    first = save_changed(model, net, tmp_path / "made")
    assert save_changed(model, net, tmp_path / "again").digest == first.digest
    net.drop.p = 0.5
    other = save_changed(model, net, tmp_path / "made")
    assert other.digest != first.digest
    assert TorchFormat().load(other).drop.p == 0.5
    assert TorchFormat().load(first).drop.p == 0.1


def test_new_weights_in_the_old_structure_need_no_edit(opened: Opened, tmp_path: Path) -> None:
    model = opened()
    net = TorchFormat().load(model)
    nn.init.normal_(net.head.weight)
    made = save_changed(model, net, tmp_path / "made")
    assert json.loads((made.path / "module.json").read_text())["edits"] == []
    assert torch.equal(TorchFormat().load(made)(images(2)), net(images(2)))


def test_a_changed_module_may_be_changed_again(opened: Opened, tmp_path: Path) -> None:
    model = opened()
    once = save_changed(model, pruned(model), tmp_path / "once")
    net = TorchFormat().load(once)
    net.head = nn.Sequential(nn.Linear(108, 2, bias=False), nn.Linear(2, 10))
    twice = save_changed(once, net, tmp_path / "twice")
    assert torch.equal(TorchFormat().load(twice)(images(2)), net(images(2)))
    assert torch.equal(TorchFormat().load(once)(images(2)), pruned(model)(images(2)))


def test_what_was_tied_stays_tied(opened: Opened, tmp_path: Path) -> None:
    model = opened(TIED, "Tied")
    net = TorchFormat().load(model)
    net.embed = nn.Embedding(20, 5)
    net.out = nn.Linear(5, 20, bias=False)
    net.out.weight = net.embed.weight
    made = save_changed(model, net, tmp_path / "made")
    again = TorchFormat().load(made)
    assert again.out.weight is again.embed.weight
    assert TorchFormat().contents(made).parameters == (("float32", 100),)
    assert torch.equal(again(torch.arange(20)), net(torch.arange(20)))


def test_what_is_tied_no_more_has_weights_of_its_own(opened: Opened, tmp_path: Path) -> None:
    model = opened(TIED, "Tied")
    net = TorchFormat().load(model)
    net.out.weight = nn.Parameter(torch.rand(20, 8))
    again = TorchFormat().load(save_changed(model, net, tmp_path / "made"))
    assert torch.equal(again.out.weight, net.out.weight)
    assert torch.equal(again.embed.weight, net.embed.weight)
    assert not torch.equal(again.out.weight, again.embed.weight)


def test_what_is_tied_now_is_one_tensor(opened: Opened, tmp_path: Path) -> None:
    model = opened(TIED.replace("        self.out.weight = self.embed.weight\n", ""), "Tied")
    net = TorchFormat().load(model)
    net.out.weight = net.embed.weight
    again = TorchFormat().load(save_changed(model, net, tmp_path / "made"))
    assert again.out.weight is again.embed.weight


def test_a_module_that_lives_in_the_file_is_not_changed_by_what_was_made_of_it(opened: Opened, tmp_path: Path) -> None:
    model = opened(CNN, "live")
    made = save_changed(model, pruned(model), tmp_path / "made")
    for again, channels in ((made, 3), (model, 4), (made, 3)):
        assert TorchFormat().load(again).conv.out_channels == channels


def test_a_factory_that_gives_one_module_again_and_again_is_refused(opened: Opened, tmp_path: Path) -> None:
    model = opened(CNN + "\ndef same():\n    return live\n", "same")
    with pytest.raises(Refused, match="gives the same weights again; let it build a new module at every call"):
        save_changed(model, TorchFormat().load(model), tmp_path / "made")


def test_code_that_changed_since_is_refused_before_and_after(opened: Opened, tmp_path: Path) -> None:
    model = opened()
    net = pruned(model)
    made = save_changed(model, net, tmp_path / "made")
    (tmp_path / "net.py").write_text(CNN.replace("144", "145"))
    with pytest.raises(BadInput, match="has changed since"):
        save_changed(model, net, tmp_path / "other")
    with pytest.raises(BadInput, match="has changed since"):
        TorchFormat().load(made)


def with_a_hook(net: Any) -> None:
    net.head.register_forward_hook(lambda module, given, result: 2 * result)


def with_a_function(net: Any) -> None:
    net.forward = lambda image: image.flatten(1)[:, :10]


def with_other_classes(net: Any) -> None:
    net.head = nn.Linear(144, 7)


def with_a_layer_that_does_not_fit(net: Any) -> None:
    net.head = nn.Linear(100, 10)


def with_code_of_its_own(net: Any) -> None:
    net.head = nn.Sequential(nn.Linear(144, 10), nn.LSTM(10, 10))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (with_a_hook, "answers another 'output', so a hook, a function or a private attribute was changed"),
        (with_a_function, "answers another 'output'"),
        (with_other_classes, r"answers 'output' of the shape \[2, 7\] where the model's is \['batch', 10\]"),
        (with_a_layer_that_does_not_fit, "the changed module can't run on the model's inputs: RuntimeError"),
        (with_code_of_its_own, r"head\.1 is a LSTM, which can't be rebuilt"),
    ],
)
def test_a_module_that_would_be_another_one_after_loading_is_refused(
    change: Any, says: str, opened: Opened, tmp_path: Path
) -> None:
    model = opened()
    net = TorchFormat().load(model)
    change(net)
    with pytest.raises(Refused, match=says) as caught:
        save_changed(model, net, tmp_path / "made")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "made").exists()


def test_a_hook_that_only_looks_is_no_change(opened: Opened, tmp_path: Path) -> None:
    model, seen = opened(), []
    net = pruned(model)
    net.head.register_forward_hook(lambda module, given, result: seen.append(result))
    net.forward = type(net).forward.__get__(net)
    made = save_changed(model, net, tmp_path / "made")
    assert torch.equal(TorchFormat().load(made)(images(2)), net(images(2)))


def test_models_without_a_factory_are_refused_with_what_to_do(tmp_path: Path) -> None:
    model = save_module(nn.Linear(3, 2), torch.zeros(1, 3), tmp_path)
    with pytest.raises(Refused, match=r"a torch-export model doesn't have; open the factory instead: package\.module"):
        save_changed(model, nn.Linear(3, 2), tmp_path)


DAMAGE: list[tuple[Callable[[dict[str, Any]], object], str]] = [
    (lambda recipe: recipe["edits"][0].update(path="gone.conv"), "the change of gone.conv that .* can't be made"),
    (lambda recipe: recipe["edits"][0]["layer"].update(kind="Module"), "'Module' is no layer that may be built"),
    (lambda recipe: recipe["edits"][0]["layer"].update(kind=["Conv2d"]), "not a Recipe as trimtab writes it"),
    (lambda recipe: recipe["edits"][0].update(replay="prune"), "Edit has no replay"),
    (lambda recipe: recipe["edits"].pop(), "size mismatch for head.weight"),
    (lambda recipe: recipe.update(edits={"conv": 3}), "not a Recipe as trimtab writes it"),
    (lambda recipe: recipe.update(aliases=[["head.bias", "gone"], ["no", "head.bias"]]), "don't fit the module"),
]


@pytest.mark.parametrize(("damage", "says"), DAMAGE)
def test_a_damaged_recipe_is_one_clear_line(damage: Any, says: str, opened: Opened, tmp_path: Path) -> None:
    model = opened()
    made = save_changed(model, pruned(model), tmp_path / "made")
    recipe = json.loads((made.path / "module.json").read_text())
    damage(recipe)
    (made.path / "module.json").write_text(json.dumps(recipe))
    with pytest.raises(BadInput, match=says) as caught:
        TorchFormat().load(made)
    assert "\n" not in str(caught.value)


def test_its_parameters_and_products_are_those_that_are_left(opened: Opened, tmp_path: Path) -> None:
    from trimtab.workbench.inspect import inspect

    model = opened()
    made = save_changed(model, pruned(model), tmp_path / "made")
    found = inspect(made)
    assert found.contents is not None
    assert dict(found.contents.operators) == {"Conv2d": 1, "BatchNorm2d": 1, "Dropout": 1, "Linear": 1}
    assert found.contents.parameters == (("float32", 3 * 9 + 3 + 3 + 3 + 108 * 10 + 10),)
    assert TorchFormat().work(made, Workload()).macs == 36 * 9 * 3 + 108 * 10


@pytest.mark.parametrize("runtime", ["torch", pytest.param("torch-compile", marks=pytest.mark.slow)])
def test_pytorchs_runtimes_load_it(runtime: str, opened: Opened, tmp_path: Path) -> None:
    model = opened()
    net = pruned(model)
    variant = Variant(model=save_changed(model, net, tmp_path / "made"), settings=Settings(runtime=runtime))
    if reason := plugins.make("runtimes", runtime).refuses(variant):
        pytest.skip(reason)
    found = plugins.make("runtimes", runtime).load(variant)({"image": images(3).numpy()})
    assert np.allclose(found["output"], net(images(3)).detach().numpy(), atol=1e-5)


def test_it_is_exported_to_onnx(opened: Opened, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    from onnxruntime import InferenceSession

    from trimtab.techniques.export_onnx import ExportOnnx

    def unused(*given: Any) -> Any:
        raise AssertionError("an export is neither evaluated nor timed")

    model = opened()
    net = pruned(model)
    variant = Variant(model=save_changed(model, net, tmp_path / "made"), settings=Settings(runtime="torch"))
    context = Context(
        task=Task(), original=variant, folder=tmp_path / "onnx", seed=0, deadline=math.inf, evaluate=unused,
        time=unused,
    )  # fmt: skip
    session = InferenceSession(str(ExportOnnx().apply(variant, context).model.path))
    assert np.allclose(session.run(None, {"image": images(3).numpy()})[0], net(images(3)).detach().numpy(), atol=1e-5)


def test_a_bundle_carries_it(opened: Opened, tmp_path: Path) -> None:
    from trimtab.serving.bundle import load, write_bundle

    model = opened()
    net = pruned(model)
    variant = Variant(model=save_changed(model, net, tmp_path / "made"), settings=Settings(runtime="torch"))
    write_bundle(
        tmp_path / "bundle", variant, Task(), measurement=None, certificate=None, machine=machine(), version=""
    )
    loaded = load((tmp_path / "bundle").rename(tmp_path / "elsewhere"), trust_pickle=True)
    assert np.allclose(loaded(images(3).numpy())["output"], net(images(3)).detach().numpy(), rtol=1e-5)
