"""How much processor time does a good accuracy take? python benchmarks/time_to_accuracy.py [--seeds 5]

ResNet-8 on Fashion-MNIST until 90 % of the select items are right: `trimtab train` against a plain PyTorch loop
(peers/plain_loop.py), the same seeds, both judged after every quarter of an epoch, six epochs at most. One after the
other on a quiet machine. Resumable; work is kept in benchmarks/work/time_to_accuracy/.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

import assets
import pages
from pages import HERE, WORK, Journal, Row
from trimtab.core.files import make_folder
from trimtab.stats.paired import ratio
from trimtab.workbench.train import read_run

TARGET, EPOCHS, QUARTERS, WANTED = 0.9, 6, 4, 2.0
RECIPE = {
    "share": 0.25, "batch": 128, "optimizer": "adam", "lr": 0.006, "schedule": "cosine", "warmup": 1.0,
    "label_smoothing": 0.0, "precision": "bf16", "channels_last": "true", "weight_decay": 0.0,
}  # fmt: skip
QUARTERS_PLANNED = 8
"""Ours plans two epochs: its rate has decayed by then, and a plan that fails goes on to the cap with another."""


def plain(data: Path, seed: int) -> Row:
    """Return what the plain loop reaches."""
    command = [sys.executable, str(HERE / "peers" / "plain_loop.py"), str(data), "--seed", str(seed)]
    command += ["--target", str(TARGET), "--epochs", str(EPOCHS)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return {"quarters": json.loads(done.stdout.splitlines()[-1])}


def command(data: Path, seed: int, epochs: int, output: Path) -> list[str]:
    """Return our training, with epochs of a quarter of the items."""
    given = ["train", f"{assets.networks.MODELS}/fashion.py:resnet8", "--data", str(data), "--train", str(data)]
    recipe = [word for name, value in RECIPE.items() for word in ("-o", f"{name}={value}")]
    numbers = ["--preprocess", "mnist", "--epochs", str(epochs), "-o", f"seed={seed}"]
    return [str(Path(sys.executable).with_name("trimtab")), *given, *numbers, *recipe, "--output", str(output)]


def ours(data: Path, seed: int, folder: Path) -> Row:
    """Return what ours reaches, a second training included where the first ends below the target."""
    told: list[Row] = []
    for epochs in (QUARTERS_PLANNED, EPOCHS * QUARTERS - QUARTERS_PLANNED):
        output = folder / f"ours-{seed}-{epochs}"
        subprocess.run(command(data, seed, epochs, output), check=True, stdout=subprocess.DEVNULL)
        run = read_run(output)
        scores, spent = run.trace("accuracy"), run.trace("epoch_cpu_time")
        assert scores is not None
        assert spent is not None
        before = told[-1]["cpu_s"] if told else 0.0
        for accuracy, seconds in zip(scores.values, before + np.cumsum(spent.values), strict=True):
            told.append({"cpu_s": float(seconds), "accuracy": accuracy})
        shutil.rmtree(output)
        if max(scores.values) >= TARGET:
            break
    return {"quarters": told}


def reached(row: Row) -> tuple[float, bool]:
    """Return the processor seconds until the target, or all that was spent where it was never reached."""
    for quarter in row["quarters"]:
        if quarter["accuracy"] >= TARGET:
            return quarter["cpu_s"], True
    return row["quarters"][-1]["cpu_s"], False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=WORK / "time_to_accuracy")
    parser.add_argument("--results", type=Path, default=pages.RESULTS)
    given = parser.parse_args()
    pages.own_home()
    folder = make_folder(given.folder.absolute())
    data = folder / "fashion.npz"
    if not data.is_file():
        assets.fashion_mnist(folder)
    journal = Journal(folder / "journal.jsonl")
    key = pages.stamp(Path(__file__), HERE / "peers" / "plain_loop.py", HERE / "models" / "fashion.py")
    rows: dict[str, list[Row]] = {"ours": [], "plain": []}
    for seed in range(given.seeds):
        rows["plain"].append(journal.once(f"plain {seed} {key}", lambda seed=seed: plain(data, seed)))
        rows["ours"].append(journal.once(f"ours {seed} {key}", lambda seed=seed: ours(data, seed, folder)))
        print(seed, {name: reached(found[-1]) for name, found in rows.items()}, flush=True)
    publish(rows, command(data, 0, QUARTERS_PLANNED, folder / "N"), given.results)


def publish(rows: dict[str, list[Row]], shown: list[str], results: Path | None) -> None:
    """Write the page."""
    ends = {name: [reached(row) for row in found] for name, found in rows.items()}
    missed = {name: sum(not there for _, there in found) for name, found in ends.items()}
    seconds = {name: np.array([cpu for cpu, _ in found]) for name, found in ends.items()}
    found = ratio(seconds["plain"], seconds["ours"])
    cells = [
        [seed, *(f"{ends[name][seed][0]:.0f}{'' if ends[name][seed][1] else ' (never)'}" for name in ("plain", "ours")),
         f"{seconds['plain'][seed] / seconds['ours'][seed]:.2f}×"]
        for seed in range(len(seconds["ours"]))
    ]  # fmt: skip
    body = [
        f"ResNet-8 on Fashion-MNIST until {TARGET:.0%} of 5,000 select items are right, judged after every quarter of "
        f"an epoch, at most {EPOCHS} epochs; processor seconds of all threads, validation left out. Runs that never "
        f"get there count with all they spent: {missed['plain']} plain ones, {missed['ours']} of ours.", "",
        *pages.table(("seed", "plain loop, CPU s", "trimtab train, CPU s", "times"), cells, right=(1, 2, 3)), "",
        pages.kept(found.low >= WANTED and not missed["ours"],
                   f"at least {WANTED:g}× less processor time (lower bound, paired over seeds): "
                   f"{found.value:.2f}× ({found.low:.2f} to {found.high:.2f})"), "",
        "The plain loop: Adam with its defaults, fp32, the default layout, batch 64.", "",
        "```sh", " ".join(["trimtab", *shown[1:]]), "python benchmarks/peers/plain_loop.py DATA.npz", "```",
    ]  # fmt: skip
    pages.publish("time-to-accuracy", "Processor time to 90 %", body, {"rows": rows, "ratio": found}, results)


if __name__ == "__main__":
    main()
