"""PyTorch factories: built, given weights, kept as a folder, loaded again."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from trimtab.core.errors import BadInput, Unsafe
from trimtab.core.protocols import Opening
from trimtab.core.values import TensorSpec

torch = pytest.importorskip("torch")
safetensors_torch = pytest.importorskip("safetensors.torch")

from trimtab.formats.torch import TorchFormat, save_module  # noqa: E402 (after the skip)
from trimtab.formats.torch_tracing import load_live  # noqa: E402

CNN = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(144, 10)

    def forward(self, image):
        return self.head(torch.relu(self.norm(self.conv(image))).flatten(1))

def make():
    return Net()

def number():
    return 7

def broken():
    raise RuntimeError("no such layer")
"""

TIED = """
from torch import nn

class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(20, 8)
        self.out = nn.Linear(8, 20, bias=False)
        self.out.weight = self.embed.weight

    def forward(self, tokens):
        return {"scores": self.out(self.embed(tokens)), "mean": self.embed(tokens).mean(1)}
"""

IMAGE = (("image", (1, 1, 8, 8), "float32"),)


class Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path("touched-by-the-pickle"),))


@pytest.fixture
def opening(tmp_path: Path) -> Opening:
    torch.set_num_threads(1)
    return Opening(folder=tmp_path / "run", example=IMAGE)


@pytest.fixture
def cnn(tmp_path: Path) -> str:
    (tmp_path / "net.py").write_text(CNN)
    return f"{tmp_path / 'net.py'}:make"


def with_weights(opening: Opening, weights: Path, trust: bool = False) -> Opening:
    return Opening(folder=opening.folder, example=opening.example, weights=weights, trust_pickle=trust)


def test_finds_names_shapes_and_a_free_batch(cnn: str, opening: Opening) -> None:
    signature = TorchFormat().open(cnn, opening).signature
    assert signature.inputs == (TensorSpec(name="image", dtype="float32", shape=("batch", 1, 8, 8)),)
    assert signature.outputs == (TensorSpec(name="output", dtype="float32", shape=("batch", 10)),)


def test_the_loaded_module_answers_like_the_one_that_made_the_weights(
    cnn: str, opening: Opening, tmp_path: Path
) -> None:
    first = TorchFormat().load(TorchFormat().open(cnn, opening))
    safetensors_torch.save_file(first.state_dict(), tmp_path / "w.safetensors")
    again = TorchFormat().load(TorchFormat().open(cnn, with_weights(opening, tmp_path / "w.safetensors")))
    image = torch.randn(3, 1, 8, 8)
    assert not again.training
    assert torch.equal(first(image), again(image))


def test_the_digest_follows_the_weights_and_the_code(cnn: str, opening: Opening, tmp_path: Path) -> None:
    network = TorchFormat().load(TorchFormat().open(cnn, opening))
    torch.save(network.state_dict(), tmp_path / "w.pt")
    given = with_weights(opening, tmp_path / "w.pt")
    same = TorchFormat().open(cnn, given).digest
    other_folder = Opening(folder=tmp_path / "elsewhere", example=IMAGE, weights=tmp_path / "w.pt")
    (tmp_path / "edited.py").write_text(CNN.replace("torch.relu", "torch.tanh"))
    assert TorchFormat().open(cnn, other_folder).digest == same
    assert TorchFormat().open(f"{tmp_path / 'edited.py'}:make", given).digest != same
    torch.save({name: value + 1 for name, value in network.state_dict().items()}, tmp_path / "w.pt")
    assert TorchFormat().open(cnn, given).digest != same


def test_code_that_changed_after_opening_is_refused(cnn: str, opening: Opening, tmp_path: Path) -> None:
    model = TorchFormat().open(cnn, opening)
    (tmp_path / "net.py").write_text(CNN + "\n# edited\n")
    with pytest.raises(BadInput, match="has changed since"):
        TorchFormat().load(model)


