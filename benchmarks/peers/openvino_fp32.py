"""OpenVINO, converted with its defaults and told to compute in fp32."""

import openvino
from common import arguments, record

if __name__ == "__main__":
    given = arguments(__doc__)
    model = given.output / "model.xml"
    openvino.save_model(openvino.convert_model(given.model), model, compress_to_fp16=False)
    record(given.output, model, {"runtime": "openvino", "precision": "fp32"})
