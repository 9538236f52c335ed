"""PyTorch eager in fp32, on the module as its factory builds it: what people run who export nothing."""

from common import arguments, record

if __name__ == "__main__":
    given = arguments(__doc__)
    record(given.output, given.model, {"runtime": "torch"}, weights=given.weights)
