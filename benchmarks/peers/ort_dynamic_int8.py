"""ONNX Runtime's dynamic int8: pre-processing as its documentation asks, then quantize_dynamic's defaults."""

from common import arguments, prepare_onnx, record
from onnxruntime.quantization import quantize_dynamic

if __name__ == "__main__":
    given = arguments(__doc__)
    prepared, model = given.output / "prepared.onnx", given.output / "model.onnx"
    prepare_onnx(given.model, prepared)
    quantize_dynamic(prepared, model)
    prepared.unlink()
    record(given.output, model, {"runtime": "onnxruntime"})
