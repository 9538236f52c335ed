"""The commands. Each one parses, calls one verb of the workbench and prints; there is no logic here."""

from __future__ import annotations

import json
import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from trimtab import __version__
from trimtab.cli import options as o
from trimtab.core import words
from trimtab.core.errors import BadInput
from trimtab.core.values import Goal, Kind, NoWorse, Options, Workload
from trimtab.core.values import options as as_options

if TYPE_CHECKING:
    from rich.console import Console

    from trimtab.data.request import DataRequest
    from trimtab.workbench.opening import ModelRequest
    from trimtab.workbench.optimize import Job

app = typer.Typer(
    help="Make a trained neural network faster, smaller and greener without making it worse, and prove it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
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
def optimize(  # one parameter per option: the command line may have as many as it has options
    model: o.Model,
    data: o.Data = None,
    output: o.Output = Path("fast"),
    minimize: o.Minimize = None,
    maximize: o.Maximize = None,
    max_drop: o.MaxDrop = "1pt",
    limit: o.Limit = None,
    metric: o.Metric = None,
    cost: o.Cost = None,
    batch: o.Batch = 1,
    length: o.Length = None,
    budget: o.Budget = "10m",
    trials: o.Trials = None,
    only: o.Only = None,
    margin: o.Margin = 0.03,
    preprocess: o.Preprocess = None,
    labels: o.Labels = None,
    output_name: o.OutputName = None,
    groups: o.Groups = None,
    kind: o.Kind = None,
    positive: o.Positive = None,
    threshold: o.Threshold = None,
    weights: o.Weights = None,
    trust_pickle: o.TrustPickle = False,
    state: o.State = None,
    input: o.Input = None,  # the option's name
    seed: o.Seed = 0,
    poor_model: o.PoorModel = False,
    dry_run: o.DryRun = False,
    as_json: o.AsJson = False,
) -> None:
    """Find the fastest variant of a model that is proven to be no worse."""
    from trimtab.workbench.optimize import Effort, Job

    request = _data_request(preprocess, labels, output_name, groups, metric, kind, positive, threshold, cost, seed)
    goal = Goal(
        objective=_objective(minimize, maximize),
        direction="maximize" if maximize else "minimize",
        max_drop=words.drop(max_drop),
        limits=tuple(words.limit(text) for text in limit or ()),
        workload=_workload(batch, length),
        margin=margin,
    )
    effort = Effort(
        seconds=words.seconds(budget), trials=trials, only=tuple(only or ()), seed=seed, poor_model=poor_model
    )
    job = Job(
        model=model,
        data=data,
        goal=goal,
        output=output,
        data_request=request,
        model_request=_model_request(weights, trust_pickle, state, input),
        effort=effort,
        command=_command(),
    )
    if dry_run:
        _print_plan(job)
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
    _run(demo_job(output, words.seconds(budget)), as_json=False)


@app.command(short_help="Read what a model costs and how good it is.")
def measure(
    model: o.Model,
    data: o.Data = None,
    meter: o.Meter = None,
    split: o.SplitName = "select",
    runtime: o.Runtime = None,
    metric: o.Metric = None,
    cost: o.Cost = None,
    batch: o.Batch = 1,
    length: o.Length = None,
    preprocess: o.Preprocess = None,
    labels: o.Labels = None,
    output_name: o.OutputName = None,
    groups: o.Groups = None,
    kind: o.Kind = None,
    positive: o.Positive = None,
    threshold: o.Threshold = None,
    weights: o.Weights = None,
    trust_pickle: o.TrustPickle = False,
    state: o.State = None,
    input: o.Input = None,  # the option's name
    seed: o.Seed = 0,
    as_json: o.AsJson = False,
) -> None:
    """Read what a model costs and how good it is, every number with its interval."""
    from trimtab.workbench.verbs import Requests
    from trimtab.workbench.verbs import measure as read

    requests = Requests(
        model=_model_request(weights, trust_pickle, state, input),
        data=_data_request(preprocess, labels, output_name, groups, metric, kind, positive, threshold, cost, seed),
    )
    found = read(model, data, _workload(batch, length), meters=meter, split=split, runtime=runtime, requests=requests)
    if as_json:
        _print_json(found)
    else:
        from trimtab.reports.terminal import measurement_table

        _console().print(measurement_table(found))


@app.command()
def compare(
    models: o.Models,
    data: o.Data = None,
    truth: o.Truth = None,
    max_drop: o.MaxDrop = "1pt",
    margin: o.Margin = 0.03,
    seconds: o.Seconds = 20.0,
    metric: o.Metric = None,
    batch: o.Batch = 1,
    length: o.Length = None,
    preprocess: o.Preprocess = None,
    labels: o.Labels = None,
    output_name: o.OutputName = None,
    groups: o.Groups = None,
    kind: o.Kind = None,
    positive: o.Positive = None,
    threshold: o.Threshold = None,
    weights: o.Weights = None,
    trust_pickle: o.TrustPickle = False,
    state: o.State = None,
    input: o.Input = None,  # the option's name
    seed: o.Seed = 0,
    as_json: o.AsJson = False,
) -> None:
    """Compare models: is one faster, and is it no worse?"""
    from trimtab.workbench.compare import Care, compare_predictions
    from trimtab.workbench.verbs import Requests
    from trimtab.workbench.verbs import compare as side_by_side

    goal = Goal(max_drop=words.drop(max_drop), workload=_workload(batch, length), margin=margin)
    if truth is not None:
        _print_judged(compare_predictions([Path(name) for name in models], truth, goal, metric), as_json)
        return
    requests = Requests(
        model=_model_request(weights, trust_pickle, state, input),
        data=_data_request(preprocess, labels, output_name, groups, metric, kind, positive, threshold, None, seed),
    )
    found = side_by_side(models, data, goal, care=Care(seconds=seconds, seed=seed), requests=requests)
    if as_json:
        _print_json(found)
    else:
        from trimtab.reports.terminal import comparison_table

        _console().print(comparison_table(found))


@app.command(short_help="Run a certificate again; exit code 1 when it fails here.")
def verify(
    bundle: o.Bundle,
    data: o.CertifiedData,
    original: o.Original = None,
    preprocess: o.Preprocess = None,
    labels: o.Labels = None,
    trust_pickle: o.TrustPickle = False,
    as_json: o.AsJson = False,
) -> None:
    """Run a certificate again; exit code 1 when it does not hold here."""
    from trimtab.data.request import DataRequest
    from trimtab.workbench.opening import open_model
    from trimtab.workbench.verify import Check, insist
    from trimtab.workbench.verify import verify as run_again

    request = DataRequest(preprocess=preprocess, labels=labels)
    opening = _model_request(None, trust_pickle, None, None)
    with tempfile.TemporaryDirectory(prefix="trimtab-") as temporary:
        other = open_model(original, Path(temporary) / "original", opening) if original else None
        check = Check(original=other, request=request, trust_pickle=trust_pickle)
        found = run_again(bundle, data, Path(temporary) / "data", check)
    if as_json:
        _print_json(found)
    insist(found)
    if not as_json:
        proof = found.found
        typer.echo(
            f"the certificate holds here: {proof.metric} changed by {100 * proof.difference:+.2f} pt "
            f"on {proof.items} items (allowed −{100 * proof.max_drop:g} pt, {proof.method})"
        )


@app.command(short_help="Show what a model is and what can be done with it.")
def inspect(
    model: o.Model,
    weights: o.Weights = None,
    trust_pickle: o.TrustPickle = False,
    state: o.State = None,
    input: o.Input = None,  # the option's name
    as_json: o.AsJson = False,
) -> None:
    """Show what a model is and what can be done with it, without running it."""
    from trimtab.workbench.inspect import inspect as look
    from trimtab.workbench.opening import open_model

    with tempfile.TemporaryDirectory(prefix="trimtab-") as temporary:
        variant = open_model(model, Path(temporary), _model_request(weights, trust_pickle, state, input))
        found = look(variant.model)
    if as_json:
        _print_json(found)
    else:
        from trimtab.reports.terminal import inspection_table

        _console().print(inspection_table(found))


@app.command()
def apply(
    technique: o.Technique,
    model: o.Model,
    data: o.Data = None,
    output: o.AppliedOutput = Path("applied"),
    option: o.TechniqueOption = None,
    preprocess: o.Preprocess = None,
    labels: o.Labels = None,
    output_name: o.OutputName = None,
    groups: o.Groups = None,
    weights: o.Weights = None,
    trust_pickle: o.TrustPickle = False,
    state: o.State = None,
    input: o.Input = None,  # the option's name
    seed: o.Seed = 0,
) -> None:
    """Apply one technique to a model, without a search."""
    from trimtab.workbench.apply import apply as apply_one
    from trimtab.workbench.verbs import Requests, opened

    requests = Requests(
        model=_model_request(weights, trust_pickle, state, input),
        data=_data_request(preprocess, labels, output_name, groups, None, None, None, None, None, seed),
    )
    chosen = _technique_options(technique, option or ())
    with opened([model], data, requests) as (variants, task):
        made = apply_one(variants[0], technique, task, output, options=chosen, seed=seed)
    typer.echo(f"{made.label()}: {output}")


@app.command()
def hardware(
    refresh: o.Refresh = False,
    as_json: o.AsJson = False,
) -> None:
    """Show this machine's record and its measured peaks."""
    from trimtab.workbench.hardware import hardware as read

    found = read(refresh=refresh)
    if as_json:
        _print_json(found)
    else:
        from trimtab.reports.terminal import hardware_table

        _console().print(hardware_table(found))


@app.command()
def plot(
    run: o.Run,
    output: o.FiguresOutput = None,
    formats: o.Formats = "png,svg",
) -> None:
    """Draw the figures of a run as files."""
    from trimtab.workbench.plot import plot as draw

    for path in draw(run, output or run / "figures", tuple(formats.split(","))):
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
    from trimtab.workbench.optimize import optimize_job
    from trimtab.workbench.report import write_report

    console = _console(stderr=as_json)
    with Live(console) as live:
        result = optimize_job(job, live)
        report = write_report(result, job.output)
    if as_json:
        _print_json(result)
    else:
        from trimtab.reports.terminal import result_table

        console.print(result_table(result))
        console.print(f"report: {report}", soft_wrap=True, highlight=False)
    if result.winner is None:
        raise typer.Exit(3)


def _print_plan(job: Job) -> None:
    from trimtab.workbench.optimize import preview_job

    for line in preview_job(job):
        typer.echo(line)


def _console(stderr: bool = False) -> Console:
    from rich.console import Console

    return Console(stderr=stderr)


def _print_json(value: Any) -> None:
    from trimtab.core.codec import to_plain

    typer.echo(json.dumps(to_plain(value), indent=1, ensure_ascii=False))


def _print_judged(found: Sequence[NoWorse], as_json: bool) -> None:
    """Print what was found of predictions, one line per file."""
    if as_json:
        _print_json(found)
        return
    for proof in found:
        verdict = "no worse" if proof.proven else proof.reason
        typer.echo(
            f"{proof.variant}: {proof.metric} {proof.difference:+.4g} [{proof.low:+.4g}, {proof.high:+.4g}] against "
            f"{proof.baseline} on {proof.items} items: {verdict}"
        )


def _data_request(  # the options of the command line, in their order
    preprocess: str | None,
    labels: Path | None,
    output_name: str | None,
    groups: str | None,
    metric: str | None,
    kind: str | None,
    positive: str | None,
    threshold: float | None,
    cost: str | None,
    seed: int,
) -> DataRequest:
    from trimtab.data.request import DataRequest

    kinds = ("classification", "binary", "regression", "embedding")
    if kind is not None and kind not in kinds:
        raise BadInput(f"--kind {kind!r} is none of {', '.join(kinds)}")
    return DataRequest(
        preprocess=preprocess,
        labels=labels,
        output=output_name,
        groups=groups,
        metric=metric,
        kind=cast("Kind | None", kind),
        positive=positive,
        threshold=threshold,
        costs=words.costs(cost) if cost else None,
        seed=seed,
    )


def _model_request(
    weights: Path | None, trust_pickle: bool, state: list[str] | None, inputs: list[str] | None
) -> ModelRequest:
    from trimtab.workbench.opening import ModelRequest, parse_examples, parse_states

    return ModelRequest(
        weights=weights,
        trust_pickle=trust_pickle,
        states=parse_states(state or ()),
        example=parse_examples(inputs or ()),
    )


def _workload(batch: int, lengths: list[str] | None) -> Workload:
    pairs = []
    for text in lengths or ():
        name, _, size = text.partition("=")
        if not name or not size.isdigit():
            raise BadInput(f'--length {text!r} is not understood; type it like "sequence=128"')
        pairs.append((name, int(size)))
    return Workload(batch=batch, lengths=tuple(pairs))


def _objective(minimize: str | None, maximize: str | None) -> str:
    if minimize and maximize:
        raise BadInput("give --minimize or --maximize, not both; put the other one into --limit")
    if maximize:
        if maximize != "throughput":
            raise BadInput(f"--maximize {maximize!r} is not offered; type throughput")
        return "throughput"
    chosen = minimize or "latency"
    return "latency" if chosen == "latency" else words.reading_name(chosen)


def _technique_options(technique: str, given: list[str] | tuple[str, ...]) -> Options:
    from trimtab.workbench.apply import typed_options

    return as_options(typed_options(technique, given))


def _command() -> str:
    return shlex.join(["trimtab", *sys.argv[1:]])
