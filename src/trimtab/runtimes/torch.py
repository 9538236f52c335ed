"""Runs PyTorch modules and exported programs eagerly, as PyTorch does by itself."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trimtab.core.engine import unsupported
from trimtab.core.errors import BadInput
from trimtab.core.protocols import Arrays, Engine
from trimtab.core.values import Machine, Settings, TensorSpec, Variant, Workload, options
from trimtab.formats.torch_tracing import FOREIGN_ERRORS, caller, first_line, import_torch, load_live

FORMATS = ("torch", "torch-export", "huggingface")
_PRECISIONS = (None, "fp32", "bf16")


class TorchRuntime:
    """PyTorch eager on the CPU. `precision="bf16"` is autocast; `channels_last=true` lays images out as NHWC."""

    name = "torch"
    native_formats = FORMATS

    def refuses(self, variant: Variant) -> str | None:
        """Refuse formats that aren't PyTorch's, other devices, and settings that it doesn't know."""
        return refusal(self.name, variant)

    def settings(self, machine: Machine, workload: Workload) -> Sequence[Settings]:
        """Return the defaults, images as NHWC, bf16 where the processor computes it, and one thread.

        Channels-last is refused later for models without an image input.
        """
        nhwc = options(channels_last=True)
        found = [Settings(runtime=self.name), Settings(runtime=self.name, extra=nhwc)]
        if {"amx_bf16", "avx512_bf16"} & set(machine.flags):
            found += [
                Settings(runtime=self.name, precision="bf16"),
                Settings(runtime=self.name, precision="bf16", extra=nhwc),
            ]
        if machine.cores > 1:
            found.append(Settings(runtime=self.name, threads=1))
        return found

    def load(self, variant: Variant) -> Engine:
        """Return the engine; sets the number of threads of this process when the settings give one."""
        return TorchEngine(variant)


def refusal(runtime: str, variant: Variant) -> str | None:
    """Say why PyTorch can't run a variant, or None."""
    settings = variant.settings
    if variant.model.format not in FORMATS:
        return f"{runtime} runs PyTorch models, this one is {variant.model.format}"
    if settings.precision not in _PRECISIONS:
        return f"precision {settings.precision!r} is none of fp32, bf16"
    nhwc = dict(settings.extra).get("channels_last", False)
    if not isinstance(nhwc, bool):
        return f"channels_last is true or false, not {nhwc!r}"
    if nhwc and not _images(variant):
        return "channels_last needs an input with four axes (images)"
    return unsupported(settings, "threads", "precision", "channels_last")


def _images(variant: Variant) -> list[str]:
    return [spec.name for spec in variant.model.signature.inputs if len(spec.shape) == 4]


class TorchEngine:
    """Maps named arrays to named arrays; outputs share the memory of PyTorch's tensors."""

    def __init__(self, variant: Variant, prepare: Callable[[Any], Any] = lambda module: module) -> None:
        torch = import_torch("running a PyTorch model")
        settings = variant.settings
        if settings.threads is not None:
            torch.set_num_threads(settings.threads)
        self._torch = torch
        self._nhwc: Sequence[str] = _images(variant) if dict(settings.extra).get("channels_last") else ()
        self._bf16 = settings.precision == "bf16"
        self._inputs = variant.model.signature.inputs

        def laid_out(module: Any) -> Any:
            return prepare(module.to(memory_format=torch.channels_last) if self._nhwc else module)

        self._call = caller(load_live(variant.model), variant.model.signature, laid_out)

    def __call__(self, inputs: Arrays, /) -> dict[str, NDArray[Any]]:
        """Run once under `torch.inference_mode`."""
        torch = self._torch
        given = {spec.name: self._tensor(inputs, spec) for spec in self._inputs}
        autocast = torch.autocast("cpu", dtype=torch.bfloat16) if self._bf16 else contextlib.nullcontext()
        try:
            with torch.inference_mode(), autocast:
                results = self._call(given)
        except FOREIGN_ERRORS as error:
            raise BadInput(f"PyTorch can't run this model on these inputs: {first_line(error)}") from error
        return self._arrays(results)

    def _tensor(self, inputs: Arrays, spec: TensorSpec) -> Any:
        array = inputs[spec.name]
        # PyTorch takes no negative strides, and warns that a read-only array may be written to through the tensor.
        usable = array.flags.writeable and min(array.strides, default=0) >= 0
        tensor = self._torch.from_numpy(array if usable else array.copy())
        return tensor.contiguous(memory_format=self._torch.channels_last) if spec.name in self._nhwc else tensor

    def _arrays(self, results: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
        narrow = self._torch.bfloat16  # numpy has no such type
        found = {name: (value.float() if value.dtype == narrow else value).numpy() for name, value in results.items()}
        return found if not self._nhwc else {name: np.ascontiguousarray(value) for name, value in found.items()}
