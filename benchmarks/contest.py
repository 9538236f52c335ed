"""Ours and the peers on one model: each prepared by its own command, judged alike, timed in turn in one session."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import assets
from pages import HERE, stamp
from trimtab.core.codec import loads
from trimtab.core.errors import TrimtabError
from trimtab.core.files import digest_files, make_folder, write_text
from trimtab.core.machine import machine as this_machine
from trimtab.core.protocols import Array
from trimtab.core.values import Goal, NoWorse, Result, Settings, Task, Variant, content_digest
from trimtab.meters.feed import timing_inputs
from trimtab.meters.judge import judge, reference_labels
from trimtab.workbench.opening import ModelRequest, open_model
from trimtab.workbench.proof import answers_on
from trimtab.workbench.timing import Timing, TimingPlan, time_finally


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Another tool by its documented defaults: the script that makes its model, and what it starts from."""

    name: str
    script: str
    flags: tuple[str, ...] = ()
    torch: bool = False

    @property
    def key(self) -> str:
        """The name of its folder."""
        return "-".join((self.script, *(flag.strip("-") for flag in self.flags)))

    def command(self, asset: assets.Asset, output: Path) -> list[str]:
        """Return the command line that makes the peer's model and runs alone."""
        given = ["--model", str(asset.factory if self.torch else asset.model)]
        if self.torch and asset.weights is not None:
            given += ["--weights", str(asset.weights)]
        given += ["--calibration", str(asset.calibration), "--output", str(output), *self.flags]
        return [sys.executable, str(HERE / "peers" / f"{self.script}.py"), *given]


PEERS = (
    Peer(name="onnxruntime fp32", script="ort_fp32"),
    Peer(name="onnxruntime static int8", script="ort_static_int8"),
    Peer(name="onnxruntime static int8, unsigned activations", script="ort_static_int8", flags=("--unsigned",)),
    Peer(name="onnxruntime dynamic int8", script="ort_dynamic_int8"),
    Peer(name="OpenVINO fp32", script="openvino_fp32"),
    Peer(name="OpenVINO bf16", script="openvino_bf16"),
    Peer(name="OpenVINO + NNCF int8", script="nncf_int8"),
    Peer(name="torch.compile", script="torch_compile", torch=True),
    Peer(name="torchao PT2E int8", script="torchao_int8", torch=True),
)
TRANSFORMER = replace(PEERS[6], flags=("--transformer",))


