"""What shared weights and a leaner training step save of memory: python benchmarks/memory.py [--replicas 1 2 4]

Replicas are processes that serve one network. Their memory is the proportional set size (PSS): of a page that n
processes share, each is charged 1/n. It is read when all of them have loaded their libraries, and again when all have
answered once; the difference is what serving the network takes. Weights are read into memory of each replica's own, or
mapped from the file, with what has to be switched off for that.

Training steps are those of `trimtab train --memory`, every measure in a few fresh processes.
"""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

import pages
from assets import prepare
from pages import Journal, Row
from trimtab.core.process import Process
from trimtab.data.request import DataRequest
from trimtab.data.task import open_task
from trimtab.training.memory import Measure, StepMemory, measures, step_memory
from trimtab.training.recipe import Recipe
from trimtab.workbench.opening import open_model

FOLDER = pages.WORK / "memory"
MODELS = pages.HERE / "models"
NETWORK = "resnet50"
WAYS = {
    "torch-own": "PyTorch, weights read",
    "torch-mapped": "PyTorch, weights mapped",
    "ort-own": "ONNX Runtime, as it comes",
    "ort-mapped": "ONNX Runtime, weights mapped, neither packed nor laid out anew",
}
LESS = 0.8  # of the weights' bytes that a further replica has to do without when they are mapped
CASES = (64, 4)
HALF = 0.5


class Replica:
    """Serves a network in the process that it lives in."""

    def __init__(self, way: str, folder: Path) -> None:
        self._way, self._folder = way, folder
        self._held: Any = None
        if way.startswith("ort"):
            import onnxruntime  # noqa: F401 (its memory is not the network's)
        else:
            self._net = _unfilled()

    def answer(self) -> None:
        """Load the weights, and answer once."""
        self._held = self._engine() if self._way.startswith("ort") else self._module()

    def pss(self) -> int:
        """Return the proportional set size of this process in bytes."""
        lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))

    def _engine(self) -> Any:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        if self._way == "ort-mapped":  # both make copies of the weights
            options.add_session_config_entry("session.disable_prepacking", "1")
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        name = "mapped.onnx" if self._way == "ort-mapped" else "own.onnx"
        session = ort.InferenceSession(str(self._folder / name), options, providers=["CPUExecutionProvider"])
        (given,) = session.get_inputs()
        session.run(None, {given.name: np.zeros((1, *given.shape[1:]), np.float32)})
        return session

    def _module(self) -> Any:
        import safetensors.torch
        import torch

        path = self._folder / "weights.safetensors"
        own = self._way == "torch-own"
        weights = safetensors.torch.load(path.read_bytes()) if own else safetensors.torch.load_file(path)
        self._net.load_state_dict(weights, assign=True)
        with torch.inference_mode():
            self._net.eval()(torch.zeros(1, 3, 224, 224))
        return self._net


def _unfilled() -> Any:
    """Return the network without weights, its libraries loaded and PyTorch's kernels warm."""
    import torch

    torch.set_num_threads(1)
    spec = importlib.util.spec_from_file_location(NETWORK, MODELS / f"{NETWORK}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with torch.device("meta"):
        network = module.ResNet50()
    with torch.inference_mode():
        torch.nn.Conv2d(1, 1, 3)(torch.zeros(1, 1, 8, 8))
    return network


def files(folder: Path) -> Path:
    """Write the network's weights as each way reads them, once, and return the folder."""
    if not (folder / "done").is_file():
        import onnx

        asset = prepare(NETWORK)
        assert asset.weights is not None
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "weights.safetensors").write_bytes(asset.weights.read_bytes())
        (folder / "own.onnx").write_bytes(asset.model.read_bytes())
        (folder / "mapped.bin").unlink(missing_ok=True)  # onnx appends to a file that is there
        onnx.save(
            onnx.load(asset.model), folder / "mapped.onnx", save_as_external_data=True, location="mapped.bin",
            size_threshold=1024,
        )  # fmt: skip
        (folder / "done").touch()
    return folder


def replicas(way: str, count: int, folder: Path) -> Row:
    """Return by how many bytes the PSS of so many replicas together rises when they load the network and answer."""
    with ExitStack() as stack:
        started = [stack.enter_context(Process("memory:Replica", way, folder)) for _ in range(count)]
        for replica in started:
            replica.start()
        before = [replica.call("pss") for replica in started]
        for replica in started:
            replica.call("answer")
        after = [replica.call("pss") for replica in started]
    return {"way": way, "replicas": count, "rise": sum(after) - sum(before)}


def items() -> dict[str, Any]:
    """Return images of noise with labels: what they show changes nothing of what they take."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (512, 28, 28), dtype=np.uint8)
    return {"image": images, "labels": np.arange(512) % 10, "split": np.repeat(["train", "test"], [384, 128])}


def step(batch: int, measure: Measure, runs: int) -> Row:
    """Return what a step of ResNet-18 takes under a measure: counted, and resident in every run."""
    model = open_model(f"{MODELS / 'fashion.py'}:resnet18", FOLDER / "fashion", None).model
    task = open_task(items(), model, FOLDER / "items", DataRequest(preprocess="mnist"))
    return {"batch": batch, **_row([step_memory(model, task, measure) for _ in range(runs)])}


def _row(found: Sequence[StepMemory]) -> Row:
    """Return one measure's bytes; what is counted is the same in every process."""
    first = found[0]
    if first.reason:
        raise SystemExit(f"{first.name}: {first.reason}")
    same = all((each.phases, each.peak) == (first.phases, first.peak) for each in found)
    return {
        "name": first.name,
        "phases": {phase.name: asdict(phase) | {"total": phase.total} for phase in first.phases},
        "peak": first.peak,
        "resident": [each.resident for each in found],
        "same": same,
    }


