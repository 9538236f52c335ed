"""torchao's static int8 for x86: export, prepare_pt2e, calibrate, convert_pt2e; to be run by torch.compile, frozen.

The program uses operators that exist only where torchao was imported, and freezing is a setting of the process, so a
small factory (`frozen.py`) is written beside it.
torchao is found where PYTHONPATH says: pip install --no-deps --target benchmarks/work/torchao torchao
"""

import sys
from pathlib import Path
from types import ModuleType

import torch
from common import arguments, feeds, record

sys.path.append(str(Path(__file__).parents[1]))
sys.path.append(str(Path(__file__).parents[1] / "work" / "torchao"))

from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import (
    X86InductorQuantizer,
    get_default_x86_inductor_quantization_config,
)

import networks

FACTORY = """\
\"\"\"Loads model.pt2 as torchao's documentation runs it: its operators registered, TorchInductor told to freeze.\"\"\"

import sys
from pathlib import Path

import torch
from torch import nn

sys.path.append({torchao!r})
import torchao.quantization.pt2e.quantizer.x86_inductor_quantizer  # registers the operators and their fusions

torch._inductor.config.freezing = True
example_inputs = {{name: torch.zeros(shape, dtype=kind) for name, (shape, kind) in {inputs}.items()}}
output_names = {outputs!r}


class Quantized(nn.Module):
    def __init__(self):
        super().__init__()
        self.program = torch.export.load(Path(__file__).with_name("model.pt2")).module()
        self.program.train = lambda mode=True: self.program  # an exported program has one mode and refuses the call

    def forward(self, {names}):
        return self.program({passed})


def build():
    return Quantized()
"""


def factory_code(code: ModuleType) -> str:
    """Return the code of the factory for a model's module: its inputs at one item, its outputs."""
    shapes = {name: f"({tuple(tensor.shape)}, {tensor.dtype})" for name, tensor in code.example_inputs.items()}
    inputs = "{" + ", ".join(f"{name!r}: {text}" for name, text in shapes.items()) + "}"
    passed = ", ".join(f"{name}={name}" for name in shapes)
    torchao = str(Path(__file__).resolve().parents[1] / "work" / "torchao")
    return FACTORY.format(
        torchao=torchao, inputs=inputs, outputs=code.output_names, names=", ".join(shapes), passed=passed
    )


if __name__ == "__main__":
    given = arguments(__doc__)
    factory = Path(given.model).name
    weights = networks.read_safetensors(given.weights) if given.weights else None
    items = [{name: torch.from_numpy(array) for name, array in feed.items()} for feed in feeds(given.calibration)]
    with torch.no_grad():
        program = torch.export.export(networks.build(factory, weights), (), items[0])
        quantizer = X86InductorQuantizer().set_global(get_default_x86_inductor_quantization_config())
        prepared = prepare_pt2e(program.module(), quantizer)
        for item in items:
            prepared(**item)
        quantized = torch.export.export(convert_pt2e(prepared), (), items[0])
    model = given.output / "model.pt2"
    torch.export.save(quantized, model)
    frozen = given.output / "frozen.py"
    frozen.write_text(factory_code(networks.code_of(factory)))
    record(given.output, f"{frozen}:build", {"runtime": "torch-compile"})