def test_tensors_that_share_memory_are_stored_once(tmp_path: Path) -> None:
    (tmp_path / "tied.py").write_text(TIED)
    opening = Opening(folder=tmp_path / "run", example=(("tokens", (2, 5), "int64"),))
    model = TorchFormat().open(f"{tmp_path / 'tied.py'}:Tied", opening)
    assert TorchFormat().contents(model).parameters == (("float32", 20 * 8),)
    loaded = TorchFormat().load(model)
    assert loaded.out.weight is loaded.embed.weight
    assert [spec.name for spec in model.signature.outputs] == ["scores", "mean"]
    assert model.signature.outputs[0].shape == ("batch", 5, 20)


def test_another_process_can_load_the_folder(opening: Opening, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "src" / "shop"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "parts.py").write_text(CNN)
    (package / "nets.py").write_text("from shop.parts import Net\n\ndef make():\n    return Net()\n")
    monkeypatch.syspath_prepend(tmp_path / "src")
    model = TorchFormat().open("shop.nets:make", opening)
    script = (
        "import sys; from pathlib import Path; from trimtab.core.values import *; from trimtab.formats.torch import *\n"
        f"m = Model(format='torch', path=Path({str(model.path)!r}), digest='', signature=None)\n"
        "print(type(TorchFormat().load(m)).__name__)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.returncode) == ("Net", 0), done.stderr
    (package / "parts.py").write_text(CNN + "# a layer's code counts too\n")
    with pytest.raises(BadInput, match="has changed since"):
        TorchFormat().load(model)


def test_a_pickle_that_holds_more_than_tensors_is_refused(
    cnn: str, opening: Opening, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"head.weight": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(Unsafe, match=r"evil\.pt is a pickle.*--trust-pickle"):
        TorchFormat().open(cnn, with_weights(opening, tmp_path / "evil.pt"))
    assert not Path("touched-by-the-pickle").exists()


def test_a_trusted_pickle_may_hold_the_whole_module(opening: Opening, tmp_path: Path) -> None:
    (tmp_path / "plain.py").write_text(
        "from torch import nn\n\ndef make():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 3))\n"
    )
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
    torch.save(network, tmp_path / "whole.pt")
    source = f"{tmp_path / 'plain.py'}:make"
    opening = Opening(folder=tmp_path / "run", example=(("input", (1, 8, 8), "float32"),))
    with pytest.raises(Unsafe):
        TorchFormat().open(source, with_weights(opening, tmp_path / "whole.pt"))
    loaded = TorchFormat().load(TorchFormat().open(source, with_weights(opening, tmp_path / "whole.pt", trust=True)))
    assert torch.equal(loaded[1].weight, network[1].weight)


def test_weights_that_do_not_fit_are_named(cnn: str, opening: Opening, tmp_path: Path) -> None:
    state = TorchFormat().load(TorchFormat().open(cnn, opening)).state_dict()
    lacking = {name: value for name, value in state.items() if name != "head.bias"}
    safetensors_torch.save_file({**lacking, "tail.bias": torch.zeros(1)}, tmp_path / "w.safetensors")
    with pytest.raises(BadInput, match=r"missing: head\.bias; not in the module: tail\.bias"):
        TorchFormat().open(cnn, with_weights(opening, tmp_path / "w.safetensors"))
    safetensors_torch.save_file({**state, "head.bias": torch.zeros(3)}, tmp_path / "w.safetensors")
    with pytest.raises(BadInput, match=r"size mismatch for head\.bias"):
        TorchFormat().open(cnn, with_weights(opening, tmp_path / "w.safetensors"))


@pytest.mark.parametrize(
    "wrap", [lambda s: {"state_dict": s, "epoch": 3}, lambda s: {f"module.{n}": v for n, v in s.items()}]
)
def test_common_wrappings_of_a_state_dict_are_opened(wrap, cnn: str, opening: Opening, tmp_path: Path) -> None:  # type: ignore[no-untyped-def] # a lambda
    state = TorchFormat().load(TorchFormat().open(cnn, opening)).state_dict()
    torch.save(wrap(state), tmp_path / "w.pt")
    loaded = TorchFormat().load(TorchFormat().open(cnn, with_weights(opening, tmp_path / "w.pt")))
    assert torch.equal(loaded.head.weight, state["head.weight"])


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
def test_a_truncated_weights_file_is_one_clear_line(name: str, cnn: str, opening: Opening, tmp_path: Path) -> None:
    state = TorchFormat().load(TorchFormat().open(cnn, opening)).state_dict()
    path = tmp_path / name
    torch.save(state, path) if name.endswith("pt") else safetensors_torch.save_file(state, path)
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(BadInput, match="damaged") as caught:
        TorchFormat().open(cnn, with_weights(opening, path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("{}/net.py:absent", "has no 'absent'; it has: .*make"),
        ("{}/net.py:number", "gave a int, not a torch.nn.Module"),
        ("{}/net.py:broken", "failed .*no such layer"),
        ("{}/nowhere.py:make", "there is no file"),
        ("no_such_package.nets:make", "can't import no_such_package.nets"),
    ],
)
def test_a_factory_that_gives_no_module_is_one_clear_line(
    source: str, says: str, cnn: str, opening: Opening, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match=says) as caught:
        TorchFormat().open(source.format(tmp_path), opening)
    assert "\n" not in str(caught.value)


def test_unknown_inputs_say_what_to_type(cnn: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"--input image:float32\[1,1,28,28\]"):
        TorchFormat().open(cnn, Opening(folder=tmp_path / "run"))


def test_a_wrong_input_name_says_the_right_ones(cnn: str, tmp_path: Path) -> None:
    example = (("picture", (1, 1, 8, 8), "float32"),)
    with pytest.raises(BadInput, match="takes the inputs image; --input gives picture"):
        TorchFormat().open(cnn, Opening(folder=tmp_path / "run", example=example))


def test_an_example_that_does_not_run_is_one_clear_line(cnn: str, tmp_path: Path) -> None:
    example = (("image", (1, 1, 9, 9), "float32"),)
    with pytest.raises(BadInput, match=r"can't run on its example inputs image:float32\[1,1,9,9\]"):
        TorchFormat().open(cnn, Opening(folder=tmp_path / "run", example=example))


def test_the_factorys_module_may_say_its_inputs(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        TIED + 'import torch\nexample_inputs = {"tokens": torch.zeros(1, 4, dtype=torch.int64)}\n'
        'dynamic_axes = {"tokens": {0: "batch", 1: "length"}}\noutput_names = ["a", "b"]\n'
    )
    signature = TorchFormat().open(f"{tmp_path / 'net.py'}:Tied", Opening(folder=tmp_path / "run")).signature
    assert [(spec.name, spec.shape) for spec in signature.outputs] == [
        ("a", ("batch", "length", 20)),
        ("b", ("batch", 8)),
    ]


def test_a_bare_checkpoint_says_that_its_code_is_needed(tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(2)}, tmp_path / "model.pt")
    source = str(tmp_path / "model.pt")
    assert TorchFormat().claims(source)
    with pytest.raises(Unsafe, match="give its factory"):
        TorchFormat().open(source, Opening(folder=tmp_path / "run"))


def test_a_folder_from_elsewhere_runs_no_code_unless_trusted(cnn: str, opening: Opening, tmp_path: Path) -> None:
    model = TorchFormat().open(cnn, opening)
    with pytest.raises(Unsafe, match="runs code"):
        TorchFormat().open(str(model.path), Opening(folder=tmp_path))
    assert TorchFormat().open(str(model.path), Opening(folder=tmp_path, trust_pickle=True)) == model
    with pytest.raises(BadInput, match="holds its own weights, states and inputs"):
        TorchFormat().open(str(model.path), with_weights(opening, tmp_path / "w.pt", trust=True))


def test_a_live_module_becomes_a_program_and_is_left_as_it_was(tmp_path: Path) -> None:
    network = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 3)).train()
    model = save_module(network, np.zeros((1, 6), np.float32), tmp_path)
    assert network.training
    assert model.format == "torch-export"
    assert model.signature.inputs[0].shape == ("batch", 6)
    x = torch.randn(5, 6)
    assert torch.allclose(load_live(model).module()(input=x), network.eval()(x))
    assert save_module(network, np.zeros((1, 6), np.float32), tmp_path / "again").digest == model.digest


