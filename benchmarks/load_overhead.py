"""What a loaded bundle adds to a raw engine call: python benchmarks/load_overhead.py [--rounds 400]

A network of a single operator, so that hardly anything but the call is timed. In every round the raw engine and
`trimtab.load(folder)` are called a few times each, in random order; the difference of a round is the difference of
their medians. Told are the median difference of all rounds and its 95 % bootstrap interval, in microseconds.
The call adds at most 5 µs when the upper bound is below that.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

import pages
from pages import Row
from trimtab.core.machine import machine
from trimtab.core.protocols import Opening
from trimtab.core.values import Settings, Task, Variant
from trimtab.formats.onnx import OnnxFormat
from trimtab.serving.bundle import load, write_bundle

CALLS = 20
ALLOWED_US = 5.0
Inputs = dict[str, NDArray[Any]]


def write_network(path: Path) -> None:
    """Write max(x, 0) of 16 numbers."""
    sizes = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 16]) for name in ("x", "y")}
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "relu", [sizes["x"]], [sizes["y"]])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def raw_onnxruntime(path: Path) -> Callable[[Inputs], Any]:
    """Return the plain call of a session with the settings of the bundle."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda inputs: session.run(None, inputs)


def raw_openvino(path: Path) -> Callable[[Inputs], Any]:
    """Return the plain call of an inference request with the settings of the bundle."""
    import openvino

    hints = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    request = openvino.Core().compile_model(str(path), "CPU", hints).create_infer_request()
    return lambda inputs: request.infer(inputs, share_inputs=True)


ENGINES = {
    "onnxruntime": (raw_onnxruntime, Settings(runtime="onnxruntime", threads=1)),
    "openvino": (raw_openvino, Settings(runtime="openvino", threads=1, precision="fp32")),
}


def median_us(call: Callable[[Inputs], Any], inputs: Inputs) -> float:
    """Return the median time of a few calls in microseconds."""
    times = []
    for _ in range(CALLS):
        start = time.perf_counter_ns()
        call(inputs)
        times.append(time.perf_counter_ns() - start)
    return float(np.median(times)) / 1e3


def differences(one: Callable[[Inputs], Any], other: Callable[[Inputs], Any], rounds: int) -> NDArray[np.float64]:
    """Return other − one of every round, in microseconds."""
    rng = np.random.default_rng(0)
    inputs = {"x": np.ones((1, 16), dtype=np.float32)}
    found = []
    for _ in range(rounds):
        if rng.random() < 0.5:
            first, second = median_us(one, inputs), median_us(other, inputs)
        else:
            second, first = median_us(other, inputs), median_us(one, inputs)
        found.append(second - first)
    return np.array(found[rounds // 10 :])


def told(engine: str, found: NDArray[np.float64]) -> Row:
    """Return the median of an engine's differences with its bootstrap interval, in microseconds."""
    drawn = np.median(np.random.default_rng(1).choice(found, (2000, len(found))), axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975]).tolist()
    return {"engine": engine, "added_us": float(np.median(found)), "low": low, "high": high, "rounds": len(found)}


def measured(rounds: int) -> list[Row]:
    """Return what a call of a loaded bundle adds, for every engine."""
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        for name, (raw, settings) in ENGINES.items():
            folder = Path(temporary) / name
            folder.mkdir()
            write_network(folder / "relu.onnx")
            model = OnnxFormat().open(str(folder / "relu.onnx"), Opening(folder=folder))
            variant, bundle = Variant(model=model, settings=settings), folder / "bundle"
            write_bundle(
                bundle, variant, Task(), measurement=None, certificate=None, machine=machine(), version="benchmark"
            )
            rows.append(told(name, differences(raw(folder / "relu.onnx"), load(bundle), rounds)))
    return rows


def body(rows: list[Row]) -> list[str]:
    """Return the page."""
    return [
        "`trimtab.load(folder)(inputs)` against a raw call of the engine with the same settings, on a network of one "
        f"operator; in turn, {CALLS} calls each a round.", "",
        *pages.table(
            ("engine", "added µs a call (95 %)", "rounds"),
            [[row["engine"], f"{row['added_us']:+.2f} ({row['low']:+.2f} to {row['high']:+.2f})", row["rounds"]]
             for row in rows],
            right=(1, 2),
        ), "",
        *(
            pages.kept(row["high"] <= ALLOWED_US,
                       f"{row['engine']}: at most {ALLOWED_US:g} µs added to a call (upper bound {row['high']:.2f} µs)")
            for row in rows
        ), "",
        "```sh", "python benchmarks/load_overhead.py", "```",
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=400)
    parser.add_argument("--results", type=Path, default=pages.RESULTS)
    given = parser.parse_args()
    rows = measured(given.rounds)
    pages.publish("load-overhead", "What a loaded bundle adds to a call", body(rows), {"engines": rows}, given.results)


if __name__ == "__main__":
    main()
