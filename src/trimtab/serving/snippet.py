"""The stand-alone code that runs a bundle with only its engine installed."""

from __future__ import annotations

from trimtab.core.values import Signature, Variant

_HEAD = '''"""Runs this model with only its engine installed: {install}."""

from pathlib import Path

import numpy as np
'''

_ONNXRUNTIME = '''import onnxruntime

options = onnxruntime.SessionOptions()
{options}session = onnxruntime.InferenceSession(
    str(Path(__file__).parent / "{path}"), options, providers=["CPUExecutionProvider"]
)


def run(inputs):
    """Return the outputs by name; inputs are arrays by name, the first axis is the batch."""
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, inputs)))
'''

_OPENVINO = '''import openvino

hints = {hints}
compiled = openvino.Core().compile_model(str(Path(__file__).parent / "{path}"), "CPU", hints)
request = compiled.create_infer_request()


def run(inputs):
    """Return the outputs by name; inputs are arrays by name, the first axis is the batch."""
    results = request.infer(inputs)
    return {{name: results[port] for name, port in zip({names}, compiled.outputs)}}
'''

_OTHER = '''import trimtab

model = trimtab.load(Path(__file__).parent)


def run(inputs):
    """Return the outputs by name; inputs are arrays by name, the first axis is the batch."""
    return model(inputs)
'''

_TAIL = """

if __name__ == "__main__":
    outputs = run({example})
    print({{name: value.shape for name, value in outputs.items()}})
"""

_PRECISIONS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}


def snippet(variant: Variant) -> str:
    """Return the code of `run.py` for a variant whose model path is relative to the bundle."""
    settings, signature = variant.settings, variant.model.signature
    path = variant.model.path.as_posix()
    if settings.runtime == "onnxruntime":
        lines = ""
        if settings.threads is not None:
            lines += f"options.intra_op_num_threads = {settings.threads}\n"
        if settings.spinning is not None:
            value = "1" if settings.spinning else "0"
            lines += f'options.add_session_config_entry("session.intra_op.allow_spinning", "{value}")\n'
        if not settings.fusion:
            lines += "options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL\n"
        install, body = "pip install onnxruntime numpy", _ONNXRUNTIME.format(options=lines, path=path)
    elif settings.runtime == "openvino":
        hints: dict[str, object] = {"PERFORMANCE_HINT": "LATENCY"}
        if settings.precision is not None:
            hints["INFERENCE_PRECISION_HINT"] = _PRECISIONS[settings.precision]
        if settings.threads is not None:
            hints["INFERENCE_NUM_THREADS"] = settings.threads
        if settings.streams is not None:
            hints["NUM_STREAMS"] = settings.streams
        names = [spec.name for spec in signature.outputs]
        install, body = "pip install openvino numpy", _OPENVINO.format(hints=hints, path=path, names=names)
    else:
        install, body = "pip install 'trimtab[torch]'", _OTHER
    return _HEAD.format(install=install) + body + _TAIL.format(example=_example(signature))


def _example(signature: Signature) -> str:
    """Return code for inputs of zeros of the right names, shapes and dtypes."""
    parts = []
    for spec in signature.inputs:
        if spec.role == "constant":
            continue
        shape = ", ".join(str(size if isinstance(size, int) else 1) for size in spec.shape)
        parts.append(f'"{spec.name}": np.zeros([{shape}], dtype="{spec.dtype}")')
    return "{" + ", ".join(parts) + "}"
