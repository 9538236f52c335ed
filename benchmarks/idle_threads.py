"""What do threads that spin while they idle do to a comparison? python benchmarks/idle_threads.py

The same pairs are timed in turn twice, once as trimtab does it, every worker stopped while it is not its turn, once
with all of them left running: onnxruntime against itself, and onnxruntime against OpenVINO on the digits demo.
"""

from __future__ import annotations

import argparse
import time
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import numpy as np

import assets
import pages
from trimtab.core.values import Ratio, Settings, Task, Variant, Workload
from trimtab.meters.feed import timing_inputs
from trimtab.runtimes.session import ProcessSession
from trimtab.workbench.opening import open_model
from trimtab.workbench.timing import TimingPlan, time_finally

GAPS_S = (0.005, 0.02, 0.05, 0.2)


def compared(variants: list[Variant], folder: Path, seconds: float, stopped: bool) -> tuple[Ratio, Ratio]:
    """Return OpenVINO's times over onnxruntime's, and onnxruntime's over its own."""
    inputs = [timing_inputs(variant, Task(), Workload()) for variant in variants]
    plan = TimingPlan(folder=folder, seconds=seconds, margin=0.03)
    with nullcontext() if stopped else patch.object(ProcessSession, "pause", lambda self: None):
        timing = time_finally(variants, inputs, plan)
    return timing.ratio(1, 0), timing.self_test()


def idle_cpu_s(path: Path) -> dict[float, float]:
    """Return the processor time that onnxruntime uses in the seconds after a call, by how many they are."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    given = session.get_inputs()[0]
    feed = {given.name: np.zeros([size if isinstance(size, int) else 1 for size in given.shape], np.float32)}
    found = {}
    for gap in GAPS_S:
        for _ in range(50):
            session.run(None, feed)
        start = time.process_time()
        time.sleep(gap)
        found[gap] = time.process_time() - start
    return found


def body(found: dict[str, tuple[Ratio, Ratio]], idle: dict[float, float]) -> list[str]:
    """Return the page."""
    columns = ("workers that wait", "OpenVINO over onnxruntime", "noise", "onnxruntime over itself")
    rows = [
        [name, pages.times(ratio), "" if ratio.noise is None else f"{ratio.noise:.1f}", pages.times(control)]
        for name, (ratio, control) in found.items()
    ]
    used = ", ".join(f"{1000 * cpu:.0f} ms in the {1000 * gap:.0f} ms after it" for gap, cpu in idle.items())
    return [
        "Two engines, timed in turn in blocks of about 15 ms. When a call has ended, onnxruntime's threads spin on for "
        f"a while: processor time of {used}. Whoever comes next has to share the cores with them, and it is "
        "onnxruntime that looks faster for it.", "", *pages.table(columns, rows, right=(2,)), "",
        "```sh", "python benchmarks/idle_threads.py", "```",
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=30.0, help="for each of the two timings")
    parser.add_argument("--results", type=Path, default=pages.RESULTS)
    given = parser.parse_args()
    pages.own_home()
    asset = assets.prepare("digits")
    with TemporaryDirectory(prefix="trimtab-idle-") as temporary:
        folder = Path(temporary)
        original = open_model(asset.model, folder / "model")
        variants = [original.on(Settings(runtime=name)) for name in ("onnxruntime", "openvino")]
        found = {
            name: compared(variants, folder / name, given.seconds, stopped)
            for name, stopped in (("stopped", True), ("left running", False))
        }
    idle = idle_cpu_s(asset.model)
    data: dict[str, Any] = {"ratios": found, "idle_cpu_s": {str(gap): cpu for gap, cpu in idle.items()}}
    pages.publish("idle-threads", "Threads that spin while they idle", body(found, idle), data, given.results)


if __name__ == "__main__":
    main()
