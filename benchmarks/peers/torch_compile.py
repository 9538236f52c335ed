"""PyTorch's compiler with its defaults, on the module as its factory builds it."""

from common import arguments, record

if __name__ == "__main__":
    given = arguments(__doc__)
    record(given.output, given.model, {"runtime": "torch-compile"}, weights=given.weights)
