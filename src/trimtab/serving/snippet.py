"""The code that runs a bundle: alone on ONNX Runtime and OpenVINO, through trimtab on other engines."""

from __future__ import annotations

from trimtab.core.hints import STATIC_ENGINES, openvino_hints
from trimtab.core.values import Settings, Signature, Variant

_HEAD = '''"""Runs this model with {needs} installed: {install}."""

from pathlib import Path

import numpy as np
'''

_ONNXRUNTIME = '''import onnxruntime

options = onnxruntime.SessionOptions()
{options}session = onnxruntime.InferenceSession(
    str(Path(__file__).parent / {path!r}), options, providers=["CPUExecutionProvider"]
)


def run(inputs):
    """Return the outputs by name; inputs are arrays by name, the first axis is the batch."""
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, inputs)))
'''

_OPENVINO = '''import openvino

hints = {hints}
compiled = openvino.Core().compile_model(str(Path(__file__).parent / {path!r}), "CPU", hints)
request = compiled.create_infer_request()


def run(inputs):
    """Return the outputs by name; inputs are arrays by name, the first axis is the batch."""
    results = request.infer(inputs)
    return {{name: results[port] for name, port in zip({names}, compiled.outputs)}}
'''

_OPENVINO_STATIC = '''import openvino

hints = {hints}
core, requests = openvino.Core(), {{}}


def compiled_for(shapes):
    """Return a request of the model compiled for the shapes of one call."""
    model = core.read_model(str(Path(__file__).parent / {path!r}))
    model.reshape(dict(shapes))
    return core.compile_model(model, "CPU", hints).create_infer_request()


def run(inputs):
    """Return the outputs by name; inputs are arrays by name, the first axis is the batch.

    The first call with new shapes compiles the model for them; the last {most} are kept.
    """
    shapes = tuple((name, array.shape) for name, array in inputs.items())
    if shapes not in requests:
        while len(requests) >= {most}:
            del requests[next(iter(requests))]
        requests[shapes] = compiled_for(shapes)
    results = requests[shapes].infer(inputs)
    return dict(zip({names}, results.to_tuple()))
'''

_OTHER = '''import trimtab

model = trimtab.load(Path(__file__).parent, trust_pickle=True)  # who runs this file trusts the bundle already


def run(inputs):
    """Return the outputs by name; inputs are arrays by name, the first axis is the batch."""
    return model(inputs)
'''

_TAIL = """

if __name__ == "__main__":
    outputs = run({example})
    print({{name: value.shape for name, value in outputs.items()}})
"""


def snippet(variant: Variant) -> str:
    """Return the code of `run.py` for a variant whose model path is relative to the bundle."""
    settings, signature = variant.settings, variant.model.signature
    path, needs = variant.model.path.as_posix(), f"only its engine ({settings.runtime})"
    if settings.runtime == "onnxruntime":
        install = "pip install onnxruntime numpy"
        body = _ONNXRUNTIME.format(options=_session_options(settings), path=path)
    elif settings.runtime == "openvino":
        install, names = "pip install openvino numpy", [spec.name for spec in signature.outputs]
        form = _OPENVINO_STATIC if settings.static_shapes else _OPENVINO
        body = form.format(hints=openvino_hints(settings), path=path, names=names, most=STATIC_ENGINES)
    else:
        install = "pip install 'trimtab[torch]'" if settings.runtime.startswith("torch") else "pip install trimtab"
        body, needs = _OTHER, f"trimtab and its engine ({settings.runtime})"
    return _HEAD.format(needs=needs, install=install) + body + _TAIL.format(example=_example(signature))


def _session_options(settings: Settings) -> str:
    """Return the lines that give a session of ONNX Runtime its settings."""
    lines = []
    if settings.threads is not None:
        lines.append(f"options.intra_op_num_threads = {settings.threads}\n")
    if settings.spinning is not None:
        value = "1" if settings.spinning else "0"
        lines.append(f'options.add_session_config_entry("session.intra_op.allow_spinning", "{value}")\n')
    if not settings.fusion:
        lines.append("options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL\n")
    return "".join(lines)


def _example(signature: Signature) -> str:
    """Return code for inputs of zeros of the right names, shapes and dtypes."""
    parts = []
    for spec in signature.inputs:
        if spec.role != "constant":
            shape = [size if isinstance(size, int) else 1 for size in spec.shape]
            parts.append(f"{spec.name!r}: np.zeros({shape}, dtype={spec.dtype!r})")
    return "{" + ", ".join(parts) + "}"
