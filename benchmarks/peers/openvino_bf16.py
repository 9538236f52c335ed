"""OpenVINO, converted with its defaults and told to compute in bf16, which it chooses by itself where AMX is found."""

import openvino
from common import arguments, record

if __name__ == "__main__":
    given = arguments(__doc__)
    model = given.output / "model.xml"
    openvino.save_model(openvino.convert_model(given.model), model)
    record(given.output, model, {"runtime": "openvino", "precision": "bf16"})
