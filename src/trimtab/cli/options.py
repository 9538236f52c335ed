"""The options of all commands, each spelled once, and the groups of them that several commands take."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args, get_type_hints

import typer

from trimtab.core import values, words
from trimtab.core.errors import BadInput

if TYPE_CHECKING:
    from trimtab.data.request import DataRequest
    from trimtab.workbench.opening import ModelRequest

_data = functools.partial(typer.Option, rich_help_panel="Data")
_goal = functools.partial(typer.Option, rich_help_panel="Goal")
_model = functools.partial(typer.Option, rich_help_panel="Model")
_search = functools.partial(typer.Option, rich_help_panel="Search")
"""An option in its panel of `--help`; those of a single command and of its output stay with `--help` itself."""

Model = Annotated[
    str,
    typer.Argument(
        help="A model: .onnx, .xml (OpenVINO), .pt2, package.module:factory or file.py:factory, a Hugging Face folder, "
        "or a bundle."
    ),
]
Data = Annotated[
    str | None,
    _data("--data", help="Items to judge by: .npz, IDX or class folders, CSV, JSON lines, or module:function."),
]
Train = Annotated[
    str | None,
    _data("--train", help="Items to train on: the network itself may be changed. --data again where that names some."),
]
Preprocess = Annotated[
    str | None,
    _data("--preprocess", help="imagenet, mnist, a .toml file, a tokenizer.json, or module:function."),
]
Labels = Annotated[
    Path | None, _data("--labels", help="Class names, one per line, in the order of the model's outputs.")
]
OutputName = Annotated[
    str | None, _model("--output-name", help="The output that holds the answer, when there are several.")
]
Groups = Annotated[str | None, _data("--groups", help="The column or array that says which items belong together.")]
Metric = Annotated[
    str | None,
    _goal("--metric", help="What is protected: accuracy, recall, precision, f1, roc_auc … or module:function."),
]
Kind = Annotated[
    str | None, _data("--kind", help="classification, binary, regression or embedding; found out by itself.")
]
Positive = Annotated[str | None, _data("--positive", help="The class of interest of a binary task, by name or number.")]
Threshold = Annotated[
    float | None,
    _data(
        "--threshold",
        help="The probability from which a binary answer is positive; if not given, that of a bundle that is measured "
        "or compared, else tuned on the select split (for accuracy 0.5).",
    ),
]
Cost = Annotated[str | None, _goal("--cost", help='What mistakes cost: "miss=10, false-alarm=1".')]
Weights = Annotated[Path | None, _model("--weights", help="Weights of a PyTorch factory: .safetensors or .pt.")]
TrustPickle = Annotated[bool, _model("--trust-pickle", help="Load what can run code: pickles, code in bundles.")]
State = Annotated[
    list[str] | None,
    _model("--state", metavar="<str>", help="A state input and the output fed back to it: h_in=h_out. Repeatable."),
]
Input = Annotated[
    list[str] | None,
    _model("--input", metavar="<str>", help="What a PyTorch factory takes: x:float32[1,1,28,28]. Repeatable."),
]
Batch = Annotated[int, _model("--batch", min=1, help="Items per call.")]
Length = Annotated[
    list[str] | None,
    _model("--length", metavar="<str>", help="The size of a free dimension: sequence=128. Repeatable."),
]
Seed = Annotated[int, _data("--seed", help="Equal seeds give equal splits and searches.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, with the stable names of the docs.")]
MaxDrop = Annotated[str, _goal("--max-drop", help="How much the metric may fall: 1pt is one point, 0.01.")]
Margin = Annotated[
    float, _goal("--margin", min=0.001, max=0.5, help="The smallest relative difference of times that counts.")
]
Runtime = Annotated[str | None, typer.Option("--runtime", help="Run on this runtime instead of the format's own.")]
Output = Annotated[Path, typer.Option("--output", help="The folder for bundle, report and work files.")]
Minimize = Annotated[str | None, _goal("--minimize", help="latency, size, compressed, memory, macs or parameters.")]
Maximize = Annotated[
    str | None, _goal("--maximize", help="throughput; without --batch, at the batch that suits the model as given.")
]
Limit = Annotated[list[str] | None, _goal("--limit", metavar="<str>", help='A bound: "size <= 5MB". Repeatable.')]
Budget = Annotated[
    str | None,
    _search(
        "--budget",
        help="Time for the whole run: 90s, 10m, 1h; by default 10m, 1h with --train. It is cut short for proof and "
        "final timing, which end it.",
    ),
]
Trials = Annotated[int | None, _search("--trials", min=1, help="The most variants to try.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")]
Meter = Annotated[
    list[str] | None,
    typer.Option(
        "--meter",
        metavar="<str>",
        help="Read only these meters; latency then takes the 662 calls of a p99. Repeatable.",
    ),
]
Truth = Annotated[Path | None, _data("--truth", help="Labels (.npy): then the models are prediction files.")]
Seconds = Annotated[float, typer.Option("--seconds", min=1, help="Time for the timing.")]
AppliedOutput = Annotated[Path, typer.Option("--output", help="The folder for the bundle.")]
Refresh = Annotated[bool, typer.Option("--refresh", help="Measure again instead of using what is kept.")]
Formats = Annotated[str, typer.Option("--formats", help="png, svg, pdf.")]
Folders = Annotated[list[Path] | None, typer.Argument(help="Where to look for runs; here by default.")]
Yes = Annotated[bool, typer.Option("--yes", help="Free it without asking.")]
Bundle = Annotated[Path, typer.Argument(help="A bundle that trimtab optimize wrote.")]
CertifiedData = Annotated[str, _data("--data", help="The data that the bundle was certified on.")]
Technique = Annotated[str, typer.Argument(help="The technique: static-int8, nncf-int8, simplify …")]
Run = Annotated[Path, typer.Argument(help="The output folder of trimtab optimize.")]
Only = Annotated[
    list[str] | None,
    _search("--only", metavar="<str>", help="Use only these runtimes and techniques. Repeatable."),
]
Track = Annotated[
    list[str] | None,
    _search(
        "--track", metavar="<str>", help="Log the run through a tracker: folder, or folder:folder=runs. Repeatable."
    ),
]
Store = Annotated[
    str, _search("--store", help="What keeps measurements: folder (in the run's own), or a store of a plug-in.")
]
Cluster = Annotated[
    str | None,
    _search("--cluster", help="A Ray cluster that makes the variants (host:6379, ray://host:10001); timed is here."),
]
PoorModel = Annotated[bool, _search("--poor-model", help="Go on although the model scores near chance.")]
SaveTo = Annotated[Path | None, typer.Option("--save", help="Only write the demo's model and data to this folder.")]
MeterOption = Annotated[
    list[str] | None,
    typer.Option("--option", "-o", metavar="<str>", help="An option of a meter: latency.seconds=20. Repeatable."),
]
TechniqueOption = Annotated[
    list[str] | None,
    typer.Option("--option", "-o", metavar="<str>", help="An option of the technique: per_channel=false. Repeatable."),
]
TrainedOutput = Annotated[
    Path, typer.Option("--output", help="The folder for the weights and curves; to continue, the same.")
]
Epochs = Annotated[int | None, _search("--epochs", min=1, help="Passes over the train items; by default 10.")]
TrainingOption = Annotated[
    list[str] | None,
    _search(
        "--option",
        "-o",
        metavar="<str>",
        help="An option of training: optimizer=adam-then-sgd, lr=0.01, augment=crop+flip … Repeatable.",
    ),
]
Teacher = Annotated[
    list[str] | None,
    _search(
        "--teacher",
        metavar="<str>",
        help="With -o distill or hints: a model to learn from; a factory may name its weights after =. Repeatable.",
    ),
]
Compare = Annotated[
    str | None, _search("--compare", help='Train by several values of an option: "optimizer=sgd,adam,adam-then-sgd".')
]
Seeds = Annotated[int, _search("--seeds", min=1, help="With --compare: how many trainings for each value.")]
Target = Annotated[float | None, _search("--target", help="With --compare: the metric whose time to reach is told.")]
StepMemory = Annotated[
    bool,
    typer.Option("--memory", help="Train nothing: tell what a step holds in memory, and what each measure saves."),
]
TrainingBudget = Annotated[
    str | None, _search("--budget", help='The most time, such as "30m"; then continue with the same command.')
]
Processes = Annotated[
    int,
    typer.Option(
        "--processes", min=1, help="How many processes train together on this machine, a share of a batch each."
    ),
]
Parallel = Annotated[
    str,
    typer.Option(
        "--parallel",
        help="What --processes divide: the items (ddp), also the weights (fsdp), the inside of layers (tensor), or "
        "the layers one after the other (pipeline).",
    ),
]
FiguresOutput = Annotated[
    Path | None, typer.Option("--output", help="Where the figures go; the run's folder by default.")
]
Models = Annotated[
    list[str],
    typer.Argument(help="Two or more models, or prediction files (.npy, .npz); the first is the baseline."),
]
SplitName = Annotated[str, _data("--split", help="Which items are answered: calibrate, select or certify.")]
Original = Annotated[str | None, _model("--original", help="The original model, to time it again as well.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOptions:
    """How a model is opened."""

    weights: Weights = None
    trust_pickle: TrustPickle = False
    state: State = None
    input: Input = None

    def request(self) -> ModelRequest:
        """Return what was typed as a value; raise `BadInput` for what is not understood."""
        from trimtab.workbench.opening import ModelRequest, parse_examples, parse_states

        return ModelRequest(
            weights=self.weights,
            trust_pickle=self.trust_pickle,
            states=parse_states(self.state or ()),
            example=parse_examples(self.input or ()),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DataOptions:
    """How data is read and its answers judged."""

    preprocess: Preprocess = None
    labels: Labels = None
    output_name: OutputName = None
    groups: Groups = None
    metric: Metric = None
    cost: Cost = None
    kind: Kind = None
    positive: Positive = None
    threshold: Threshold = None
    seed: Seed = 0

    def request(self) -> DataRequest:
        """Return what was typed as a value; raise `BadInput` for what is not understood."""
        from trimtab.data.request import DataRequest

        kinds = get_args(values.Kind)
        if self.kind not in (None, *kinds):
            raise BadInput(f"--kind {self.kind!r} is none of {', '.join(kinds)}")
        return DataRequest(
            preprocess=self.preprocess,
            labels=self.labels,
            output=self.output_name,
            groups=self.groups,
            metric=self.metric,
            kind=cast("values.Kind | None", self.kind),
            positive=self.positive,
            threshold=self.threshold,
            costs=words.costs(self.cost) if self.cost else None,
            seed=self.seed,
        )

    def drop(self, text: str) -> float:
        """Return what `--max-drop` allows, in the unit of the metric that is protected."""
        return words.drop(text, self.metric or ("cost" if self.cost else None))


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadOptions:
    """How a model is called."""

    batch: Batch = 1
    length: Length = None

    def workload(self) -> values.Workload:
        """Return what was typed as a value; raise `BadInput` for what is not understood."""
        lengths = []
        for text in self.length or ():
            name, _, size = text.partition("=")
            if not name or not size.isdecimal() or int(size) == 0:
                raise BadInput(f'--length {text!r} is not understood; type it like "sequence=128"')
            lengths.append((name, int(size)))
        return values.Workload(batch=self.batch, lengths=tuple(lengths))


def spread(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command that takes the options of its groups (the dataclasses above) one by one.

    Typer reads the options of a command from its signature; this one is written so that a group is spelled once.
    """
    hints = get_type_hints(command, include_extras=True)
    groups = {name: hint for name, hint in hints.items() if isinstance(hint, type) and is_dataclass(hint)}

    @functools.wraps(command)
    def run(**given: Any) -> None:
        for name, group in groups.items():
            given[name] = group(**{field.name: given.pop(field.name) for field in fields(group)})
        command(**given)

    shown = []
    for name, parameter in inspect.signature(command).parameters.items():
        if name in groups:
            options = get_type_hints(groups[name], include_extras=True)
            shown += [_option(field.name, options[field.name], field.default) for field in fields(groups[name])]
        else:
            shown.append(_option(name, hints[name], parameter.default))
    run.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]  # what inspect.signature looks for
    return run


def _option(name: str, hint: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hint)
