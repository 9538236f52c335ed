"""Runs ONNX models with ONNX Runtime on the CPU."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from trimtab.core.engine import unsupported
from trimtab.core.errors import BadInput
from trimtab.core.protocols import Arrays, Engine
from trimtab.core.values import Machine, Settings, Variant, Workload

_NOISE = re.compile(r"^\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : |/\S+:\d+ [\w:~<>(), &*]+\) ")


class OnnxRuntime:
    """ONNX Runtime's CPU execution provider."""

    name = "onnxruntime"
    native_formats = ("onnx",)

    def refuses(self, variant: Variant) -> str | None:
        """Refuse what is not ONNX, other devices, and settings that it doesn't have."""
        if variant.model.format != "onnx":
            return f"onnxruntime runs onnx models, this one is {variant.model.format}"
        return unsupported(variant.settings, "threads", "spinning", "fusion")

    def settings(self, machine: Machine, workload: Workload) -> Sequence[Settings]:
        """Return the defaults, every number of threads that halves the cores, no spinning, and no fusion."""
        threads = [machine.cores]
        while threads[-1] > 1:
            threads.append(threads[-1] // 2)
        defaults = Settings(runtime=self.name)
        tuned = [Settings(runtime=self.name, threads=count) for count in threads]
        return [
            defaults,
            *tuned,
            Settings(runtime=self.name, spinning=False),
            Settings(runtime=self.name, fusion=False),
        ]

    def load(self, variant: Variant) -> Engine:
        """Return the session; each call maps input names to output names."""
        import onnxruntime

        onnxruntime.disable_telemetry_events()
        settings = variant.settings
        wanted = onnxruntime.SessionOptions()
        wanted.log_severity_level = 3
        if settings.threads is not None:
            wanted.intra_op_num_threads = settings.threads
        if settings.spinning is not None:
            wanted.add_session_config_entry("session.intra_op.allow_spinning", "1" if settings.spinning else "0")
        if not settings.fusion:
            wanted.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            session = onnxruntime.InferenceSession(str(variant.model.path), wanted, providers=["CPUExecutionProvider"])
        except _errors() as error:
            raise BadInput(f"onnxruntime can't run this model: {_cause(str(error))}") from error
        return _Engine(session)


def _errors() -> tuple[type[Exception], ...]:
    """Return what ONNX Runtime raises when it can't build a session; its errors share no base of their own."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    names = ("Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NoSuchFile", "NotImplemented")
    return (*(getattr(state, name) for name in names), state.RuntimeException)


def _cause(message: str) -> str:
    """Return the words of an error without its number and the source file that it comes from."""
    return _NOISE.sub("", " ".join(message.split()))[:300]


class _Engine:
    def __init__(self, session: Any) -> None:
        self._run = session.run
        self._names = [output.name for output in session.get_outputs()]

    def __call__(self, inputs: Arrays, /) -> dict[str, NDArray[Any]]:
        return dict(zip(self._names, self._run(None, inputs), strict=True))
