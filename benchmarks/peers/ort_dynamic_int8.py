"""ONNX Runtime's dynamic int8: pre-processing as its documentation asks, then quantize_dynamic's defaults."""

from common import arguments, record
from onnxruntime.quantization import quantize_dynamic
from onnxruntime.quantization.shape_inference import quant_pre_process

if __name__ == "__main__":
    given = arguments(__doc__)
    prepared, model = given.output / "prepared.onnx", given.output / "model.onnx"
    quant_pre_process(given.model, prepared)
    quantize_dynamic(prepared, model)
    prepared.unlink()
    record(given.output, model, {"runtime": "onnxruntime"})
