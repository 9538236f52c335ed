"""Case studies, told with every command, number and picture: python benchmarks/study.py fashion|bbc

Every step is one command of trimtab; a step that has ended is not done again, one that was killed goes on. Work is kept
in benchmarks/work/study/, the story is written to docs/studies/.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

import assets
import pages
from pages import HERE, WORK
from trimtab.core.codec import loads
from trimtab.core.files import make_folder, write_text
from trimtab.core.machine import machine as this_machine
from trimtab.core.values import Comparison, Reading, Result, Trial
from trimtab.reports import figures
from trimtab.reports.terminal import comparison_table
from trimtab.reports.words import with_interval

STUDIES = HERE.parent / "docs" / "studies"
WIDTH = 100  # columns of what commands print
STUDENTS = {"mobilenetv2": "0.5", "shufflenetv2": "0.5", "efficientnet-lite0": "0.35"}
"""Light networks of known designs, by the multiplier of their channels."""

TOLD = ("accuracy", "latency", "throughput", "bytes", "parameters", "macs", "peak_memory")
"""What the table of sizes, times and memory has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A command of trimtab, what is said before it, and what of its output is shown: the last lines of it.

    `output` is the folder that it writes; `pictures` are files below it, each with what it shows.
    """

    title: str
    about: str
    command: tuple[str, ...]
    output: Path
    lines: int = 40
    pictures: tuple[tuple[str, str], ...] = ()


class Story:
    """A page that is written step by step."""

    def __init__(self, name: str, title: str, about: Sequence[str]) -> None:
        self._name, self._pictures = name, STUDIES / name
        self.lines = [f"# {title}", "", *about, ""]
        self.seconds = 0.0

    def add(self, step: Step) -> None:
        """Do a step and tell it."""
        printed, seconds = done(step)
        self.seconds += seconds
        if step.title:
            self.lines += [f"## {step.title}", ""]
        shown = [line.rstrip() for line in printed.splitlines() if line.strip()]
        left_out = ["…"] if len(shown) > step.lines else []
        self.lines += [step.about, "", "```console", f"$ {shlex.join(step.command)}", *left_out, *shown[-step.lines :]]
        self.lines += ["```", "", f"*{seconds / 60:.1f} minutes.*", ""]
        for path, caption in step.pictures:
            self.picture(step.output / path, caption)

    def picture(self, path: Path, caption: str) -> None:
        """Show a picture; it is copied beside the page."""
        name = f"{path.parent.name}-{path.name}"
        make_folder(self._pictures)
        shutil.copy(path, self._pictures / name)
        self.lines += [f"![{caption}]({self._name}/{name})", ""]

    def tell(self, *lines: str) -> None:
        """Say something."""
        self.lines += [*lines, ""]

    def write(self) -> None:
        """Write the page."""
        self.tell(
            f"All of it took {self.seconds / 60:.0f} minutes; `make study` does it again.",
            "",
            *pages.machine_lines(this_machine()),
        )
        page = pages.from_root("\n".join(self.lines))
        write_text(STUDIES / f"{self._name}.md", page)
        print(page)


def done(step: Step) -> tuple[str, float]:
    """Return what a command printed and the seconds it took, now or when it was done before."""
    record = step.output.parent / f"{step.output.name}.step.json"
    told = json.dumps([*step.command])
    if record.is_file() and (held := json.loads(record.read_text()))["command"] == told:
        return held["printed"], held["seconds"]
    print(f"$ {shlex.join(step.command)}", flush=True)
    make_folder(step.output.parent)
    environment = {**os.environ, "COLUMNS": str(WIDTH), "NO_COLOR": "1", "TERM": "dumb"}
    start = time.monotonic()
    program = str(Path(sys.executable).with_name(step.command[0]))
    ran = subprocess.run([program, *step.command[1:]], stdout=subprocess.PIPE, text=True, env=environment, check=False)
    seconds = time.monotonic() - start
    if ran.returncode not in (0, 3):
        raise SystemExit(f"{shlex.join(step.command)} failed with exit code {ran.returncode}")
    write_text(record, json.dumps({"command": told, "printed": ran.stdout, "seconds": seconds}))
    return ran.stdout, seconds


def fashion(work: Path) -> Story:
    """Tell how a ResNet-20 is trained on Fashion-MNIST, made faster, and compared with light networks."""
    data, model = str(assets.fashion_mnist(work)), f"{assets.networks.MODELS}/fashion.py:resnet20"
    given = ("--data", data, "--preprocess", "mnist")
    weights = ("--weights", str(work / "trained" / "weights.safetensors"))
    story = Story("fashion", "Case study: ResNet-20 on Fashion-MNIST", [
        "60,000 small pictures of clothes in ten classes to learn from, 10,000 to be judged by. Of the first 5,000 "
        "choose between variants and 300 calibrate; the official test items prove, and are looked at once.",
    ])  # fmt: skip
    story.add(trained(model, given, data, work))
    story.add(memory(model, given, data, work))
    story.add(optimized(model, (*given, *weights), data, work, "1pt", "22m"))
    found(story, work / "optimized")
    story.tell("## Light networks of known designs", "", (
        "MobileNetV2, ShuffleNetV2 and EfficientNet-Lite, fitted to small pictures, each learns from the same items. "
        "They are the usual answer to *make it lighter*."))  # fmt: skip
    original = applied(story, "export-onnx", model, (*given, *weights), work / "original", ())
    bundles = [original, work / "optimized", *(light(story, model, given, weights, kind, work) for kind in STUDENTS)]
    compared(story, bundles, data, work)
    return story


def trained(model: str, given: tuple[str, ...], data: str, work: Path) -> Step:
    """Return the training: augmented, warmed up, begun with Adam and ended with SGD."""
    options = (
        "optimizer=adam-then-sgd", "switch=epoch:4", "lr=0.004", "sgd_lr=0.05", "schedule=cosine", "warmup=1",
        "augment=crop+flip", "label_smoothing=0.05", "precision=bf16", "channels_last=true", "store=uint8",
    )  # fmt: skip
    words = [word for option in options for word in ("-o", option)]
    output = work / "trained"
    return Step(
        title="Train a network",
        about="Cropped and mirrored pictures, a warm-up, Adam to begin with and SGD to end with, in bf16; the items "
        "are kept in bytes.",
        command=("trimtab", "train", model, *given, "--train", data, "--epochs", "10", *words, "--output", str(output)),
        output=output,
        pictures=(
            ("curves.png", "Loss, accuracy and learning rate by epoch"),
            ("confusion.png", "Which class was taken for which, before and after training"),
        ),
    )


def memory(model: str, given: tuple[str, ...], data: str, work: Path) -> Step:
    """Return the look into the memory of a step."""
    output = work / "memory"
    return Step(
        title="Where the memory of a training step goes",
        about="What one step of a batch of 256 holds, phase by phase, and what each measure saves.",
        command=("trimtab", "train", model, *given, "--train", data, "-o", "batch=256", "--memory",
                 "--output", str(output)),
        output=output,
        pictures=(("memory.png", "Bytes of weights, gradients, optimizer and activations by phase"),),
    )  # fmt: skip


def optimized(model: str, given: tuple[str, ...], data: str, work: Path, most: str, budget: str) -> Step:
    """Return the search."""
    output = work / "optimized"
    return Step(
        title="Make it faster, and prove that it is no worse",
        about=f"One command with a goal: the least time of a call, at most {most} of accuracy lost, within {budget}. "
        "It may prune, factorize, substitute, drop layers or put a student in the network's place, train it again with "
        "the original as its teacher, quantize it, and choose engine and settings.",
        command=("trimtab", "optimize", model, *given, "--train", data, "--max-drop", most, "--budget", budget,
                 "--output", str(output)),
        output=output,
        lines=60,
    )  # fmt: skip


def found(story: Story, run: Path) -> None:
    """Show every figure of a search, and tell sizes, times and memory of both baselines and the winner."""
    captions = {
        "tradeoff": "Time and accuracy of everything that was tried",
        "confusion": "Which class is taken for which, before and after",
        "bars": "Time, size and quality side by side",
        "latency": "How the times of single calls are spread",
        "radar": "The two baselines and the winner in all that was read",
        "throughput": "Items a second",
    }
    result = loads(Result, (run / "result.json").read_text())
    for path in figures.save(figures.every(result), run / "figures", ["png"]):
        story.picture(path, captions.get(path.stem, path.stem))

    winner = next((trial for trial in result.trials if trial.name == result.winner), None)
    trials = [each for each in (result.as_given, result.untouched, winner) if each is not None]
    rows = [[name, *(_told(trial, name) for trial in trials)] for name in TOLD]
    story.tell(*pages.table(("", *(trial.name for trial in trials)), rows))


def _told(trial: Trial, name: str) -> str:
    """Return a reading of a trial with its interval."""
    found: Reading | None = trial.measurement.reading(name) if trial.measurement is not None else None
    return "" if found is None or found.value is None else with_interval(found)


def applied(
    story: Story, technique: str, model: str, given: Sequence[str], output: Path, options: Sequence[str]
) -> Path:
    """Apply a technique, tell what it printed, and return the bundle."""
    words = [word for option in options for word in ("-o", option)]
    command = ("trimtab", "apply", technique, model, *given, *words, "--output", str(output))
    story.add(Step(title="", about="", command=command, output=output, lines=4))
    return output


def light(story: Story, model: str, given: tuple[str, ...], weights: tuple[str, ...], kind: str, work: Path) -> Path:
    """Put a light network in the place of the model, train and export it; return the bundle."""
    trust, data = "--trust-pickle", given[1]
    options = (f"kind={kind}", f"width={STUDENTS[kind]}")
    student = applied(story, "student", model, (*given, *weights), work / f"{kind}-untrained", options)
    learnt = work / f"{kind}-trained"
    applied(
        story, "fine-tune", str(student), (*given, "--train", data, trust), learnt, ("epochs=3", "augment=crop+flip")
    )
    return applied(story, "export-onnx", str(learnt), (*given, trust), work / kind, ())


def compared(story: Story, bundles: Sequence[Path], data: str, work: Path) -> None:
    """Time and judge some bundles side by side."""
    command = ("trimtab", "compare", *map(str, bundles), "--data", data, "--preprocess", "mnist", "--json")
    step = Step(title="Side by side", about="", command=command, output=work / "compared")
    printed, seconds = done(step)
    story.seconds += seconds
    comparison = loads(Comparison, printed)
    text = io.StringIO()
    Console(file=text, width=WIDTH).print(comparison_table(comparison))
    story.tell("## Side by side", "", "Each on the engine that its bundle names, timed in turn:", "", "```console",
               f"$ {shlex.join(command[:-1])}", *text.getvalue().rstrip().splitlines(), "```")  # fmt: skip
    for path in figures.save(figures.every(comparison), work / "compared", ["png"]):
        story.picture(path, f"{path.stem} of all that were compared")


def bbc(work: Path) -> Story:
    """Tell how MiniLM with a classification head is made faster on news of the BBC."""
    asset = assets.prepare("bbc")
    given = ("--weights", str(asset.weights), "--data", str(asset.data), *asset.options)
    story = Story("bbc", "Case study: MiniLM on BBC news", [
        "Articles of five kinds, and a sentence encoder of six layers (all-MiniLM-L6-v2) whose linear head was fitted "
        "on 1,000 of them. 300 choose between variants, the other articles prove.",
    ])  # fmt: skip
    story.add(optimized(str(asset.factory), given, str(asset.data), work, "2pt", "30m"))
    found(story, work / "optimized")
    return story


TOLD_BY: dict[str, Callable[[Path], Story]] = {"fashion": fashion, "bbc": bbc}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=TOLD_BY)
    given = parser.parse_args()
    pages.own_home()
    TOLD_BY[given.name](make_folder(WORK / "study" / given.name)).write()


if __name__ == "__main__":
    main()