def test_a_state_names_the_output_that_feeds_it(tmp_path: Path) -> None:
    class Cell(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = torch.nn.GRUCell(3, 5)

        def forward(self, x, h):  # type: ignore[no-untyped-def]
            after = self.cell(x, h)
            return after.sum(1, keepdim=True), after

    given = {"x": torch.zeros(1, 3), "h": torch.zeros(1, 5)}
    model = save_module(Cell(), given, tmp_path, output_names=["y", "h_next"], states=[("h", "h_next")])
    assert [(spec.name, spec.role, spec.fed_by) for spec in model.signature.inputs] == [
        ("x", "data", None),
        ("h", "state", "h_next"),
    ]
    with pytest.raises(BadInput, match="outputs y, h_next"):
        save_module(Cell(), given, tmp_path, output_names=["y", "h_next"], states=[("h", "other")])


def test_without_pytorch_the_command_that_installs_it_is_named(tmp_path: Path) -> None:
    script = (
        "import sys; sys.modules['torch'] = None\n"
        "from pathlib import Path\n"
        "from trimtab.core.errors import MissingExtra\n"
        "from trimtab.core.protocols import Opening\n"
        "from trimtab.formats.torch import TorchFormat\n"
        "assert TorchFormat().claims('package.nets:make') and not TorchFormat().claims('model.onnx')\n"
        "try: TorchFormat().open('package.nets:make', Opening(folder=Path('run')))\n"
        "except MissingExtra as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "pip install 'trimtab[torch]'" in done.stdout, done.stderr


FACTORIES = {
    "a mistake in the file": ("def make(:\n", r"can't import .*SyntaxError"),
    "a package that is not there": ("import no_such_package\n", "No module named 'no_such_package'"),
    "an error of its own kind": (
        "class Wrong(Exception):\n    pass\n\nraise Wrong('the stars are not right')\n",
        r"can't import .*\(Wrong: the stars are not right\)",
    ),
    "a program that ends itself": ("import sys\nsys.exit('usage: train.py')\n", r"SystemExit: usage: train\.py"),
    "a question at import": ("input('which device? ')\n", r"can't import"),
    "a factory with arguments": ("def make(classes):\n    return classes\n", "without arguments"),
    "a factory that raises its own kind": (
        "class Wrong(Exception):\n    pass\n\ndef make():\n    raise Wrong('no weights')\n",
        r"failed \(Wrong: no weights\)",
    ),
    "a class that is no module": ("class make:\n    pass\n", "gave a make, not a torch.nn.Module"),
    "nothing": ("", "has no 'make'; it has: nothing to call"),
    "only what is private": ("def _make():\n    return 1\n", "it has: nothing to call"),
}  # fmt: skip


@pytest.mark.parametrize("case", FACTORIES)
def test_whatever_their_code_raises_is_one_clear_line(
    case: str, opening: Opening, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", None)
    code, says = FACTORIES[case]
    before = set(sys.modules)
    (tmp_path / "net.py").write_text(code)
    with pytest.raises(BadInput, match=says) as caught:
        TorchFormat().open(f"{tmp_path / 'net.py'}:make", opening)
    assert "\n" not in str(caught.value)
    left = {name for name in set(sys.modules) - before if name.startswith("net_")}
    assert not left or "import" not in str(caught.value), "a file that failed is left behind"


def test_a_module_may_be_there_without_a_factory_in_a_file_of_any_name(opening: Opening, tmp_path: Path) -> None:
    folder = tmp_path / "сети и слои"
    folder.mkdir()
    (folder / "my-net v1.2.py").write_text(CNN + "\nready = Net()\n")
    model = TorchFormat().open(f"{folder / 'my-net v1.2.py'}:ready", opening)
    assert TorchFormat().load(model)(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


def test_a_file_that_is_edited_between_two_openings_is_read_again(opening: Opening, tmp_path: Path) -> None:
    file = tmp_path / "net.py"
    file.write_text(CNN)
    before = TorchFormat().open(f"{file}:make", opening)
    file.write_text(CNN.replace("nn.Linear(144, 10)", "nn.Linear(144, 7)"))
    after = TorchFormat().open(f"{file}:make", opening)
    assert [model.signature.outputs[0].shape for model in (before, after)] == [("batch", 10), ("batch", 7)]
    assert TorchFormat().load(after)(torch.zeros(2, 1, 8, 8)).shape == (2, 7)
    with pytest.raises(BadInput, match="has changed since"):
        TorchFormat().load(before)


def test_files_of_one_name_in_two_packages_have_one_digest_in_every_process(tmp_path: Path) -> None:
    for name, value in (("one", 1), ("two", 2), ("three", 3)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("")
        (tmp_path / name / "parts.py").write_text(f"class Part:\n    number = {value}\n")
    (tmp_path / "net.py").write_text("")
    script = (
        "import sys; from importlib import import_module as load; from trimtab.formats.torch import _source_digest\n"
        f"sys.path.append({str(tmp_path)!r})\n"
        "parts = [load(f'{name}.parts').Part() for name in ('one', 'two', 'three')]\n"
        "class Module:\n    def modules(self): return parts\n"
        f"print(_source_digest(Module(), {str(tmp_path / 'net.py')!r} + ':make', ''))"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", script], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, text=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "2", "3")
    }  # fmt: skip
    assert len(found) == 1


CHECKPOINTS: dict[str, tuple[object, str]] = {
    "a list": ([1, 2], r"holds a list that is no state_dict; save module\.state_dict\(\)"),
    "numbers": ({"head.weight": 1.0}, r"holds a dict that is no state_dict"),
    "numbered tensors": ({0: "tensor"}, r"holds a dict that is no state_dict"),
    "an optimizer's": ({"state_dict": {"head.weight": "tensor"}, "optimizer": {"lr": 0.1}}, "missing: conv.weight"),
}


@pytest.mark.parametrize("case", CHECKPOINTS)
def test_a_checkpoint_without_the_weights_says_what_it_holds(
    case: str, cnn: str, opening: Opening, tmp_path: Path
) -> None:
    def filled(value: object) -> object:
        if isinstance(value, dict):
            return {key: filled(inner) for key, inner in value.items()}
        return torch.zeros(10, 144) if value == "tensor" else value

    content, says = CHECKPOINTS[case]
    torch.save(filled(content), tmp_path / "w.pt")
    with pytest.raises(BadInput, match=says) as caught:
        TorchFormat().open(cnn, with_weights(opening, tmp_path / "w.pt"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "says"), [("w.pt", "not a PyTorch checkpoint"), ("w.safetensors", "not a safetensors")]
)
def test_an_empty_weights_file_is_one_clear_line(
    name: str, says: str, cnn: str, opening: Opening, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(b"")
    with pytest.raises((BadInput, Unsafe), match=says + "|is a pickle") as caught:
        TorchFormat().open(cnn, with_weights(opening, tmp_path / name))
    assert "\n" not in str(caught.value)


def test_missing_weights_are_named(cnn: str, opening: Opening, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"there is no weights file .*gone\.pt; check --weights"):
        TorchFormat().open(cnn, with_weights(opening, tmp_path / "gone.pt"))


EXAMPLES = {
    "a list of numbers": ("[[1.0, 2.0]]", r"example input 'x' is a list, not a tensor or an array"),
    "too many": ("(torch.zeros(1, 3), torch.zeros(1, 3))", "2 example inputs are given, the module takes 1: x"),
}


@pytest.mark.parametrize("case", EXAMPLES)
def test_examples_that_are_no_inputs_are_refused(case: str, tmp_path: Path) -> None:
    text, says = EXAMPLES[case]
    (tmp_path / "net.py").write_text(
        "import torch\n\nclass Net(torch.nn.Module):\n    def forward(self, x):\n        return x\n\n"
        f"example_inputs = {text}\n"
    )
    with pytest.raises(BadInput, match=says):
        TorchFormat().open(f"{tmp_path / 'net.py'}:Net", Opening(folder=tmp_path / "run"))


@pytest.mark.parametrize(
    "text",
    ["torch.zeros(1, 3)", "[torch.zeros(1, 3)]", '{"x": torch.zeros(1, 3)}', "lambda: torch.zeros(1, 3).numpy()"],
)
def test_examples_may_be_a_tensor_an_array_several_named_ones_or_a_function(text: str, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "import torch\n\nclass Net(torch.nn.Module):\n    def forward(self, x):\n        return x\n\n"
        f"example_inputs = {text}\n"
    )
    signature = TorchFormat().open(f"{tmp_path / 'net.py'}:Net", Opening(folder=tmp_path / "run")).signature
    assert signature.inputs == (TensorSpec(name="x", dtype="float32", shape=("batch", 3)),)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda folder: (folder / "weights.safetensors").unlink(), "has no weights.safetensors"),
        (lambda folder: (folder / "module.json").write_text("{"), "not a Recipe as trimtab writes it"),
        (lambda folder: (folder / "module.json").write_bytes(b"\xff\xfe"), "not a PyTorch model as trimtab writes it"),
        (lambda folder: (folder / "weights.safetensors").write_bytes(b"no"), "not a safetensors file"),
    ],
)
def test_a_folder_that_was_damaged_is_one_clear_line(damage, says: str, cnn: str, opening: Opening) -> None:  # type: ignore[no-untyped-def] # a lambda
    model = TorchFormat().open(cnn, opening)
    damage(model.path)
    with pytest.raises(BadInput, match=says) as caught:
        TorchFormat().load(model)
    assert "\n" not in str(caught.value)


def test_a_module_that_keeps_more_than_tensors_can_not_be_saved(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "import torch\n\nclass Net(torch.nn.Module):\n    def forward(self, x):\n        return x\n"
        "    def get_extra_state(self):\n        return {'version': 1}\n"
        "    def set_extra_state(self, state):\n        pass\n\nexample_inputs = torch.zeros(1, 3)\n"
    )
    with pytest.raises(BadInput, match="keeps '_extra_state' as a dict; only tensors can be saved"):
        TorchFormat().open(f"{tmp_path / 'net.py'}:Net", Opening(folder=tmp_path / "run"))


def test_parts_that_are_frozen_stay_frozen_when_a_live_module_is_saved(tmp_path: Path) -> None:
    network = torch.nn.Sequential(torch.nn.BatchNorm1d(6), torch.nn.Dropout(0.5), torch.nn.Linear(6, 3)).train()
    network[0].eval()
    save_module(network, torch.zeros(1, 6), tmp_path)
    assert [part.training for part in network] == [False, True, True]
    assert network.training


def test_what_is_no_module_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"this is a dict, not a torch\.nn\.Module"):
        save_module({"w": 1}, torch.zeros(1), tmp_path)


def test_a_module_whose_batch_can_not_stay_free_is_saved_for_one_item(tmp_path: Path) -> None:
    class Rows(torch.nn.Module):
        def forward(self, x):  # type: ignore[no-untyped-def]
            return torch.cat([row * 2 for row in x.split(1)])

    model = save_module(Rows(), torch.zeros(2, 3), tmp_path)
    assert [spec.shape for spec in (*model.signature.inputs, *model.signature.outputs)] == [(1, 3), (1, 3)]


def test_the_state_of_a_module_is_no_answer(tmp_path: Path) -> None:
    class Cell(torch.nn.Module):
        def forward(self, x, h):  # type: ignore[no-untyped-def]
            return x + h, h * 2

    given = {"x": torch.zeros(1, 3), "h": torch.zeros(1, 3)}
    signature = save_module(Cell(), given, tmp_path, output_names=["y", "n"], states=(("h", "n"),)).signature
    assert [(spec.name, spec.role) for spec in signature.outputs] == [("y", "data"), ("n", "state")]
    with pytest.raises(BadInput, match="shape and dtype must agree"):
        save_module(Cell(), {"x": torch.zeros(1, 3), "h": torch.zeros(3)}, tmp_path, states=(("h", "output_0"),))


def test_a_folder_of_a_version_that_knew_no_changes_is_the_same_model(cnn: str, opening: Opening) -> None:
    model = TorchFormat().open(cnn, opening)
    recipe = json.loads((model.path / "module.json").read_text())
    assert recipe.pop("edits") == []
    (model.path / "module.json").write_text(json.dumps(recipe))
    assert TorchFormat().open(str(model.path), Opening(folder=opening.folder, trust_pickle=True)) == model
    assert TorchFormat().load(model)(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


def test_what_is_done_to_a_loaded_module_is_not_done_to_the_one_in_the_file(opening: Opening, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(CNN + "\nready = Net()\n")
    model = TorchFormat().open(f"{tmp_path / 'net.py'}:ready", opening)
    TorchFormat().load(model).conv = torch.nn.Identity()
    assert type(TorchFormat().load(model).conv).__name__ == "Conv2d"
