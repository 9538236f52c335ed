"""Writes docs/reference/ from the code itself, and the results of the benchmarks into docs/benchmarks.md.

    python docs/generate.py

Nothing here repeats what the code says: names, types, defaults and units come from signatures, from the fields of
the frozen values, and from readings that the meters return. Only the meaning of each reading is written down here; a
reading without a sentence, or a sentence without a reading, is an error.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import tempfile
import types
import typing
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer.main

import trimtab
from trimtab.assets import digits
from trimtab.cli.app import app
from trimtab.core import errors, plugins, values, words
from trimtab.core.protocols import Arrays, Choices, Opening, Range
from trimtab.core.values import Reading, Settings, Task, Variant, Workload
from trimtab.data import steps
from trimtab.data.task import open_task
from trimtab.data.text import tokenize_step
from trimtab.formats.onnx import OnnxFormat
from trimtab.meters.peaks import peaks
from trimtab.meters.quality import quality_readings
from trimtab.meters.size import compression
from trimtab.serving.bundle import Manifest
from trimtab.testing.fakes import FakeProcessSession
from trimtab.training.recipe import LEARNING_RATES, Recipe
from trimtab.workbench.measure import arithmetic

DOCS = Path(__file__).parent
RESULTS = DOCS.parent / "benchmarks" / "results"
NOTE = "<!-- Written by docs/generate.py from the code. Change the code, not this page. -->\n\n"

MEANING = {
    "accuracy": "share of items answered right",
    "precision": "of the items answered so, the share that is so",
    "recall": "of the items that are so, the share answered so",
    "f1": "harmonic mean of precision and recall",
    "top5": "share of items whose label is among the five highest scores",
    "roc_auc": "area under the ROC curve; of several classes the mean, one against the rest",
    "pr_auc": "average precision, the area under the precision-recall curve",
    "cost": "mean cost of an answer, in the money of `--cost`",
    "confusion_matrix": "items in one cell; the place is `true→predicted`",
    "mse": "mean squared error",
    "mae": "mean absolute error",
    "r2": "coefficient of determination",
    "relative_error": "length of the error over length of the target, over all items",
    "cosine": "mean cosine between answer and target",
    "agreement": "share of items answered as the original does",
    "latency_mean": "mean time of one warm call",
    "latency_p50": "median time of one warm call",
    "latency_p90": "upper bound of the 90th percentile at 99 % confidence; needs 64 calls",
    "latency_p99": "upper bound of the 99th percentile at 99 % confidence; needs 662 calls",
    "load_time": "reading and compiling the model in a fresh process",
    "first_call": "the first call after loading",
    "latency_end_to_end": "median time of preprocessing (tokenizing included, decoding files not) and call together",
    "throughput": "items per second; at a place such as `batch=8` those of that batch size",
    "cpu_use": "processor time over wall-clock time: cores in use during a call",
    "arithmetic": "bits of the numbers that the engine computes in, where it tells; the place is their type",
    "parameters": "elements of all weights, however they are stored",
    "bytes": "all files that the model needs",
    "bytes_compressed": "the same files compressed as in a zip archive (deflate, level 6)",
    "compression_parameters": "parameters of the original over those of the variant",
    "compression_bytes": "bytes of the original over those of the variant",
    "macs": "multiply-accumulates of one call; one MAC is two FLOPs",
    "macs_nonzero": "those whose weight is not zero",
    "macs_coverage": "share of the operators that compute which could be counted",
    "peak_memory": "peak resident memory of a fresh process that loads the model and runs it",
    "peak_macs": "most MACs a second that this machine reached; the place is the data type (`trimtab hardware`)",
    "peak_bandwidth": "most bytes a second to and from memory (`trimtab hardware`)",
}


def main(docs: Path = DOCS) -> None:
    """Write every page below a folder."""
    pages = {
        "commands": commands(),
        "python": python_page(),
        "plugins": plugin_pages(),
        "readings": readings_page(),
        "preprocessing": preprocessing(),
        "training": training(),
        "bundle": bundle(),
        "exit-codes": exit_codes(),
    }
    folder = docs / "reference"
    folder.mkdir(exist_ok=True)
    for name, text in pages.items():
        (folder / f"{name}.md").write_text(NOTE + text, "utf-8")
    page = docs / "benchmarks.md"
    page.write_text(with_results(page.read_text("utf-8"), RESULTS), "utf-8")


def commands() -> str:
    """Return the page of all commands, from the command line itself."""
    text = "# Commands\n\nEvery command prints its options with `--help`.\n"
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]  # a group
        shown = [p for p in command.params if not p.hidden and p.name != "help"]
        given = [p.name.upper() + ("…" if p.nargs == -1 else "") for p in shown if p.param_type_name == "argument"]
        usage = " ".join(["trimtab", name, *given, "[OPTIONS]"])
        text += f"\n## trimtab {name}\n\n{command.help}\n\n```text\n{usage}\n```\n"
        rows = [(_spelled(p), p.help, _default(p)) for p in shown]
        text += "\n" + table(("Argument or option", "Meaning", "Default"), rows)
    return text


def _spelled(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"`{parameter.name.upper()}`"
    return ", ".join(f"`{option}`" for option in parameter.opts)


def _default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    return "" if parameter.default in (None, False) else f"`{parameter.default}`"


def python_page() -> str:
    """Return the page of everything that `trimtab` exports."""
    text = "# Python\n\nWhat `import trimtab` offers. Each name is imported at its first use.\n"
    for name in sorted(trimtab.__all__, key=lambda name: (name[0].isupper(), name)):
        thing = getattr(trimtab, name)
        if dataclasses.is_dataclass(thing):
            text += f"\n## trimtab.{name}\n\n{_prose(thing)}\n\n{fields(typing.cast(type, thing))}"
        else:
            text += f"\n## trimtab.{name}\n\n```text\n{_signature(thing)}\n```\n\n{_prose(thing)}\n"
    return text


def _signature(function: Callable[..., Any]) -> str:
    """Return how a function is called, one argument a line."""
    hints = typing.get_type_hints(function)
    lines, starred = [], False
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and not starred:
            lines.append("    *,")
            starred = True
        default = "" if parameter.default is parameter.empty else f" = {parameter.default!r}"
        lines.append(f"    {parameter.name}: {_typed(hints[parameter.name])}{default},")
    return "\n".join([f"trimtab.{function.__name__}(", *lines, f") -> {_typed(hints['return'])}"])


def plugin_pages() -> str:
    """Return the page of every plug-in that is installed, with its options."""
    text = (
        "# Plug-ins\n\nEverything here is found through the entry-point group named; a package of yours can add to it "
        "([how](../howto/plugins.md)). Options are the keyword arguments of the class. A search varies those with "
        "values listed under *tried*.\n"
    )
    for group in plugins.GROUPS:
        text += f"\n## {group.capitalize()}\n\nEntry-point group `trimtab.{group}`.\n"
        for name in plugins.names(group):
            kind = plugins.plugin_class(group, name)
            text += f"\n### {name}\n\n{_prose(kind)}\n"
            rows = [_option(parameter, kind) for parameter in inspect.signature(kind).parameters.values()]
            if rows:
                text += "\n" + table(("Option", "Type", "Default", "Tried"), rows)
    return text


def _option(parameter: inspect.Parameter, kind: type) -> tuple[str, str, str, str]:
    hint = typing.get_type_hints(kind.__init__, include_extras=True).get(parameter.name, Any)
    marks = typing.get_args(hint)[1:] if typing.get_origin(hint) is Annotated else ()
    tried = [f"`{value}`" for mark in marks if isinstance(mark, Choices) for value in mark.values]
    tried += [f"{mark.low:g} to {mark.high:g}" for mark in marks if isinstance(mark, Range)]
    default = "required" if parameter.default is parameter.empty else f"`{parameter.default!r}`"
    return f"`{parameter.name}`", f"`{_typed(hint)}`", default, ", ".join(tried)


def _prose(thing: Any) -> str:
    """Return a docstring as Markdown: its paragraphs, and its arguments and errors as lists."""
    text = inspect.getdoc(thing) or ""
    prose, *sections = re.split(r"^(Args|Raises):\n", text, flags=re.MULTILINE)
    for title, body in zip(sections[::2], sections[1::2], strict=True):
        joined = re.sub(r"\n\s{8,}", " ", body)
        items = [f"- `{name}`: {what}" for name, what in re.findall(r"^ {4}(\w+): (.+)$", joined, re.MULTILINE)]
        prose = prose.rstrip() + ("\n\nRaises:" if title == "Raises" else "") + "\n\n" + "\n".join(items)
    return prose.strip()


def readings_page() -> str:
    """Return the page of the stable names, from readings that the meters return on the digits that ship."""
    found: dict[str, list[Reading]] = {}
    for reading in _every_reading():
        base = re.sub(r"_(macro|micro|weighted)$", "", reading.name)
        found.setdefault(base, []).append(reading)
    if strangers := set(found) ^ set(MEANING):
        raise SystemExit(f"these readings lack a meaning, or no meter gives them: {sorted(strangers)}")
    rows = [(f"`{name}`", what, _units(found[name]), _directions(found[name])) for name, what in MEANING.items()]
    short = [(f"`{word}`", f"`{name}`") for word, name in words.SHORT_NAMES.items()]
    return (
        "# Readings\n\nThe names in `--json`, in `--limit`, in the manifest and in Python. They are stable: a change "
        "is announced in the change log. Units are SI; `1` is a plain number, and shares run from 0 to 1.\n\n"
        + table(("Name", "Meaning", "Unit", "Better"), rows)
        + "\n`accuracy`, `precision`, `recall` and `f1` also come as `_macro`, `_micro` and `_weighted`, and with a "
        "class as their place. Plain, the last three are those of the positive class (binary) or the macro mean "
        "(several classes). "
        "The accuracy of a class is the share of its items that is answered right, which is its recall; so "
        "`accuracy_macro` is balanced accuracy, and `accuracy_micro` and `accuracy_weighted` are accuracy itself.\n"
        "\n## Fields of a reading\n\n"
        + fields(Reading)
        + "\n`provenance` is one of "
        + ", ".join(f"`{value}`" for value in typing.get_args(values.Provenance))
        + ". A reading that could not be had has no value and says why in its scope; it is never zero.\n"
        "\n## Short names\n\nWhat `--limit` and `--minimize` also understand.\n\n" + table(("Typed", "Reading"), short)
    )


def _units(readings: list[Reading]) -> str:
    return ", ".join(sorted({f"`{reading.unit}`" for reading in readings}))


def _directions(readings: list[Reading]) -> str:
    found = {reading.direction for reading in readings if reading.value is not None} - {"none"}
    return ", ".join(sorted(found)) or "–"


def _every_reading() -> Iterator[Reading]:
    """Yield at least one reading of every name: from each meter on a fake session, and from answers of each kind."""
    held, rng = digits(), np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        model = OnnxFormat().open(str(held.model), Opening(folder=Path(folder)))
        variant = Variant(model=model, settings=Settings(runtime="onnxruntime"))
        data = {"inputs": held.inputs, "labels": held.labels, "split": held.split}
        task = open_task(data, model, Path(folder) / "data")
        answer = _answers(model.signature.outputs[0].name, rng)
        for name in plugins.names("meters"):
            read = plugins.make("meters", name).read(FakeProcessSession(variant, answer), variant, task, Workload())
            yield from (item for item in read if isinstance(item, Reading))
        telling = FakeProcessSession(variant, answer)
        telling.told = {**telling.told, "precision": "bf16"}
        yield from arithmetic(telling)
    sizes = [Reading(name="parameters", value=4.0), Reading(name="bytes", value=4.0)]
    yield from compression(sizes, sizes)
    for reading in peaks(seconds=0.0, engines=()):
        yield dataclasses.replace(reading, value=1.0, direction="higher")
    labels, scores = np.arange(20) % 2, rng.random((20, 2)).astype(np.float32)
    yield from quality_readings(Task(kind="binary", costs=(10.0, 1.0), threshold=0.5), labels, scores, scores)
    yield from quality_readings(Task(kind="regression"), scores, scores + 0.1)


def _answers(output: str, rng: np.random.Generator) -> Callable[[Arrays], dict[str, Any]]:
    def answer(inputs: Arrays) -> dict[str, Any]:
        return {output: rng.random((len(next(iter(inputs.values()))), 10)).astype(np.float32)}

    return answer


def preprocessing() -> str:
    """Return the page of the steps that a TOML file may list."""
    text = (
        "# Preprocessing steps\n\nThe steps of a `--preprocess` file, one `[[step]]` each, in their order "
        "([how](../howto/data.md)). Every step also takes `input`, the name of the model input it is meant for.\n"
    )
    for name, function in steps.STEPS.items():
        parameters = [p for p in inspect.signature(function).parameters.values() if p.name != "batch"]
        hints = typing.get_type_hints(function)
        text += f"\n## {name}\n\n{_first(function)}\n"
        rows = [(f"`{p.name}`", f"`{_typed(hints[p.name])}`", _plain_default(p)) for p in parameters]
        if rows:
            text += "\n" + table(("Option", "Type", "Default"), rows)
    step = tokenize_step(Path("tokenizer.json"))
    text += (
        f"\n## {step.technique}\n\nTurn texts into token ids, with `tokenizer` (a `tokenizer.json` or its folder, "
        "beside the TOML file), `length`, the most tokens that are kept (by default what the model or the "
        "tokenizer says), and `width`, to which all texts are padded and cut (by default the longest of the data).\n"
    )
    return text


def _plain_default(parameter: inspect.Parameter) -> str:
    return "required" if parameter.default is parameter.empty else f"`{parameter.default!r}`"


def training() -> str:
    """Return the page of the options of training, from the fields of the recipe and what its docstring says of them."""
    said = dict(re.findall(r"^ {4}(\w+): (.+)$", inspect.getdoc(Recipe) or "", re.MULTILINE))
    hints = typing.get_type_hints(Recipe)
    rows = [
        (f"`{f.name}`", said[f.name], f"`{_typed(hints[f.name])}`", f"`{f.default}`")
        for f in dataclasses.fields(Recipe)
    ]
    rates = [(f"`{name}`", f"`{rate:g}`") for name, rate in LEARNING_RATES.items()]
    return (
        "# Training options\n\nWhat `-o name=value` of `trimtab train` takes, and the fields of `Recipe` in Python "
        "([how](../howto/training.md)).\n\n"
        + table(("Option", "Meaning", "Type", "Default"), rows)
        + "\n## Usual learning rates\n\nTaken where `lr` is none; after the switch to SGD, where `sgd_lr` is.\n\n"
        + table(("Optimizer", "Rate"), rates)
    )


def bundle() -> str:
    """Return the page of the bundle's folder and of every field of its manifest."""
    text = (
        "# Bundle\n\nThe `--output` folder of `optimize` and `apply`.\n\n"
        + table(
            ("File", "What it is"),
            [
                ("`model/`", "the model's files"),
                ("`manifest.json`", "how it is run, what was done, what was measured and proven"),
                ("`run.py`", "runs the model: alone on ONNX Runtime and OpenVINO, through trimtab on PyTorch"),
                ("`tokenizer.json`", "what texts are prepared with, where the data is text"),
                ("`evidence.npz`", "the original's answers to the certified items, for `trimtab verify`"),
                ("`result.json`", "the whole search, for `trimtab plot` and `trimtab.reports`"),
                ("`report.html`", "the report; opens offline"),
                ("`work/`", "what a run needs to continue; `trimtab clean` frees it"),
            ],
        )
        + "\n`apply` writes no evidence, result or report. Paths in the manifest are relative to the folder.\n"
    )
    for kind in _nested(Manifest):
        title = "manifest.json" if kind is Manifest else kind.__name__
        text += f"\n## {title}\n\n{_prose(kind)}\n\n{fields(kind)}"
    return text


