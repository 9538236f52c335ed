"""Models in every format that can be written here, and tasks for them, all with known truth."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TypeVar

import numpy as np

from trimtab.core import plugins
from trimtab.core.errors import MissingExtra
from trimtab.core.protocols import Opening
from trimtab.core.values import Model, Settings, Split, Task, Variant
from trimtab.data.arrays import save_array
from trimtab.testing import laws, perceptron
from trimtab.testing.networks import CLASSES, CONVOLUTION, PERCEPTRON, TOKENS, Network

ITEMS = 24
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A network as a model on disk, run as its format is run by default."""

    network: Network
    variant: Variant

    def copied(self, folder: Path) -> Sample:
        """Return the sample with files of its own, for plug-ins that might change them."""
        model = self.variant.model
        path = shutil.copytree(model.path.parent, folder) / model.path.name
        return replace(self, variant=replace(self.variant, model=replace(model, path=path)))


def source(format_name: str, folder: Path, seed: int = 0) -> str:
    """Write a model of a format to the folder and return what a person would type to open it.

    Raises:
        KeyError: No model of that format can be written here.
        MissingExtra: The format's framework is not installed.
    """
    write = SOURCES[format_name]
    folder.mkdir(parents=True, exist_ok=True)
    return write(folder, PERCEPTRON, seed)


def accepted(plugin: str, found: list[T], reasons: Mapping[str, str | None]) -> list[T]:
    """Return what a plug-in accepts, from the reason that it gave for each format.

    Skips the test when nothing is left for a reason that is not the plug-in's: every format was refused in the same
    words, which are about this machine then, or some samples can't be made here.
    """
    if not found and len(reasons) > 1 and len(set(reasons.values())) == 1:
        laws.skip(next(iter(reasons.values())) or "")
    if not found and (missing := samples()[1]):
        laws.skip("; ".join(missing))
    assert found, f"{plugin} refuses every sample, override samples(): {reasons}"
    return found


def samples() -> tuple[list[Sample], list[str]]:
    """Return every sample that can be made here, and why the others can't; each is made once per process."""
    found, missing = [], []
    for format_name, networks in _NETWORKS.items():
        try:
            found += [_sample(format_name, network) for network in networks]
        except MissingExtra as error:
            missing.append(str(error))
    return found, missing


@cache
def _sample(format_name: str, network: Network) -> Sample:
    folder = _scratch() / format_name / network.name
    folder.mkdir(parents=True, exist_ok=True)  # a framework that was missing may have left it
    text = SOURCES[format_name](folder, network, 0)
    opening = Opening(folder=folder / "opened")
    model: Model = plugins.make("formats", format_name).open(text, opening)
    return Sample(network=network, variant=Variant(model=model, settings=_SETTINGS[format_name]))


@cache
def _scratch() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="trimtab-samples-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def task(network: Network, folder: Path, items: int = ITEMS) -> Task:
    """Return a classification task whose labels are what the network answers: the network itself is always right."""
    return Task(
        splits=tuple(
            _split(name, network, folder / name, items, seed)
            for seed, name in enumerate(("calibrate", "select", "certify", "train"))
        ),
        classes=tuple(f"class {number}" for number in range(CLASSES)),
        digest=f"{network.name} {items}",
    )


def _split(name: str, network: Network, folder: Path, items: int, seed: int) -> Split:
    inputs = network.inputs(items, seed)
    labels = np.argmax(network.answer(inputs)["scores"], axis=1)
    return Split(
        name=name,
        inputs=tuple(save_array(key, folder / f"{key}.npy", value) for key, value in inputs.items()),
        rows=save_array("rows", folder / "rows.npy", np.arange(items)),
        labels=save_array("labels", folder / "labels.npy", labels),
        digest=f"{network.name} {name} {items}",
    )


def _onnx(folder: Path, network: Network, seed: int) -> str:
    path = folder / f"{network.name}.onnx"
    path.write_bytes(network.graph(seed).SerializeToString(deterministic=True))
    return str(path)


def _openvino(folder: Path, network: Network, seed: int) -> str:
    from trimtab.formats.openvino import import_openvino, save

    openvino = import_openvino("a sample in OpenVINO's format")
    with tempfile.TemporaryDirectory() as scratch:
        graph = openvino.convert_model(_onnx(Path(scratch), network, seed))
    return str(save(graph, folder).path)


def _torch(folder: Path, network: Network, seed: int) -> str:
    path = folder / f"{network.name}.py"
    path.write_text(Path(perceptron.__file__).read_text().replace("SEED = 0", f"SEED = {seed}"))
    return f"{path}:make"


def _torch_export(folder: Path, network: Network, seed: int) -> str:
    from trimtab.formats.torch import save_module

    made = save_module(perceptron.make(seed), network.inputs(1, 0), folder, output_names=perceptron.output_names)
    return str(made.path)


def _huggingface(folder: Path, network: Network, seed: int) -> str:
    from trimtab.formats.torch_tracing import import_torch

    torch = import_torch("a sample in Hugging Face's format")
    try:
        import transformers
    except ImportError as error:
        raise MissingExtra("transformers", "text", "a sample in Hugging Face's format") from error
    torch.manual_seed(seed)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = transformers.BertConfig(**sizes, vocab_size=50, max_position_embeddings=32, num_labels=CLASSES)
    transformers.utils.logging.disable_progress_bar()
    transformers.BertForSequenceClassification(config).eval().save_pretrained(folder)
    return str(folder)


SOURCES: Mapping[str, Callable[[Path, Network, int], str]] = {
    "onnx": _onnx,
    "openvino": _openvino,
    "torch": _torch,
    "torch-export": _torch_export,
    "huggingface": _huggingface,
}
"""How a model of each format of ours is written: into a folder, of a network, with a seed."""

_NETWORKS = {
    "onnx": (PERCEPTRON, CONVOLUTION, TOKENS),
    "openvino": (PERCEPTRON, CONVOLUTION, TOKENS),
    "torch": (PERCEPTRON,),
    "torch-export": (PERCEPTRON,),
}

_SETTINGS = {
    "onnx": Settings(runtime="onnxruntime", threads=1),
    "openvino": Settings(runtime="openvino", precision="fp32", threads=1),
    "torch": Settings(runtime="torch", threads=1),
    "torch-export": Settings(runtime="torch", threads=1),
}
