"""Does the search over trained networks find what is there? python benchmarks/search_quality.py [--seeds 100]

A grid of pruned and factorized networks is exhausted once: every one is timed and trained on every rung. Then the
search is replayed on that table with a clock of its own, with many seeds, for a third of the time that the grid took,
and beside it random search, which trains whatever it draws to the end. Resumable; work is kept in
benchmarks/work/search_quality/.
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

import assets
import pages
from pages import WORK, Journal, Row
from trimtab.core import plugins
from trimtab.core.files import make_folder
from trimtab.core.values import Goal, Measurement, NoWorse, Ratio, Reading, Step, Task, Trial, Variant, options
from trimtab.data.request import DataRequest
from trimtab.search import plan, study
from trimtab.search.race import Race
from trimtab.workbench.opening import ModelRequest
from trimtab.workbench.optimize import Effort, Job, prepare

RUNGS = (0.1, 0.3, 0.9)
"""Epochs of each rung: the table is for all seeds, so these are not chosen anew."""

GRID: dict[str, tuple[dict[str, Any], ...]] = {
    "prune": tuple(
        {"amount": amount, "scope": scope}
        for amount, scope in itertools.product((0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8), ("uniform", "global"))
    ),
    "factorize": tuple({"energy": energy} for energy in (0.5, 0.6, 0.7, 0.8, 0.9)),
}
MAX_DROP = 0.02
WITHIN, OF_SEEDS, SHARE = 1.05, 0.9, 1 / 3
RECIPE = ("batch=128", "optimizer=adam", "lr=0.003", "augment=crop+flip", "precision=bf16", "channels_last=true")


def trained(folder: Path) -> tuple[Path, Path]:
    """Return data and weights of a ResNet-20 that is trained for three epochs on Fashion-MNIST."""
    data = folder / "fashion.npz"
    if not data.is_file():
        assets.fashion_mnist(folder)
    output = folder / "resnet20"
    if not (output / "weights.safetensors").is_file():
        recipe = [word for option in RECIPE for word in ("-o", option)]
        model = f"{assets.networks.MODELS}/fashion.py:resnet20"
        command = [str(Path(sys.executable).with_name("trimtab")), "train", model, "--data", str(data)]
        command += ["--train", str(data), "--preprocess", "mnist", "--epochs", "3", "--output", str(output), *recipe]
        subprocess.run(command, check=True)
    return data, output / "weights.safetensors"


def opened(folder: Path) -> Race:
    """Return a race on that network, with the original and its export tried."""
    data, weights = trained(folder)
    job = Job(
        model=f"{assets.networks.MODELS}/fashion.py:resnet20",
        data=str(data),
        goal=Goal(max_drop=MAX_DROP),
        output=folder / "run",
        data_request=DataRequest(train=str(data), preprocess="mnist"),
        model_request=ModelRequest(weights=weights),
        effort=Effort(seconds=1e6),
    )
    race, _ = prepare(job, plan_progress())
    return race


def plan_progress() -> Any:
    """Return a progress that tells nobody."""
    from trimtab.search.progress import Silent

    return Silent()


def exported(race: Race, variant: Variant) -> Variant:
    """Return a variant as all are timed: exported to ONNX, on onnxruntime's defaults."""
    made = race.made(variant, Step(technique="export-onnx"))
    if made is None:
        raise SystemExit(f"{variant.label()} can't be exported: {race.trials[-1].reason}")
    (runtime,) = plan.toolbox(("onnxruntime", "export-onnx")).runtimes
    return made.on(runtime.settings(race.machine, race.goal.workload)[0])


def looked_at(race: Race, variant: Variant) -> Row:
    """Return time, loss and cost of a variant, whatever others are like."""
    race.names[1:] = []
    trial = race.run(exported(race, variant))
    if trial.screening is None or trial.quality is None or trial.measurement is None:
        raise SystemExit(f"{trial.name} can't be judged: {trial.reason}")
    export_s = race.making_s.get(trial.steps, 0.0)
    return {
        "time": trial.screening.value, "loss": -trial.quality.difference, "seconds": trial.seconds + export_s,
        "macs": trial.measurement.value("macs"),
    }  # fmt: skip


