"""ONNX Runtime's static int8: pre-processing as its documentation asks for, then quantize_static with its defaults.

The defaults are QDQ nodes, signed 8-bit weights and activations, ranges from minimum and maximum. With --unsigned
activations are unsigned, which its documentation offers second.
"""

from collections.abc import Iterator

from common import Feed, arguments, feeds, prepare_onnx, record
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static


class Reader(CalibrationDataReader):
    """Hands out one feed at a time."""

    def __init__(self, items: Iterator[Feed]) -> None:
        self.items = items

    def get_next(self) -> Feed | None:
        return next(self.items, None)


if __name__ == "__main__":
    given = arguments(__doc__, "--unsigned")
    prepared, model = given.output / "prepared.onnx", given.output / "model.onnx"
    prepare_onnx(given.model, prepared)
    choice = {"activation_type": QuantType.QUInt8} if given.unsigned else {}
    quantize_static(prepared, model, Reader(feeds(given.calibration)), **choice)
    prepared.unlink()
    record(given.output, model, {"runtime": "onnxruntime"})