def _nested(kind: Any, seen: list[type] | None = None) -> list[type]:
    """Return a frozen value and every other one that its fields hold, each once, the outer before the inner."""
    seen = [] if seen is None else seen
    if dataclasses.is_dataclass(kind) and kind not in seen:
        seen.append(typing.cast(type, kind))
        for hint in typing.get_type_hints(kind).values():
            _nested(hint, seen)
    for inner in typing.get_args(kind):
        _nested(inner, seen)
    return seen


def exit_codes() -> str:
    """Return the page of exit codes, from the tree of errors."""
    rows = [("`0`", "done", ""), ("`130`", "interrupted with Ctrl-C; run the same command again to continue", "")]
    kinds = (errors.TrimtabError, *_below(errors.TrimtabError))
    rows += [(f"`{kind.exit_code}`", _first(kind).rstrip("."), f"`{kind.__name__}`") for kind in kinds]
    rows.sort(key=lambda row: (int(row[0].strip("`")), row[2]))
    return (
        "# Exit codes\n\nAn error is one line on standard error: what happened, why, and what to do next. In Python "
        "it is an exception from `trimtab.core.errors`.\n\n" + table(("Code", "Meaning", "Exception"), rows)
    )


def _below(kind: type[errors.TrimtabError]) -> Iterator[type[errors.TrimtabError]]:
    for child in kind.__subclasses__():
        if child.__module__ == errors.__name__:
            yield child
            yield from _below(child)


