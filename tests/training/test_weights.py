from __future__ import annotations

from pathlib import Path

import pytest

from trimtab.core.protocols import Opening
from trimtab.core.values import Model
from trimtab.testing.samples import source

torch = pytest.importorskip("torch")

from trimtab.formats.torch import TorchFormat  # noqa: E402 (after the skip)
from trimtab.formats.torch_tracing import load_live  # noqa: E402
from trimtab.training.weights import save_trained  # noqa: E402


def opened(kind: str, folder: Path) -> tuple[str, Model]:
    from trimtab.core import plugins

    given = source(kind, folder / "given")
    return given, plugins.make("formats", kind).open(given, Opening(folder=folder / "opened"))


def learnt(model: Model):
    """Return the module of a model as if it had learnt something."""
    module = load_live(model)
    with torch.no_grad():
        for weight in module.parameters():
            weight += 0.25
    return module


def test_a_factory_gets_its_weights_back_and_the_model_can_be_opened_again(tmp_path: Path) -> None:
    given, model = opened("torch", tmp_path)
    module = learnt(model)
    made = save_trained(model, module, tmp_path / "out")
    assert made.path.is_relative_to(tmp_path / "out" / "model")
    assert made.digest != model.digest
    assert made.signature == model.signature
    opening = Opening(folder=tmp_path / "again", weights=tmp_path / "out" / "weights.safetensors")
    again = TorchFormat().open(given, opening)
    assert again.digest == made.digest
    for found in (load_live(made), load_live(again)):
        for name, value in module.state_dict().items():
            assert torch.equal(found.state_dict()[name], value)


def test_a_hugging_face_model_stays_one(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    from trimtab.formats.huggingface import HuggingFaceFormat

    _, model = opened("huggingface", tmp_path)
    module = learnt(model)
    made = save_trained(model, module, tmp_path / "out")
    assert made.path == tmp_path / "out" / "model"
    again = HuggingFaceFormat().open(str(made.path), Opening(folder=tmp_path / "again"))
    assert again == made
    found = load_live(again).state_dict()
    assert all(torch.equal(found[name], value) for name, value in module.state_dict().items())