def further(rows: Sequence[Row], way: str) -> float:
    """Return how many bytes each replica after the first one adds."""
    rises = {row["replicas"]: row["rise"] for row in rows if row["way"] == way}
    fewest, most = min(rises), max(rises)
    return (rises[most] - rises[fewest]) / max(most - fewest, 1)


def megabytes(size: float) -> str:
    return f"{size / 1e6:,.1f}"


def shared_lines(rows: Sequence[Row], weights: int) -> list[str]:
    """Return the part of the page about replicas."""
    counts = sorted({row["replicas"] for row in rows})
    rises = {(row["way"], row["replicas"]): row["rise"] for row in rows}
    table = [
        [name, *(megabytes(rises[way, count]) for count in counts), megabytes(further(rows, way))]
        for way, name in WAYS.items()
    ]
    columns = ("", *(f"{count} replica{'s' * (count > 1)}" for count in counts), "each further one")
    verdicts = []
    for engine, name in (("torch", "PyTorch"), ("ort", "ONNX Runtime")):
        less = further(rows, f"{engine}-own") - further(rows, f"{engine}-mapped")
        said = f"{name}: a further replica takes {megabytes(less)} MB less when weights are mapped"
        verdicts.append(
            pages.kept(less >= LESS * weights, f"{said} (asked: {LESS:.0%} of the weights' {megabytes(weights)} MB)")
        )
    return [
        "## Weights shared by replicas", "",
        f"ResNet-50 (fp32, {megabytes(weights)} MB of weights), each replica a process; rise of the proportional set "
        "size of all of them together, in MB, from libraries loaded to one image answered.", "",
        *pages.table(columns, table, right=range(1, len(columns))), "", *verdicts, "",
    ]  # fmt: skip


def step_lines(rows: Sequence[Row]) -> list[str]:
    """Return the part of the page about training steps."""
    lines = ["## A training step", ""]
    for batch in dict.fromkeys(row["batch"] for row in rows):
        asked, *others = (row for row in rows if row["batch"] == batch)
        table = []
        for row in (asked, *others):
            resident = np.array(row["resident"]) / 1e6
            table.append([
                row["name"], megabytes(row["phases"]["forward"]["activations"]),
                megabytes(row["phases"]["forward"]["gradients"]), megabytes(row["peak"]),
                "" if row is asked else megabytes(asked["peak"] - row["peak"]),
                f"{np.median(resident):,.0f} ({resident.min():,.0f} to {resident.max():,.0f})",
            ])  # fmt: skip
        columns = ("", "activations", "gradients", "most in tensors", "saved", "resident (of all runs)")
        lines += [
            f"ResNet-18 for Fashion-MNIST (width 32, Adam), {batch} items, MB: held when the forward pass ends, the "
            "most at one moment of a step, and the rise of a fresh process's peak resident memory.", "",
            *pages.table(columns, table, right=range(1, len(columns))), "", *_verdicts(asked, others, batch), "",
        ]  # fmt: skip
    return lines


def _verdicts(asked: Row, others: Sequence[Row], batch: int) -> list[str]:
    named = {row["name"]: row for row in others}
    kept = named["gradients zeroed, not freed"]["phases"]["forward"]
    freed = kept["total"] - asked["phases"]["forward"]["total"]
    whole = asked["phases"]["forward"]["activations"]
    less = named["activation checkpointing"]["phases"]["forward"]["activations"]
    return [
        pages.kept(less <= HALF * whole, f"{batch} items: checkpointing keeps {megabytes(less)} of "
                   f"{megabytes(whole)} MB of activations (asked: at most {HALF:.0%})"),
        pages.kept(freed == kept["gradients"] > 0, f"{batch} items: freeing gradients keeps their "
                   f"{megabytes(freed)} MB out of the forward pass, to the byte"),
        pages.kept(all(row["same"] for row in (asked, *others)), f"{batch} items: all processes count the same bytes"),
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicas", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--runs", type=int, default=3, help="fresh processes for the resident memory of a measure")
    parser.add_argument("--results", type=Path, default=pages.RESULTS)
    given = parser.parse_args()
    pages.own_home()
    journal = Journal(FOLDER / "journal.jsonl")
    made_by = pages.stamp(Path(__file__), MODELS)
    folder = files(FOLDER / "files")
    shared = [
        journal.once(f"{made_by} {way} {count}", lambda way=way, count=count: replicas(way, count, folder))
        for way in WAYS for count in given.replicas
    ]  # fmt: skip
    taken = [
        journal.once(
            f"{made_by} {batch} items, {measure.name}, {given.runs} runs",
            lambda batch=batch, measure=measure: step(batch, measure, given.runs),
        )
        for batch in CASES
        for measure in measures(Recipe(batch=batch))
    ]
    weights = (folder / "weights.safetensors").stat().st_size
    body = [*shared_lines(shared, weights), *step_lines(taken), "```sh", "python benchmarks/memory.py", "```"]
    data = {"replicas": shared, "steps": taken, "weights": weights}
    pages.publish("memory", "Memory: shared weights, and a leaner step", body, data, given.results)


if __name__ == "__main__":
    main()
