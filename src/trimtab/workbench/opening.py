"""From what a person typed to the values that everything else works on."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from trimtab.core import plugins
from trimtab.core.errors import BadInput
from trimtab.core.protocols import Array, Format, Opening
from trimtab.core.values import Model, Settings, Task, Variant

_EXAMPLE = re.compile(r"\s*([^:\[\]]*[^:\[\]\s])\s*:\s*(\w+)\s*\[\s*((?:[1-9]\d*(?:\s*,\s*[1-9]\d*)*)?)\s*\]\s*")
_DTYPES = (
    "bool", "uint8", "int8", "int16", "int32", "int64", "uint16", "uint32", "uint64", "float16", "float32", "float64",
)  # fmt: skip
_OPTIONS = {
    "weights": ("--weights", "gives the weights of a PyTorch factory"),
    "states": ("--state", "names an input and the output that feeds it at the next call"),
    "example": ("--input", "says what a PyTorch factory takes"),
}
"""The fields of a `ModelRequest` that some formats read, as they are typed and what they mean."""


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
    if left := unread(source, request):
        option, meaning = _OPTIONS[left[0]]
        formats = ", ".join(each.name for each in plugins.every("formats") if left[0] in getattr(each, "reads", ()))
        shown = source if isinstance(source, str | Path) else f"this {type(source).__name__}"
        raise BadInput(
            f"{option} {meaning}, for models of the format {formats}; {shown} is opened without it: leave it out"
        )
    if isinstance(source, Variant):
        return source
    if isinstance(source, Model):
        return as_given(source)
    if not isinstance(source, str | Path):
        return as_given(_open_live(source, request.opening(folder)))
    text = str(source)
    if _is_bundle(text):
        from trimtab.serving.bundle import bundled_variant, read_manifest

        return bundled_variant(Path(text), read_manifest(Path(text)), request.trust_pickle)
    return as_given(_format_of(text).open(text, request.opening(folder)))


def unread(source: Any, request: ModelRequest) -> tuple[str, ...]:
    """Return the fields of the request, `trust_pickle` aside, that say nothing about how this source is opened."""
    asked = tuple(name for name in _OPTIONS if getattr(request, name))
    if not asked or isinstance(source, Variant | Model) or (isinstance(source, str | Path) and _is_bundle(str(source))):
        return asked
    live = not isinstance(source, str | Path)
    reads = ("states", "example") if live else getattr(_format_of(str(source)), "reads", ())
    return tuple(name for name in asked if name not in reads)


def shared(sources: Sequence[Any], request: ModelRequest) -> list[ModelRequest]:
    """Return how each of several sources is opened: with what it reads, and with what none of them reads, to refuse."""
    left = [set(unread(source, request)) for source in sources]
    lost = set.intersection(*left) if left else set()
    none = ModelRequest()
    return [replace(request, **{name: getattr(none, name) for name in names - lost}) for names in left]


def _is_bundle(text: str) -> bool:
    return (Path(text) / "manifest.json").is_file()


def _format_of(text: str) -> Format:
    formats: list[Format] = plugins.every("formats")
    found = next((each for each in formats if each.claims(text)), None)
    if found is not None:
        return found
    known = "ONNX (.onnx), OpenVINO (.xml), PyTorch (package.module:factory, .pt2) and Hugging Face folders"
    if not Path(text).exists() and ":" not in text:
        raise BadInput(f"there is no model file {text}; check the path (trimtab reads {known})")
    raise BadInput(f"{text} is no model that trimtab reads: it reads {known}")


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
    """Return name, shape and dtype of what a live module takes, from data that it is to be fed with; () if unknown.

    Arrays are named like the inputs of `forward`, or they are a single one that feeds its first input.

    Raises:
        BadInput: The data can't be read, or lacks an input of `forward`.
    """
    from trimtab.data.sources import first_items
    from trimtab.formats.torch_tracing import forward_inputs

    if data is None or isinstance(data, Task):
        return ()
    found = first_items(data, *forward_inputs(module))
    return tuple((name, (1, *array.shape[1:]), _example_dtype(array)) for name, array in found.items())


def _example_dtype(array: Array) -> str:
    return "float32" if array.dtype == np.float64 else array.dtype.name  # what the data is cast to later on


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