def with_results(page: str, folder: Path) -> str:
    """Return the page with every results/*.md, in the order of their names, between its marks."""
    found = [_as_section(file.read_text("utf-8")) for file in sorted(folder.glob("*.md"))]
    block = "\n" + ("\n\n".join(found) or "Not run yet.") + "\n\n"
    return re.sub(r"(?<=<!-- results -->\n).*(?=<!-- end -->)", lambda _: block, page, flags=re.DOTALL)


def _as_section(text: str) -> str:
    """Return a page as a section of another one: its highest heading becomes the third level."""
    highest = min((len(marks) for marks in re.findall(r"^(#+) ", text, re.MULTILINE)), default=3)
    return re.sub(r"^#+(?= )", lambda m: "#" * (len(m[0]) + 3 - highest), text, flags=re.MULTILINE).strip()


def fields(kind: type) -> str:
    """Return a table of the fields of a frozen value."""
    hints = typing.get_type_hints(kind)
    return table(("Field", "Type"), [(f"`{f.name}`", f"`{_typed(hints[f.name])}`") for f in dataclasses.fields(kind)])


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """Return a Markdown table."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def _first(thing: Any) -> str:
    return (inspect.getdoc(thing) or "").partition("\n\n")[0].replace("\n", " ")


def _typed(hint: Any) -> str:
    """Return a type as a reader expects it: without modules and marks."""
    if typing.get_origin(hint) is Annotated:
        hint = typing.get_args(hint)[0]
    if isinstance(hint, type) and not isinstance(hint, types.GenericAlias):
        return hint.__name__
    text = re.sub(r"\b(?:typing|collections\.abc|pathlib(?:\._local)?|trimtab(?:\.\w+)+)\.", "", str(hint)).replace(
        "NoneType", "None"
    )
    return "options" if text == _typed_options() else text


def _typed_options() -> str:
    return str(values.Options)


if __name__ == "__main__":
    main()
