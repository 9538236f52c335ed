"""Measures what this machine can do at most: multiply-accumulates per second by data type, and memory bandwidth.

Every engine multiplies the same large matrices in a process of its own; the best of them is the peak, because a ceiling
is what the best known code reaches (S. Williams et al., "Roofline", CACM 52, 2009). Bandwidth is the triad of STREAM
(J. McCalpin, 1995): a = b + s·c over arrays larger than the last-level cache.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import numpy as np

from trimtab.core.errors import TrimtabError
from trimtab.core.machine import machine
from trimtab.core.process import Limits, Process
from trimtab.core.protocols import Array
from trimtab.core.values import Machine, Reading
from trimtab.meters.readings import unavailable

DTYPES = ("fp32", "bf16", "int8")

SIDE = 1024
"""Rows and columns of the matrices: large enough to keep every unit busy, small enough for a slow machine."""

REPEATS = 5
_WARM_CALLS = 2
_GRACE_S = 5.0
_BLOCK = 1 << 14  # numbers per numpy call, so that the product s·c never leaves the inner caches

Call = Callable[[], object]
Rates = dict[str, list[float]]


def peaks(seconds: float = 15.0, engines: Sequence[str] | None = None) -> tuple[Reading, ...]:
    """Return `peak_macs` of each data type (MAC/s; its place is the type) and `peak_bandwidth` (B/s).

    The value is the best repetition of the best engine; low and high are the range of that engine's repetitions. Takes
    about `seconds`: an engine whose turn comes later is left out. A type that no engine here can do is unavailable.
    """
    here = machine()
    end = time.monotonic() + seconds
    share_s = seconds / 40
    found, troubles = _asked("Triad", (here.memory_bytes, here.cores), ("triad",), share_s, end)
    bandwidth = _reading("peak_bandwidth", {"numpy triad": found.get("triad", [])}, here, troubles, "B/s")
    by_type: dict[str, Rates] = {dtype: {} for dtype in DTYPES}
    left_out = []
    for engine in ENGINES if engines is None else engines:
        if find_spec(engine) is None:
            left_out.append(f"{engine} (not installed)")
            continue
        found, troubles = _asked("Multiplier", (engine, here.cores), DTYPES, share_s, end)
        left_out += [f"{engine} ({trouble})" for trouble in troubles]
        for dtype, rates in found.items():
            by_type[dtype][engine] = rates
    macs = [_reading("peak_macs", by_type[dtype], here, left_out, "MAC/s", dtype) for dtype in DTYPES]
    return (*macs, bandwidth)


def _asked(
    worker: str, arguments: tuple[object, ...], what: Sequence[str], share_s: float, end: float
) -> tuple[Rates, list[str]]:
    """Return the rates of each thing that a worker process could measure, and what went wrong."""
    found: Rates = {}
    left_s = end - time.monotonic()
    if left_s <= 0:
        return found, ["no time left"]
    limits = Limits(start_s=left_s + _GRACE_S, call_s=left_s + _GRACE_S)
    with Process(f"{__name__}:{worker}", *arguments, limits=limits) as process:
        try:
            for name in what:
                if rates := process.call("rates", name, share_s):
                    found[name] = rates
        except TrimtabError as error:
            return found, [str(error)]
    return found, []


def _reading(
    name: str, by_engine: Mapping[str, Sequence[float]], here: Machine, left_out: Sequence[str], unit: str,
    place: str | None = None,
) -> Reading:  # fmt: skip
    """Return the best engine's best repetition with the range of its repetitions."""
    measured = {engine: rates for engine, rates in by_engine.items() if rates}
    missing = f"; left out: {', '.join(left_out)}" if left_out else ""
    if not measured:
        return unavailable(name, f"no engine here can do it{missing}", unit, place)
    best = max(measured, key=lambda engine: max(measured[engine]))
    rates = measured[best]
    return Reading(
        name=name,
        value=max(rates),
        unit=unit,
        direction="higher",
        low=min(rates),
        high=max(rates),
        samples=len(rates),
        source=best,
        scope=f"best of {', '.join(measured)} on {here.cores} cores, range of {len(rates)} repetitions{missing}",
        place=place,
    )


def _repeated(call: Call, work: float, seconds: float) -> list[float]:
    """Return work per second of a call, from repetitions that together take about `seconds`."""
    for _ in range(_WARM_CALLS):
        call()
    rates = []
    for _ in range(REPEATS):
        start, calls = time.perf_counter(), 0
        while calls == 0 or time.perf_counter() - start < seconds / REPEATS:
            call()
            calls += 1
        rates.append(calls * work / (time.perf_counter() - start))
    return rates


class Multiplier:
    """Multiplies matrices with one engine; lives in a process of its own.

    Args:
        engine: one of `ENGINES`.
        threads: how many threads it may use.
    """

    def __init__(self, engine: str, threads: int) -> None:
        self._engine = engine
        self._threads = threads
        self._random = np.random.default_rng(0)

    def rates(self, dtype: str, seconds: float) -> list[float]:
        """Return MAC/s of every repetition, empty when the engine has no such type."""
        call = ENGINES[self._engine](dtype, self._threads, self._random)
        return _repeated(call, float(SIDE) ** 3, seconds) if call else []