def peers(asset: assets.Asset) -> tuple[Peer, ...]:
    """Return the peers of an asset: NNCF's documentation asks for its transformer scheme where there is one."""
    text = asset.name.startswith("minilm")
    return tuple(TRANSFORMER if text and peer.script == "nncf_int8" else peer for peer in PEERS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One that takes part: its command, its variant when it could be made, and how its answers were judged.

    `seconds` is what making it took; `reason` why it does not pass, empty when it does.
    """

    name: str
    command: str
    variant: Variant | None = None
    quality: NoWorse | None = None
    seconds: float = 0.0
    reason: str = ""

    @property
    def passes(self) -> bool:
        """Whether it is proven to keep the goal."""
        return self.quality is not None and self.quality.proven


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """A finished `trimtab optimize`: its command, its result, and what it took by the clock on the wall.

    `seconds` is None when the run was killed and continued: then nobody held the clock.
    """

    command: str
    output: Path
    result: Result
    seconds: float | None


def kept(folder: Path, asset: assets.Asset, budget: str) -> Path:
    """Return where the work on an asset is kept: apart for every machine, version, code, model and budget."""
    code = (HERE / "peers", HERE / "models", HERE / "networks.py")
    return folder.absolute() / stamp(*code, digest_files([asset.model]), budget)


def search(command: Sequence[str], output: Path) -> Search:
    """Run a command that optimizes into `output`, or continue it, or return what it found before."""
    finished, clock, begun = output / "result.json", output / "wall.json", output / "begun"
    shown = shlex.join(command)
    if not (finished.is_file() and clock.is_file()):
        print(f"$ {shown}", flush=True)
        continued = begun.exists()
        make_folder(output)
        begun.touch()
        start = time.monotonic()
        done = subprocess.run([str(Path(sys.executable).with_name(command[0])), *command[1:]], check=False)
        if done.returncode not in (0, 3):
            raise SystemExit(f"{shown} failed with exit code {done.returncode}")
        write_text(clock, json.dumps(None if continued else time.monotonic() - start))
    result = loads(Result, finished.read_text())
    return Search(command=shown, output=output, result=result, seconds=json.loads(clock.read_text()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """What all that take part share: the model as given, the items, the goal, and a folder for what is finished."""

    asset: assets.Asset
    original: Variant
    task: Task
    goal: Goal
    folder: Path

    @property
    def change(self) -> str:
        """What heads a column of changes of the metric with their intervals, whose lower end is what is proven."""
        return f"{self.task.metric}, pt ({100 * (1 - 2 * self.goal.error):g} %)"


def course(asset: assets.Asset, found: Search, folder: Path) -> Course:
    """Return what a search ran on, so that everybody is held against the very same items and goal."""
    result = found.result
    assert result.as_given.variant is not None
    return Course(asset=asset, original=result.as_given.variant, task=result.task, goal=result.goal, folder=folder)


def ours(found: Search, course: Course) -> Entry:
    """Return the bundle that a search wrote, judged like everybody else."""
    seconds = sum(seconds for name, seconds in found.result.spent if not name.startswith("of it"))
    entry = Entry(name="trimtab", command=found.command, seconds=found.seconds or seconds)
    if found.result.winner is None:
        return replace(entry, reason=f"no variant was proven: {found.result.verdict}")
    return judged(replace(entry, variant=open_model(found.output, course.folder / "bundle")), course)


def made(peer: Peer, course: Course) -> Entry:
    """Return what a peer makes of the model, judged; the command is run once and its output is kept."""
    output = course.folder / "peers" / peer.key
    command = peer.command(course.asset, output)
    shown = shlex.join(["python", str(Path(command[1]).relative_to(HERE.parent)), *command[2:]])
    entry = Entry(name=peer.name, command=shown)
    clock = output / "seconds.json"
    if not clock.is_file():
        print(f"$ {shown}", flush=True)
        start = time.monotonic()
        log = make_folder(output) / "log.txt"
        with log.open("w") as file:
            done = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False)
        if done.returncode:
            return replace(entry, reason=f"could not be made: {_last_line(log)}")
        write_text(clock, json.dumps(time.monotonic() - start))
    entry = replace(entry, seconds=float(json.loads(clock.read_text())))
    try:
        return judged(replace(entry, variant=opened(output)), course)
    except TrimtabError as error:
        return replace(entry, reason=f"can't be run: {error}")


def opened(output: Path) -> Variant:
    """Return the variant that a peer's record describes: its model and how that is run."""
    held = json.loads((output / "peer.json").read_text())
    weights = Path(held["weights"]) if held.get("weights") else None
    variant = open_model(held["model"], output / "opened", ModelRequest(weights=weights))
    return variant.on(Settings(**held["settings"]))


def judged(entry: Entry, course: Course) -> Entry:
    """Return the entry with the verdict of the same certificate on the same items that `trimtab optimize` proves on."""
    assert entry.variant is not None
    print(f"judging {entry.name}", flush=True)
    task, split = course.task, course.task.split("certify")
    if split is None:
        raise SystemExit(f"{course.asset.name} has too few items to certify anything")
    original = answers_on(task, split, course.original, course.goal, course.folder)
    outputs = answers_on(task, split, entry.variant, course.goal, course.folder)
    labels: Array = reference_labels(task, split, original)
    names = (entry.variant.key, course.original.key)
    quality = judge(task, split, labels, original, outputs, goal=course.goal, names=names)
    return replace(entry, quality=quality, reason="" if quality.proven else quality.reason)


def timed(entries: Sequence[Entry], course: Course, seconds: float, processes: int = 5) -> Timing:
    """Time everyone who has a variant in one interleaved session, the first one as the control; resumable."""
    variants = [entry.variant for entry in entries if entry.variant is not None]
    inputs = [timing_inputs(variant, course.task, course.goal.workload) for variant in variants]
    name = content_digest([variant.key for variant in variants], this_machine().digest, seconds, processes)
    plan = TimingPlan(
        folder=course.folder / "timing" / name, seconds=seconds, margin=course.goal.margin, processes=processes
    )
    print(f"timing {len(variants)} variants in turn, {processes} fresh processes each or more", flush=True)
    return time_finally(variants, inputs, plan)


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else "no message"
