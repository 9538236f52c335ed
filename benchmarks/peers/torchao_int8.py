"""torchao's static int8 for x86: export, prepare_pt2e, calibrate, convert_pt2e; to be run by torch.compile, frozen.

torchao is found where PYTHONPATH says: pip install --no-deps --target benchmarks/work/torchao torchao
"""

import sys
from pathlib import Path

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
    record(given.output, model, {"runtime": "torch-compile"}, environment={"TORCHINDUCTOR_FREEZING": "1"})
