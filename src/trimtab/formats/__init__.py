"""Reads and writes models: ONNX, OpenVINO, PyTorch and Hugging Face, one file each."""