def walked(race: Race, technique: str, given: Mapping[str, Any]) -> Row:
    """Return what one network of the grid takes and loses, changed only and after every rung."""
    usual = plugins.defaults("techniques", technique)
    chosen = {name: value for name, value in given.items() if usual[name] != value}
    variant = race.made(race.shop.original, Step(technique=technique, options=options(chosen)))
    if variant is None:
        return {"technique": technique, "options": dict(given), "made_s": 0.0, "looks": []}
    row = {"technique": technique, "options": dict(given), "made_s": race.making_s[variant.steps]}
    looks = [{**looked_at(race, variant), "train_s": 0.0}]
    for epochs in RUNGS:
        learnt = race.made(variant, Step(technique="fine-tune", options=options(epochs=1, share=epochs)))
        if learnt is None:
            raise SystemExit(f"{variant.label()} can't be trained: {race.trials[-1].reason}")
        looks.append({**looked_at(race, learnt), "train_s": race.making_s[learnt.steps]})
        variant = learnt
    return {**row, "looks": looks}


def table(folder: Path) -> tuple[list[Row], Row]:
    """Return the rows of the whole grid, and the model as exported."""
    journal = Journal(folder / f"grid-{pages.stamp(RUNGS, repr(GRID), MAX_DROP)}.jsonl")
    wanted = [(name, given) for name, options_ in GRID.items() for given in options_]
    keys = [f"{name} {given}" for name, given in wanted]
    if not {"plain", *keys} <= set(journal.rows):
        race = opened(folder)
        try:
            race.run(race.shop.original)
            journal.once("plain", lambda: looked_at(race, race.shop.original))
            for key, (name, given) in zip(keys, wanted, strict=True):
                row = journal.once(key, lambda name=name, given=given: walked(race, name, given))
                print(key, [round(100 * look["loss"], 2) for look in row["looks"]], flush=True)
        finally:
            race.close()
    return [journal.rows[key] for key in keys if journal.rows[key]["looks"]], journal.rows["plain"]


@dataclass(slots=True, kw_only=True)
class Clock:
    """A budget of seconds that are told, not waited for."""

    seconds: float
    spent: float = 0.0
    reserve_s: float = 0.0

    def elapsed(self) -> float:
        """Return what was spent."""
        return self.spent

    def left(self) -> float:
        """Return what may still be spent."""
        return max(0.0, self.seconds - self.spent)


@dataclass(slots=True, kw_only=True)
class Replay(Race):
    """A race in which everything is looked up in the table: making, training, time and loss."""

    rows: list[Row] = field(default_factory=list)
    plain: Row = field(default_factory=dict)
    best_found: float = np.inf

    def made(self, parent: Variant, step: Step, share: float = 1.0) -> Variant | None:
        """Return what a step makes; a proposal stands for the network of the grid that is nearest to it."""
        if step.technique == "export-onnx":
            return parent.after(parent.model, step)
        if step.technique == "fine-tune":
            row, rung = self._row(parent.steps), 1 + sum(each.technique == "fine-tune" for each in parent.steps)
            self.budget.spent += row["looks"][rung]["train_s"]
            made = parent.after(parent.model, replace(step, seed=rung))
            self.making_s[made.steps] = row["looks"][rung]["train_s"]
            return made
        place = self._nearest(step)
        self.budget.spent += self.rows[place]["made_s"]
        model = replace(parent.model, digest=f"{parent.model.digest} {place}")
        made = parent.after(model, replace(step, options=options(self.rows[place]["options"])))
        self.making_s[made.steps] = self.rows[place]["made_s"]
        return made

    def enter(self, variant: Variant) -> None:
        """Try a variant: spend what that took, and note what was found."""
        row = (
            self._row(variant.steps)
            if variant.steps and variant.steps[0].technique in GRID
            else {"looks": [self.plain]}
        )
        look = row["looks"][sum(step.technique == "fine-tune" for step in variant.steps)]
        self.budget.spent += look["seconds"]
        trial = trial_of(variant, look, self.shop.task, self)
        self.journal.add(trial)
        self.names.append(trial.name)
        if trial.state == "kept" and self.budget.left() > 0 and "looks" in row:
            self.best_found = min(self.best_found, look["time"])

    def _row(self, steps: tuple[Step, ...]) -> Row:
        chosen = dict(steps[0].options)
        return next(
            row
            for row in self.rows
            if row["technique"] == steps[0].technique and options(row["options"]) == options(chosen)
        )

    def _nearest(self, step: Step) -> int:
        given = {**plugins.defaults("techniques", step.technique), **dict(step.options)}

        def distance(row: Row) -> float:
            if row["technique"] != step.technique:
                return np.inf
            apart = [abs(value - given[name]) if isinstance(value, float) else float(value != given[name])
                     for name, value in row["options"].items()]  # fmt: skip
            return sum(apart)

        return min(range(len(self.rows)), key=lambda place: distance(self.rows[place]))


