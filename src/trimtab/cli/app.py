"""The commands. Each one parses, calls one verb of the workbench and prints; there is no logic here."""

from __future__ import annotations

import functools
import json
import math
import shlex
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trimtab import __version__
from trimtab.cli import options as o
from trimtab.core import words
from trimtab.core.errors import BadInput
from trimtab.core.values import Comparison, Goal
from trimtab.core.values import options as as_options

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from trimtab.workbench.optimize import Job
    from trimtab.workbench.train import Heard

app = typer.Typer(
    help="Make a trained neural network faster, smaller and greener without making it worse, and prove it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"trimtab {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Make a trained neural network faster, smaller and greener without making it worse, and prove it."""


@app.command(short_help="Find the fastest variant that is proven to be no worse.")
@o.spread
def optimize(  # one parameter per option: the command line may have as many as it has options
    model: o.Model,
    data: o.Data = None,
    *,
    train: o.Train = None,
    output: o.Output = Path("fast"),
    minimize: o.Minimize = None,
    maximize: o.Maximize = None,
    max_drop: o.MaxDrop = "1pt",
    limit: o.Limit = None,
    calls: o.WorkloadOptions,
    budget: o.Budget = None,
    trials: o.Trials = None,
    only: o.Only = None,
    margin: o.Margin = 0.03,
    items: o.DataOptions,
    opening: o.ModelOptions,
    poor_model: o.PoorModel = False,
    track: o.Track = None,
    store: o.Store = "folder",
    cluster: o.Cluster = None,
    dry_run: o.DryRun = False,
    as_json: o.AsJson = False,
) -> None:
    """Find the fastest variant of a model that is proven to be no worse."""
    from trimtab.workbench.optimize import Effort, Job, preview_job

    if dry_run and as_json:
        raise BadInput("--dry-run tells the plan in words: leave --json out")
    job = Job(
        model=model,
        data=data,
        output=output,
        data_request=replace(items.request(), train=train),
        goal=Goal(
            objective=_objective(minimize, maximize),
            direction="maximize" if maximize else "minimize",
            max_drop=items.drop(max_drop),
            limits=tuple(words.limit(text) for text in limit or ()),
            workload=calls.workload(),
            margin=margin,
        ),
        model_request=opening.request(),
        effort=Effort(
            seconds=words.seconds(budget or ("1h" if train else "10m")),
            trials=trials,
            only=tuple(only or ()),
            seed=items.seed,
            poor_model=poor_model,
            track=tuple(track or ()),
            store=store,
            cluster=cluster,
        ),
        command=shlex.join(["trimtab", *sys.argv[1:]]),
    )
    if dry_run:
        typer.echo("\n".join(preview_job(job)))
    else:
        _run(job, as_json)


@app.command()
def demo(
    output: o.Output = Path("demo"),
    budget: o.Budget = "60s",
    save: o.SaveTo = None,
) -> None:
    """Optimize the digits network that ships with trimtab."""
    from trimtab.workbench.demo import demo_job, save_digits

    if save is not None:
        for path in save_digits(save):
            typer.echo(path)
        return
    _run(demo_job(output, words.seconds(budget or "60s")), as_json=False)


@app.command(short_help="Read what a model costs and how good it is.")
@o.spread
def measure(
    model: o.Model,
    data: o.Data = None,
    *,
    meter: o.Meter = None,
    option: o.MeterOption = None,
    split: o.SplitName = "select",
    runtime: o.Runtime = None,
    calls: o.WorkloadOptions,
    items: o.DataOptions,
    opening: o.ModelOptions,
    as_json: o.AsJson = False,
) -> None:
    """Read what a model costs and how good it is, every number with its interval."""
    from trimtab.core.plugins import named_options
    from trimtab.reports.terminal import measurement_table
    from trimtab.workbench.verbs import Requests
    from trimtab.workbench.verbs import measure as read

    requests = Requests(model=opening.request(), data=items.request())
    found = read(
        model,
        data,
        calls.workload(),
        meters=meter,
        options=named_options("meters", option or ()),
        split=split,
        runtime=runtime,
        requests=requests,
    )
    _show(found, measurement_table, as_json)


@app.command()
@o.spread
def compare(
    models: o.Models,
    data: o.Data = None,
    *,
    truth: o.Truth = None,
    max_drop: o.MaxDrop = "1pt",
    margin: o.Margin = 0.03,
    seconds: o.Seconds = 20.0,
    calls: o.WorkloadOptions,
    items: o.DataOptions,
    opening: o.ModelOptions,
    as_json: o.AsJson = False,
) -> None:
    """Compare models: is one faster, and is it no worse?"""
    from trimtab.reports.terminal import comparison_table
    from trimtab.workbench.compare import Care, compare_predictions
    from trimtab.workbench.verbs import Requests
    from trimtab.workbench.verbs import compare as side_by_side

    requests = Requests(model=opening.request(), data=items.request())
    goal = Goal(max_drop=items.drop(max_drop), workload=calls.workload(), margin=margin)
    if truth is not None:
        if data is not None or items != o.DataOptions(metric=items.metric, seed=items.seed):
            raise BadInput(
                "--truth judges files of predictions, by --metric only: leave out what says how data is read"
            )
        judged = compare_predictions([Path(name) for name in models], truth, goal, items.metric)
        _show(judged, lambda found: comparison_table(Comparison(measurements=(), quality=found)), as_json)
        return
    found = side_by_side(models, data, goal, care=Care(seconds=seconds, seed=items.seed), requests=requests)
    _show(found, comparison_table, as_json)


@app.command(short_help="Run a certificate again; exit code 1 when it fails here.")
def verify(
    bundle: o.Bundle,
    data: o.CertifiedData,
    original: o.Original = None,
    preprocess: o.Preprocess = None,
    labels: o.Labels = None,
    groups: o.Groups = None,
    trust_pickle: o.TrustPickle = False,
    as_json: o.AsJson = False,
) -> None:
    """Run a certificate again; exit code 1 when it does not hold here."""
    from trimtab.reports.words import proof_words
    from trimtab.workbench.opening import ModelRequest, open_model
    from trimtab.workbench.verify import Check, insist
    from trimtab.workbench.verify import verify as run_again

    request = o.DataOptions(preprocess=preprocess, labels=labels, groups=groups).request()
    with tempfile.TemporaryDirectory(prefix="trimtab-") as temporary:
        folder, opening = Path(temporary), ModelRequest(trust_pickle=trust_pickle)
        other = open_model(original, folder / "original", opening) if original else None
        check = Check(original=other, request=request, trust_pickle=trust_pickle)
        found = run_again(bundle, data, folder / "data", check)
    if as_json:
        _print_json(found)
    insist(found)
    if not as_json:
        typer.echo(f"the certificate holds here: {proof_words(found.found, str(bundle), 'the original')}")


@app.command(short_help="Show what a model is and what can be done with it.")
@o.spread
def inspect(
    model: o.Model,
    *,
    opening: o.ModelOptions,
    as_json: o.AsJson = False,
) -> None:
    """Show what a model is and what can be done with it: files are read, PyTorch modules are traced on shapes alone."""
    from trimtab.reports.sheets import inspection_table
    from trimtab.workbench.inspect import inspect as look
    from trimtab.workbench.opening import open_model

    with tempfile.TemporaryDirectory(prefix="trimtab-") as temporary:
        found = look(open_model(model, Path(temporary), opening.request()).model)
    _show(found, inspection_table, as_json)


@app.command()
@o.spread
def apply(
    technique: o.Technique,
    model: o.Model,
    data: o.Data = None,
    *,
    train: o.Train = None,
    output: o.AppliedOutput = Path("applied"),
    option: o.TechniqueOption = None,
    items: o.DataOptions,
    opening: o.ModelOptions,
) -> None:
    """Apply one technique to a model, without a search."""
    from trimtab.core.plugins import typed_options
    from trimtab.search.making import changes
    from trimtab.workbench.apply import apply as apply_one
    from trimtab.workbench.verbs import Requests, opened

    requests = Requests(model=opening.request(), data=replace(items.request(), train=train))
    chosen = as_options(typed_options("techniques", technique, option or ()))
    with opened([model], data, requests) as (variants, task):
        made = apply_one(variants[0], technique, task, output, options=chosen, seed=items.seed)
        typer.echo("\n".join([f"{made.label()}: {output}", *changes(technique, variants[0], made)]))


@app.command(short_help="Train a network on data.")
@o.spread
def train(
    model: o.Model,
    data: o.Data = None,
    *,
    train: o.Train = None,
    output: o.TrainedOutput = Path("trained"),
    epochs: o.Epochs = None,
    option: o.TrainingOption = None,
    teacher: o.Teacher = None,
    compare: o.Compare = None,
    seeds: o.Seeds = 3,
    target: o.Target = None,
    budget: o.TrainingBudget = None,
    processes: o.Processes = 1,
    parallel: o.Parallel = "ddp",
    track: o.Track = None,
    memory: o.StepMemory = False,
    items: o.DataOptions,
    opening: o.ModelOptions,
    as_json: o.AsJson = False,
) -> None:
    """Train a network on data: the best epoch's weights, learning curves, and all it takes to continue."""
    from trimtab.reports.sheets import memory_table, recipes_table, run_table
    from trimtab.training.group import torchrun_started
    from trimtab.training.recipe import read_recipe
    from trimtab.workbench.train import Training
    from trimtab.workbench.train import train as fit
    from trimtab.workbench.train_compare import compare_recipes
    from trimtab.workbench.train_memory import train_memory

    if memory and compare is not None:
        raise BadInput("--memory trains nothing, so there is nothing to --compare: leave one of them out")
    typed = (f"seed={items.seed}", *(option or ()), *(() if epochs is None else (f"epochs={epochs}",)))
    asked = Training(
        model=model,
        data=data,
        output=output,
        teachers=tuple(teacher or ()),
        recipe=read_recipe(typed),
        data_request=replace(items.request(), train=train),
        model_request=opening.request(),
        seconds=math.inf if budget is None else words.seconds(budget),
        processes=processes,
        parallel=parallel,
        track=tuple(track or ()),
        command=shlex.join(["trimtab", *sys.argv[1:]]),
    )
    console = _console(stderr=as_json)
    heard = functools.partial(_heard, console)
    if memory:
        _show(train_memory(asked), memory_table, as_json)
    elif compare is None:
        run = fit(asked, heard())
        if torchrun_started()[0]:
            return  # the first process tells
        _show(run, run_table, as_json)
    else:
        _show(compare_recipes(asked, compare, seeds, target, heard), recipes_table, as_json)
    if not as_json:
        console.print(f"{'memory' if memory else 'trained'}: {output.resolve()}", soft_wrap=True, highlight=False)


@app.command()
def hardware(
    refresh: o.Refresh = False,
    as_json: o.AsJson = False,
) -> None:
    """Show this machine's record and its measured peaks."""
    from trimtab.reports.sheets import hardware_table
    from trimtab.workbench.hardware import hardware as read

    _show(read(refresh=refresh), hardware_table, as_json)


@app.command()
def plot(
    run: o.Run,
    output: o.FiguresOutput = None,
    formats: o.Formats = "png,svg",
) -> None:
    """Draw the figures of a run as files."""
    from trimtab.workbench.plot import plot as draw

    for path in draw(run, output or run / "figures", [format.strip() for format in formats.split(",")]):
        typer.echo(path)


@app.command(short_help="Show what runs left on disk, and free it.")
def clean(
    folders: o.Folders = None,
    yes: o.Yes = False,
) -> None:
    """Show what runs left on disk, and free it; bundles and reports stay."""
    from trimtab.workbench.clean import free, leftovers

    found = leftovers(folders or [Path()])
    for leftover in found:
        state = "finished" if leftover.finished else "unfinished: can be continued"
        typer.echo(f"{leftover.bytes / 1e6:10.1f} MB  {leftover.folder}  ({state})")
    if not found:
        typer.echo("nothing to free")
    elif yes or (sys.stdin.isatty() and typer.confirm("free all of it?")):
        for leftover in found:
            free(leftover)
        typer.echo(f"freed {sum(leftover.bytes for leftover in found) / 1e6:.1f} MB")
    else:
        typer.echo("nothing was freed; add --yes to free it")


def _run(job: Job, as_json: bool) -> None:
    """Run or continue a job, write its report, print its table and verdict; exit code 3 when the goal is unmet."""
    from trimtab.cli.live import Live
    from trimtab.reports.terminal import result_table
    from trimtab.workbench.optimize import optimize_job
    from trimtab.workbench.report import REPORT

    console = _console(stderr=as_json)
    with Live(console) as live:
        result = optimize_job(job, live)
    _show(result, result_table, as_json)
    if not as_json:
        console.print(f"report: {(job.output / REPORT).resolve()}", soft_wrap=True, highlight=False)
    if result.winner is None:
        raise typer.Exit(3)


def _console(stderr: bool = False) -> Console:
    from rich.console import Console

    return Console(stderr=stderr)


def _heard(console: Console, label: str = "") -> Heard:
    """Return what prints every epoch of a training as it ends."""
    from trimtab.reports.sheets import epoch_line

    return lambda epoch, metric: console.print(epoch_line(epoch, metric, label), highlight=False, soft_wrap=True)


def _show(found: Any, table: Callable[[Any], RenderableType], as_json: bool) -> None:
    """Print what a verb returned, as JSON or as the table that `table` makes of it."""
    if as_json:
        _print_json(found)
    else:
        _console().print(table(found))


def _print_json(value: Any) -> None:
    from trimtab.core.codec import to_plain

    typer.echo(json.dumps(to_plain(value), indent=1, ensure_ascii=False))


def _objective(minimize: str | None, maximize: str | None) -> str:
    if minimize and maximize:
        raise BadInput("give --minimize or --maximize, not both; put the other one into --limit")
    if maximize not in (None, "throughput"):
        raise BadInput(f"--maximize {maximize!r} is not offered; type throughput")
    return maximize or minimize or "latency"
