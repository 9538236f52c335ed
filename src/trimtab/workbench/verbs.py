"""The verbs as Python calls them: models and data however they come, one value back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from trimtab.core.values import Comparison, Goal, Measurement, Result, Scalar, Task, Variant, Workload
from trimtab.data.request import DataRequest
from trimtab.meters.latency import PERCENTILES
from trimtab.search.progress import Progress
from trimtab.workbench import compare as comparing
from trimtab.workbench import measure as measuring
from trimtab.workbench.compare import Care
from trimtab.workbench.opening import ModelRequest, default_settings, example_of, open_model, shared
from trimtab.workbench.optimize import Effort, Job, optimize_job
from trimtab.workbench.task import as_bundled, given_task, unseen


@dataclass(frozen=True, slots=True, kw_only=True)
class Requests:
    """How models are opened and data is read, where that is not found out by itself."""

    model: ModelRequest = field(default_factory=ModelRequest)
    data: DataRequest = field(default_factory=DataRequest)


def optimize(
    model: Any,
    task: Any = None,
    goal: Goal | None = None,
    *,
    output: str | Path = "fast",
    effort: Effort | None = None,
    requests: Requests | None = None,
    progress: Progress | None = None,
) -> Result:
    """Find the fastest variant of a model that is proven to be no worse.

    The output folder gets the bundle, the report and what a killed run needs to continue. When no variant keeps the
    goal, `winner` of the result is None and `verdict` says why.

    Args:
        model: a path, `module:function`, a bundle, a `Model` or a live `torch.nn.Module`.
        task: a path, `module:function`, arrays, (inputs, labels), a dictionary of arrays, a torch Dataset or
            DataLoader, or an opened `Task`; None is about speed only.
        goal: what to improve and what to keep; by default the latency, at most one point worse.
        output: the folder of the run.
        effort: how much the search may spend; by default ten minutes.
        requests: how the model is opened and the data is read.
        progress: hears how the search goes.
    """
    requests = requests or Requests()
    job = Job(
        model=model,
        data=task,
        goal=goal or Goal(),
        output=Path(output),
        data_request=requests.data,
        model_request=_with_example(model, task, requests),
        effort=effort or Effort(),
    )
    return optimize_job(job, progress)


def measure(
    model: Any,
    task: Any = None,
    workload: Workload | None = None,
    *,
    meters: Sequence[str] | None = None,
    options: Mapping[str, Mapping[str, Scalar]] | None = None,
    split: str = "select",
    runtime: str | None = None,
    requests: Requests | None = None,
) -> Measurement:
    """Read what a model costs and how good it is; `model`, `task` and `requests` as in `optimize`.

    Args:
        model: the model.
        task: the data.
        workload: how it is called; by default one item at a time.
        meters: read only these; latency that is named here takes as many calls as its p99 needs.
        options: options of meters by their names: `{"latency": {"seconds": 20}}`.
        split: which items are answered: calibrate, select or certify.
        runtime: run on this runtime instead of the format's own.
        requests: how the model is opened and the data is read.
    """
    asked = dict(options or {})
    if "latency" in (meters or ()):  # who asks for it gets a p99, whatever time that takes
        asked.setdefault("latency", {"percentile": max(PERCENTILES.values())})
    with opened([model], task, requests or Requests()) as (variants, given):
        chosen = measuring.with_options(meters, asked, given)
        return measuring.measure(default_settings(variants[0], runtime), given, workload, meters=chosen, split=split)


def compare(
    models: Sequence[Any],
    task: Any = None,
    goal: Goal | None = None,
    *,
    care: Care | None = None,
    requests: Requests | None = None,
) -> Comparison:
    """Compare models with the first one: is one faster, and is it no worse? Arguments as in `optimize`."""
    with opened(models, task, requests or Requests()) as (variants, given):
        return comparing.compare(variants, unseen(given, models), goal, care)


@contextmanager
def opened(models: Sequence[Any], task: Any, requests: Requests) -> Iterator[tuple[list[Variant], Task]]:
    """Yield the models as variants and the data as a task for the first of them; their files go when the block ends."""
    with TemporaryDirectory(prefix="trimtab-") as temporary:
        folder = Path(temporary)
        variants = [
            open_model(model, folder / f"model{number}", _with_example(model, task, replace(requests, model=request)))
            for number, (model, request) in enumerate(zip(models, shared(models, requests.model), strict=True))
        ]
        request = replace(requests.data, max_drop=None)  # what items can prove is said where it is tested
        given = given_task(task, variants[0].model, folder / "data", request)
        yield variants, as_bundled(given, models, requests.data)


def _with_example(model: Any, task: Any, requests: Requests) -> ModelRequest:
    """Return how the model is opened; a live module is traced on an item of the data when nothing else is said."""
    if requests.model.example or not hasattr(model, "state_dict") or requests.data.preprocess is not None:
        return requests.model
    return replace(requests.model, example=example_of(model, task))