class Kept:
    """A journal that is not written."""

    def __init__(self) -> None:
        self._trials: dict[str, Trial] = {}

    def get(self, name: str) -> Trial | None:
        """Return a trial by its name."""
        return self._trials.get(name)

    def add(self, trial: Trial) -> None:
        """Keep a trial."""
        self._trials[trial.name] = trial


def trial_of(variant: Variant, look: Row, task: Task, race: Race) -> Trial:
    """Return a trial as the race would have written it down."""
    screening = Ratio(
        reading="latency", variant=variant.key, baseline="", value=look["time"], low=look["time"], high=look["time"],
        level=0.95, margin=0.03, verdict="inconclusive", blocks=16, processes=1,
    )  # fmt: skip
    quality = NoWorse(
        metric=task.metric, variant=variant.key, baseline="", max_drop=MAX_DROP, error=0.05, method="", items=5000,
        groups=5000, difference=-look["loss"], low=-1.0, high=1.0, better=0, worse=0, flips=0, proven=False,
    )  # fmt: skip
    macs = Reading(name="macs", value=look["macs"], unit="1", direction="lower", source="table")
    measured = Measurement(
        variant=variant, task=task.digest, workload=race.goal.workload, readings=(macs,), machine=race.machine, time=""
    )
    return Trial(
        name=variant.label(), steps=variant.steps, settings=variant.settings, variant=variant, reason="",
        state="kept" if look["loss"] <= MAX_DROP else "dropped", screening=screening, quality=quality,
        measurement=measured, seconds=look["seconds"],
    )  # fmt: skip


def replayed(race: Race, rows: list[Row], plain: Row, seconds: float, seed: int) -> float:
    """Return the best time ratio that the search finds within some seconds of its own clock."""
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["TRIMTAB_HOME"] = scratch  # what earlier seeds learnt of latencies is not told
        held = {each.name: getattr(race, each.name) for each in fields(Race) if not each.name.startswith("_")}
        fresh: dict[str, Any] = {"names": [], "corrected": {}, "variants": {}, "making_s": {}, "journal": Kept()}
        shop = replace(race.shop, folder=Path(scratch) / "variants")
        replay = Replay(**{**held, **fresh, "shop": shop, "seed": seed, "budget": Clock(seconds=seconds)},
                        rows=rows, plain=plain)  # fmt: skip
        (runtime,) = plan.toolbox(("onnxruntime", "export-onnx")).runtimes
        settings = runtime.settings(race.machine, race.goal.workload)[0]
        replay.enter(race.shop.original.after(race.shop.original.model, Step(technique="export-onnx")).on(settings))
        replay.best_found = np.inf
        trainer, *makers = (plugins.make("techniques", name) for name in ("fine-tune", *GRID))
        search = study.Study(
            race=replay, makers=tuple(makers), trainer=trainer, allowed=MAX_DROP, plain=replay.trials[0],
            finish=lambda variant: iter(()), said=lambda text: None, rungs=RUNGS,
        )  # fmt: skip
        for variant in search.variants():
            replay.enter(variant)
    return replay.best_found


