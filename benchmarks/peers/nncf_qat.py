"""NNCF's quantization-aware training alone: nncf.quantize of the module, then epochs at a learning rate of 1e-5.

That is what its documentation asks for ("a few epochs with a small learning rate, for example, 1e-5"); its example for
ResNet-18 uses Adam. OpenVINO converts what comes of it.
"""

import os

import nncf
import openvino
import torch
from common import record
from lesson import Lesson

EPOCHS, RATE, CALIBRATED = 5, 1e-5, 300

if __name__ == "__main__":
    os.environ.setdefault("NNCF_EXTENSION_LOAD_TIMEOUT", "900")  # its operators are compiled at the first use
    lesson = Lesson(__doc__, ("--shift", int, 0))
    dataset = nncf.Dataset([lesson.items[row : row + 1] for row in range(CALIBRATED)])
    model = nncf.quantize(lesson.model, dataset)
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
    lesson.train(
        model, optimizer, EPOCHS, lambda epochs: torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0),
        shift=lesson.given.shift,
    )  # fmt: skip
    path = lesson.given.output / "model.xml"
    converted = openvino.convert_model(
        model.eval(), example_input=lesson.chosen[:1], input=[-1, *lesson.chosen.shape[1:]]
    )
    converted.inputs[0].tensor.set_names({"image"})
    converted.outputs[0].tensor.set_names({"logits"})
    openvino.save_model(converted, path)
    record(lesson.given.output, path, {"runtime": "openvino"})
