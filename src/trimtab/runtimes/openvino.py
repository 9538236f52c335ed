"""Runs ONNX and OpenVINO models with OpenVINO on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from numpy.typing import NDArray

from trimtab.core.engine import unsupported
from trimtab.core.errors import BadInput, MissingExtra
from trimtab.core.hints import OPENVINO_PRECISIONS, SPARSE_WEIGHTS, STATIC_ENGINES, openvino_hints
from trimtab.core.process import silence_telemetry
from trimtab.core.protocols import Arrays, Engine
from trimtab.core.values import Machine, Settings, Variant, Workload, options

_SPARSE = 0.5  # the share of zeros from which packed weights are tried

Shapes = tuple[tuple[str, tuple[int, ...]], ...]


class OpenVinoRuntime:
    """OpenVINO's CPU plug-in. Without a precision hint it may choose bf16 by itself; its engines tell which it is."""

    name = "openvino"
    native_formats = ("openvino",)
    startup_s = 0.3

    def refuses(self, variant: Variant) -> str | None:
        """Refuse formats that it can't read, other devices, and settings that it doesn't have."""
        if variant.model.format not in ("onnx", "openvino"):
            return f"openvino runs onnx and openvino models, this one is {variant.model.format}"
        if variant.settings.precision not in (None, *OPENVINO_PRECISIONS):
            return f"precision {variant.settings.precision!r} is none of {', '.join(OPENVINO_PRECISIONS)}"
        shapes = [spec.shape for spec in variant.model.signature.inputs]
        if variant.settings.static_shapes and all(isinstance(size, int) for shape in shapes for size in shape):
            return "the shapes of this model are static as it is"
        if SPARSE_WEIGHTS in dict(variant.settings.extra) and "sparsify" not in {s.technique for s in variant.steps}:
            return "its packed weights are for models that sparsify has made sparse"
        return unsupported(variant.settings, "threads", "streams", "precision", "static_shapes", SPARSE_WEIGHTS)

    def settings(self, machine: Machine, workload: Workload) -> Sequence[Settings]:
        """Return fp32, then bf16 and fp16 where the processor computes them, static shapes, and one thread.

        With AMX also packed weights, for models that were made sparse: OpenVINO unpacks them there for int8 products.

        Streams serve calls that come at the same time. Calls are timed one after the other, so none are offered.
        """
        bf16 = {"amx_bf16", "avx512_bf16"} & set(machine.flags)
        fp16 = {"amx_fp16", "avx512_fp16"} & set(machine.flags)
        precisions = ["fp32", *(["bf16"] if bf16 else []), *(["fp16"] if fp16 else [])]
        found = [Settings(runtime=self.name, precision=precision) for precision in precisions]
        found += [Settings(runtime=self.name, precision=name, static_shapes=True) for name in precisions[:2]]
        if machine.cores > 1:
            found += [Settings(runtime=self.name, precision=precision, threads=1) for precision in precisions[:2]]
        if "amx_int8" in machine.flags:
            found.append(Settings(runtime=self.name, precision="fp32", extra=options({SPARSE_WEIGHTS: _SPARSE})))
        return found

    def load(self, variant: Variant) -> Engine:
        """Return the compiled model; each call maps input names to output names."""
        silence_telemetry()
        try:
            import openvino
        except ImportError as error:
            raise MissingExtra("openvino", "openvino", "running with OpenVINO") from error
        core = openvino.Core()
        names = [spec.name for spec in variant.model.signature.outputs]

        def made(shapes: Shapes = ()) -> _Engine:
            try:
                model = core.read_model(variant.model.path)
                if shapes:
                    model.reshape(dict(shapes))
                return _Engine(core.compile_model(model, "CPU", openvino_hints(variant.settings)), names)
            except RuntimeError as error:
                raise BadInput(f"openvino can't compile this model: {_cause(str(error))}") from error

        return _Static(made) if variant.settings.static_shapes else made()


class _Static:
    """Compiles the model anew for shapes that it hasn't seen, and keeps the engines of the last few.

    An engine that knows its shapes plans its memory once; on a transformer that is worth 15 % of the time of a call.
    """

    def __init__(self, make: Callable[[Shapes], _Engine]) -> None:
        self._make = make
        self._engines: dict[Shapes, _Engine] = {}

    @property
    def precision(self) -> str | None:
        """The type that it computes in, by the word of the last engine; None before the first call."""
        return next((engine.precision for engine in reversed(self._engines.values())), None)

    def __call__(self, inputs: Arrays, /) -> dict[str, NDArray[Any]]:
        shapes = tuple([(name, array.shape) for name, array in inputs.items()])
        engine = self._engines.get(shapes)
        if engine is None:
            engine = self._make(shapes)
            while len(self._engines) >= STATIC_ENGINES:
                del self._engines[next(iter(self._engines))]
            self._engines[shapes] = engine
        return engine(inputs)


class _Engine:
    def __init__(self, compiled: Any, names: list[str]) -> None:
        if len(names) != len(compiled.outputs):
            raise BadInput(f"openvino sees {len(compiled.outputs)} outputs, the model says {len(names)}: {names}")
        self._request = compiled.create_infer_request()  # what it belongs to lives as long as the request
        self._infer = self._request.infer
        self._names = names
        chosen = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()  # its own choice without a hint
        self.precision = next((name for name, hint in OPENVINO_PRECISIONS.items() if hint == chosen), None)

    def __call__(self, inputs: Arrays, /) -> dict[str, NDArray[Any]]:
        results = self._infer(inputs, share_inputs=True)
        return dict(zip(self._names, results.to_tuple(), strict=True))  # by port it takes 5 µs for each output


def _cause(message: str) -> str:
    """Return the line of an OpenVINO error that says something: the last one."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return lines[-1].removeprefix("-- ")[:200] if lines else "no reason given"