class Triad:
    """Computes a = b + s·c over large arrays with several threads; lives in a process of its own."""

    def __init__(self, memory_bytes: int, threads: int) -> None:
        # two times the last-level cache each, so that three of them can't stay in it; never much of the memory
        size = max(64 << 20, min(2 * last_level_cache_bytes(), memory_bytes // 16)) // 8
        self._arrays = [np.full(size, value) for value in (0.0, 1.0, 2.0)]
        self._threads = threads

    def rates(self, what: str, seconds: float) -> list[float]:
        """Return bytes per second of every repetition, counting two arrays read and one written."""
        size = len(self._arrays[0])
        edges = np.linspace(0, size, self._threads + 1).astype(int)
        parts = [[array[start:end] for array in self._arrays] for start, end in pairwise(edges)]
        with ThreadPoolExecutor(self._threads) as pool:
            return _repeated(lambda: list(pool.map(_triad, parts)), 3.0 * 8 * size, seconds)


def _triad(arrays: Sequence[np.ndarray[tuple[int], np.dtype[np.float64]]]) -> None:
    target, one, other = arrays
    product = np.empty(_BLOCK)
    for start in range(0, len(target), _BLOCK):
        rows = slice(start, min(start + _BLOCK, len(target)))
        scaled = np.multiply(other[rows], 3.0, out=product[: rows.stop - start])
        np.add(one[rows], scaled, out=target[rows])


def last_level_cache_bytes(root: Path = Path("/")) -> int:
    """Return the size of the largest cache of the first core, 32 MiB when the system does not tell."""
    sizes = []
    for file in (root / "sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        text = file.read_text().strip()
        unit = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}.get(text[-1:], 1)
        digits = text.rstrip("KMG")
        if digits.isdigit():
            sizes.append(int(digits) * unit)
    return max(sizes, default=32 << 20)


def _numpy(dtype: str, threads: int, random: np.random.Generator) -> Call | None:
    """Numpy's own library: the floor that is always there."""
    if dtype != "fp32":
        return None
    left, right = (random.random((SIDE, SIDE), dtype=np.float32) for _ in range(2))
    return partial(np.matmul, left, right, out=np.empty_like(left))


def _onnxruntime(dtype: str, threads: int, random: np.random.Generator) -> Call | None:
    if dtype == "bf16":
        return None
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    shape = [SIDE, SIDE]
    left: Array = random.integers(0, 256, shape).astype(np.uint8)
    right: Array = random.integers(-127, 128, shape).astype(np.int8)
    kind, given, made = "MatMulInteger", TensorProto.UINT8, TensorProto.INT32
    if dtype == "fp32":
        left, right = left.astype(np.float32), right.astype(np.float32)
        kind, given, made = "MatMul", TensorProto.FLOAT, TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node(kind, ["x", "w"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", given, shape)],
        [helper.make_tensor_value_info("y", made, shape)],
        [numpy_helper.from_array(right, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return partial(session.run, None, {"x": left})


def _openvino(dtype: str, threads: int, random: np.random.Generator) -> Call | None:
    import openvino
    from openvino import opset13 as ops

    core = openvino.Core()
    if dtype == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        return None  # it would compute in fp32 without saying so

    def quantized(value: object, low: float, high: float, levels: int) -> object:
        low_, high_ = (ops.constant(np.float32(bound)) for bound in (low, high))
        return ops.fake_quantize(value, low_, high_, low_, high_, levels)

    x = ops.parameter([SIDE, SIDE], openvino.Type.f32, name="x")
    weights = ops.constant(random.uniform(-1, 1, (SIDE, SIDE)).astype(np.float32))
    operands = (x, weights)
    if dtype == "int8":
        operands = (quantized(x, 0.0, 2.55, 256), quantized(weights, -1.27, 1.27, 255))
    model = openvino.Model([ops.matmul(*operands, False, False)], [x], "product")
    hints = {
        "INFERENCE_PRECISION_HINT": "bf16" if dtype == "bf16" else "f32",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
    }
    request = core.compile_model(model, "CPU", hints).create_infer_request()
    return partial(request.infer, {0: random.random((SIDE, SIDE), dtype=np.float32)}, share_inputs=True)


def _torch(dtype: str, threads: int, random: np.random.Generator) -> Call | None:
    import torch

    torch.set_num_threads(threads)
    left, right = (torch.from_numpy(random.random((SIDE, SIDE), dtype=np.float32)) for _ in range(2))
    if dtype == "int8":
        return None  # its int8 product is private and slower than that of the others
    if dtype == "bf16":
        left, right = left.bfloat16(), right.bfloat16()
    return partial(torch.mm, left, right, out=torch.empty_like(left))


ENGINES: dict[str, Callable[[str, int, np.random.Generator], Call | None]] = {
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
    "torch": _torch,
    "numpy": _numpy,
}
"""The engines that are asked, in this order: package to the function that makes a call, None where it can't."""
