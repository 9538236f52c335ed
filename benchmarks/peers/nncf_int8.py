"""NNCF's int8 for OpenVINO: nncf.quantize with its defaults; --transformer is what its documentation asks for there."""

import nncf
import openvino
from common import arguments, feeds, record

if __name__ == "__main__":
    given = arguments(__doc__, "--transformer")
    kind = {"model_type": nncf.ModelType.TRANSFORMER} if given.transformer else {}
    dataset = nncf.Dataset(list(feeds(given.calibration)))
    quantized = nncf.quantize(openvino.convert_model(given.model), dataset, **kind)
    model = given.output / "model.xml"
    openvino.save_model(quantized, model)
    record(given.output, model, {"runtime": "openvino"})
