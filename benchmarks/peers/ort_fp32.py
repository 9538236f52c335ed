"""ONNX Runtime as it comes: the model as given, all defaults."""

import shutil

from common import arguments, record

if __name__ == "__main__":
    given = arguments(__doc__)
    record(given.output, shutil.copy(given.model, given.output / "model.onnx"), {"runtime": "onnxruntime"})
