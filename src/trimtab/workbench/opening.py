"""From what a person typed to the values that everything else works on."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trimtab.core import plugins
from trimtab.core.errors import BadInput
from trimtab.core.protocols import Format, Opening
from trimtab.core.values import Model, Settings, Variant

_EXAMPLE = re.compile(r"\s*([^:\[\]]*[^:\[\]\s])\s*:\s*(\w+)\s*\[\s*((?:[1-9]\d*(?:\s*,\s*[1-9]\d*)*)?)\s*\]\s*")
_DTYPES = (
    "bool", "uint8", "int8", "int16", "int32", "int64", "uint16", "uint32", "uint64", "float16", "float32", "float64",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRequest:
    """How a model is to be opened, as typed: see `core.protocols.Opening`."""

    weights: Path | None = None
    trust_pickle: bool = False
    states: tuple[tuple[str, str], ...] = ()
    example: tuple[tuple[str, tuple[int, ...], str], ...] = ()

    def opening(self, folder: Path) -> Opening:
        """Return the opening with the folder where a format may write what it must build."""
        return Opening(folder=folder, **asdict(self))


def open_model(source: Any, folder: Path, request: ModelRequest | None = None) -> Variant:
    """Open a path, a `module:function`, a bundle, a `Model` or a live `torch.nn.Module` as the variant "as given"."""
    request = request or ModelRequest()
    if isinstance(source, Variant):
        return source
    if isinstance(source, Model):
        return as_given(source)
    if not isinstance(source, str | Path):
        return as_given(_open_live(source, request.opening(folder)))
    text = str(source)
    if (Path(text) / "manifest.json").is_file():
        from trimtab.serving.bundle import bundled_variant, read_manifest

        return bundled_variant(Path(text), read_manifest(Path(text)), request.trust_pickle)
    formats: list[Format] = plugins.every("formats")
    found = next((each for each in formats if each.claims(text)), None)
    if found is None:
        known = "ONNX (.onnx), OpenVINO (.xml), PyTorch (package.module:factory, .pt2) and Hugging Face folders"
        if not Path(text).exists() and ":" not in text:
            raise BadInput(f"there is no model file {text}; check the path (trimtab reads {known})")
        raise BadInput(f"{text} is no model that trimtab reads: it reads {known}")
    return as_given(found.open(text, request.opening(folder)))


def as_given(model: Model) -> Variant:
    """Return the model run as people who never heard of us run it: on the defaults of its format's own runtime."""
    for runtime in plugins.every("runtimes"):
        if model.format in getattr(runtime, "native_formats", ()):
            return Variant(model=model, settings=Settings(runtime=runtime.name))
    raise BadInput(f"no runtime of this installation runs {model.format} models; trimtab inspect lists the reasons")


def parse_states(given: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Return the pairs of "input=output" that `--state` names."""
    pairs = []
    for text in given:
        name, equals, output = text.partition("=")
        if not (name and equals and output):
            raise BadInput(f'--state {text!r} is not understood; type it like "h_in=h_out" (input=output)')
        pairs.append((name.strip(), output.strip()))
    return tuple(pairs)


def parse_examples(given: Sequence[str]) -> tuple[tuple[str, tuple[int, ...], str], ...]:
    """Return name, shape and dtype of each "name:float32[1,1,28,28]" that `--input` names."""
    found = []
    for text in given:
        match = _EXAMPLE.fullmatch(text)
        if match is None:
            raise BadInput(f'--input {text!r} is not understood; type it like "x:float32[1,1,28,28]"')
        name, dtype, sizes = match.groups()
        if dtype not in _DTYPES:
            raise BadInput(f"--input {text!r}: {dtype!r} is no type of numbers; known are: {', '.join(_DTYPES)}")
        found.append((name, tuple(int(size) for size in sizes.split(",") if size.strip()), dtype))
    return tuple(found)


def default_settings(variant: Variant, runtime: str | None) -> Variant:
    """Return the variant on another runtime's defaults, or as it is; raise `BadInput` when there is no such runtime."""
    if runtime is None:
        return variant
    plugins.plugin_class("runtimes", runtime)
    return variant.on(Settings(runtime=runtime))


def example_of(module: Any, data: Any) -> tuple[tuple[str, tuple[int, ...], str], ...]:
    """Return name, shape and dtype of what a live module takes, from arrays that it is to be fed with; () if unknown.

    Arrays are named like the inputs of `forward`, or they are a single one that feeds its first input.
    """
    from trimtab.formats.torch_tracing import forward_inputs

    takes, needs = forward_inputs(module)
    arrays = dict(data) if isinstance(data, Mapping) else {"inputs": data[0] if isinstance(data, tuple) else data}
    if set(needs) <= set(arrays):
        named = {name: arrays[name] for name in takes if name in arrays}
    elif len(needs) == 1 and "inputs" in arrays:
        named = {needs[0]: arrays["inputs"]}
    else:
        return ()
    shapes = {name: np.shape(array) for name, array in named.items()}
    if not named or not all(shapes.values()):
        return ()
    return tuple((name, (1, *shapes[name][1:]), _example_dtype(array)) for name, array in named.items())


def _example_dtype(array: Any) -> str:
    name = str(array.dtype).removeprefix("torch.")
    return "float32" if name == "float64" else name  # what the data is cast to, unless the module says otherwise


def _open_live(source: Any, opening: Opening) -> Model:
    """Save a live module to the folder; only paths and values cross a process wall."""
    if not hasattr(source, "state_dict"):
        raise BadInput(f"a {type(source).__name__} is no model: give a path, module:function or a torch.nn.Module")
    if not opening.example:
        raise BadInput(
            "a live module doesn't say what it takes: give ModelRequest(example=((name, shape, dtype),)), "
            'such as (("x", (1, 3, 224, 224), "float32"),)'
        )
    from trimtab.formats.torch import save_module

    inputs = {name: np.zeros(shape, dtype=dtype) for name, shape, dtype in opening.example}
    return save_module(source, inputs, opening.folder, states=opening.states)