def at_random(rows: list[Row], seconds: float, seed: int) -> float:
    """Return the best time ratio that random search finds: it trains what it draws on all rungs at once."""
    best, spent = np.inf, 0.0
    for place in np.random.default_rng(seed).permutation(len(rows)):
        row = rows[place]
        spent += row["made_s"] + sum(look["train_s"] for look in row["looks"]) + row["looks"][-1]["seconds"]
        if spent > seconds:
            break
        if row["looks"][-1]["loss"] <= MAX_DROP:
            best = min(best, row["looks"][-1]["time"])
    return best


def whole_time(rows: list[Row]) -> float:
    """Return the seconds that the grid takes when every network is trained on all rungs and judged once."""
    return sum(row["made_s"] + sum(x["train_s"] for x in row["looks"]) + row["looks"][-1]["seconds"] for row in rows)


def ends(rows: list[Row]) -> Iterator[Row]:
    """Yield where each network ends."""
    yield from (row["looks"][-1] for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--folder", type=Path, default=WORK / "search_quality")
    parser.add_argument("--results", type=Path, default=pages.RESULTS)
    given = parser.parse_args()
    pages.own_home()
    folder = make_folder(given.folder.absolute())
    rows, plain = table(folder)
    whole = whole_time(rows)
    best = min(look["time"] for look in ends(rows) if look["loss"] <= MAX_DROP)
    race = opened(folder)
    found = [replayed(race, rows, plain, SHARE * whole, seed) for seed in range(given.seeds)]
    drawn = [at_random(rows, SHARE * whole, seed) for seed in range(given.seeds)]
    publish(rows, whole, best, found, drawn, given.results)


def publish(
    rows: list[Row], whole: float, best: float, found: list[float], drawn: list[float], results: Path | None
) -> None:
    """Write the page."""
    near = [value <= WITHIN * best for value in found]
    near_drawn = [value <= WITHIN * best for value in drawn]
    wins, losses = (int(sum(sign * (a - b) < 0 for a, b in zip(found, drawn, strict=True))) for sign in (1, -1))
    cells = [
        [f"{row['technique']} {', '.join(f'{k}={v}' for k, v in row['options'].items())}",
         f"{row['looks'][-1]['time']:.4f}", *(f"{100 * look['loss']:+.2f}" for look in row["looks"]),
         f"{sum(look['train_s'] for look in row['looks']):.0f}"]
        for row in sorted(rows, key=lambda row: row["looks"][-1]["time"])
    ]  # fmt: skip
    body = [
        f"A grid of {len(rows)} changed networks (ResNet-20 on Fashion-MNIST, rungs of {RUNGS} epochs) took "
        f"{whole:.0f} s. Its best that loses at most {100 * MAX_DROP:g} pt takes {best:.4f} of the time of the model "
        f"as given. The search was replayed with {len(found)} seeds for {SHARE * whole:.0f} s each.", "",
        pages.kept(np.mean(near) >= OF_SEEDS, f"within 5 % of the best latency in {sum(near)} of {len(near)} replays "
                   f"(asked: {OF_SEEDS:.0%})"),
        pages.kept(wins > losses, f"better than random search at equal time: faster in {wins}, slower in {losses}; "
                   f"random search is within 5 % in {sum(near_drawn)} of {len(drawn)}"), "",
        *pages.table(("network", "time", "loss, pt", *(f"after {rung} epochs more" for rung in RUNGS), "training s"),
                     cells, right=(1, 2, 3, 4, 5, 6)), "",
        "```sh", "python benchmarks/search_quality.py", "```",
    ]  # fmt: skip
    data = {"grid": rows, "whole_s": whole, "best": best, "found": found, "random": drawn}
    pages.publish("search-quality", "Search over trained networks, replayed", body, data, results)


if __name__ == "__main__":
    main()
