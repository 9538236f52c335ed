from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from trimtab.core import plugins
from trimtab.core.errors import BadInput, Busy
from trimtab.core.files import owned
from trimtab.core.values import Goal, Limit, Measurement, Result, Settings, Split, Task, Trial, Variant, Workload
from trimtab.data.arrays import save_array
from trimtab.data.request import DataRequest
from trimtab.meters.readings import unavailable
from trimtab.search.budget import Budget
from trimtab.search.progress import Silent
from trimtab.search.race import Race
from trimtab.serving.bundle import load, read_manifest
from trimtab.stats.noninferiority import fewest_items
from trimtab.stores.folder import FolderStore
from trimtab.workbench import optimize as subject
from trimtab.workbench.opening import ModelRequest
from trimtab.workbench.optimize import (
    Effort,
    Job,
    _check_first,
    affordable,
    best_untouched,
    explore,
    optimize_job,
    original_answers,
    prepare,
    preview_job,
    store_of,
    verify_command,
)
from trimtab.workbench.proof import answers_file, once_s
from trimtab.workbench.report import read_result

MakeJob = Callable[..., Job]


class Told(Silent):
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.tried: list[str] = []
        self.said: list[str] = []

    def stage(self, text: str) -> None:
        self.said.append(text)

    def done(self, trial: Trial, best: Trial | None) -> None:
        self.tried.append(trial.name)


@pytest.fixture(scope="module")
def finished(digits_files: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Job, Result]:
    """One finished run that several tests look at."""
    os.environ["TRIMTAB_HOME"] = str(tmp_path_factory.mktemp("home"))
    model, data = digits_files
    logged = tmp_path_factory.mktemp("logged")
    effort = Effort(
        seconds=25,
        only=("onnxruntime", "static-int8"),
        trials=6,
        track=(f"folder:folder={logged}",),
        store=f"folder:folder={logged / 'kept'}",
    )
    job = Job(model=model, data=data, output=tmp_path_factory.mktemp("run"), goal=Goal(max_drop=0.02), effort=effort)
    return job, optimize_job(job)


def test_both_baselines_are_tried_and_the_model_as_given_comes_first(finished: tuple[Job, Result]) -> None:
    _, result = finished
    assert result.as_given == result.trials[0]
    assert result.as_given.steps == ()
    assert result.as_given.name == "as given on onnxruntime"
    assert result.untouched.steps == ()


def test_the_winner_is_proven_on_items_that_the_search_never_saw(finished: tuple[Job, Result]) -> None:
    _, result = finished
    assert result.winner is not None
    assert result.certificate is not None
    certify = result.task.split("certify")
    assert certify is not None
    assert result.certificate.no_worse.items == len(certify)
    assert result.certificate.data == certify.digest
    assert result.looks == result.certificate.looks >= 1
    assert result.certificate.no_worse.proven
    assert result.certificate.no_worse.low > -0.02


def test_the_final_ratios_come_from_five_processes_or_more(finished: tuple[Job, Result]) -> None:
    _, result = finished
    assert result.comparison.self_test is not None
    assert all(ratio.processes >= 5 for ratio in result.comparison.ratios)
    assert result.comparison.self_test.low <= 1 <= result.comparison.self_test.high or (
        result.comparison.self_test.verdict in ("equivalent", "inconclusive")
    )


def test_the_bundle_answers_like_the_winner(finished: tuple[Job, Result], digits_files: tuple[Path, Path]) -> None:
    job, result = finished
    loaded = load(job.output)
    with np.load(digits_files[1]) as data:
        inputs, labels = data["inputs"][:200], data["labels"][:200]
    answers = np.concatenate([loaded(row[None])["scores"] for row in inputs]).argmax(axis=1)
    assert (answers == labels).mean() > 0.8
    assert read_manifest(job.output).certificate == result.certificate


def test_a_finished_run_reads_back_as_it_was(finished: tuple[Job, Result]) -> None:
    job, result = finished
    assert read_result(job.output) == result


def place_of(typed: str) -> Path:
    """Return the folder in "folder:folder=…"."""
    return Path(typed.partition("=")[2])


def test_a_run_is_logged_where_people_look(finished: tuple[Job, Result]) -> None:
    job, result = finished
    (run,) = (path for path in place_of(job.effort.track[0]).iterdir() if path.name != "kept")
    assert run.name.startswith(f"{job.output.name}-20")
    configuration = json.loads((run / "configuration.json").read_text())
    assert (configuration["model"], configuration["max_drop"]) == (str(job.model), 0.02)
    lines = [json.loads(line) for line in (run / "readings.jsonl").read_text().splitlines()]
    assert {line["step"] for line in lines} == set(range(1, len(result.trials) + 2)), "trials, then the final readings"
    ended = [line["scope"].partition(": ")[0] for line in lines if line["name"] == "trial_time"]
    assert ended == [trial.name for trial in result.trials]
    assert {"relative_time", "accuracy_change", "bytes"} <= {line["name"] for line in lines if line["step"] == 1}
    assert {"accuracy", "latency_p50"} <= {line["name"] for line in lines if line["step"] == len(result.trials) + 1}
    status = json.loads((run / "status.json").read_text())
    assert status["status"] == "finished"
    assert all(Path(path).is_file() for path in status["artifacts"])
    assert [Path(path).name for path in status["artifacts"]] == ["report.html", "result.json"]


def test_measurements_are_kept_where_they_were_asked_to_be(finished: tuple[Job, Result]) -> None:
    job, result = finished
    kept = list(place_of(job.effort.store).iterdir())
    assert len(kept) == len(result.comparison.measurements)
    assert not (job.output / "work" / "measurements").exists()


def test_the_plain_store_is_in_the_folder_of_the_run_and_a_foreign_one_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = store_of("folder", tmp_path)
    assert isinstance(held, FolderStore)
    with pytest.raises(BadInput, match="there is no store named 'attic'; known are: folder"):
        store_of("attic", tmp_path)

    class FakeStore:
        def __init__(self, shelf: int = 1) -> None:
            self.shelf = shelf

    monkeypatch.setattr(plugins, "plugin_class", lambda group, name: FakeStore if group == "stores" else None)
    made: Any = store_of("attic:shelf=3", tmp_path)
    assert isinstance(made, FakeStore)
    assert made.shelf == 3


class BrokenTracker:
    """Begins a run, and fails at whatever comes then."""

    name = "broken"

    def start(self, run: str, configuration: object) -> None:
        pass

    def log(self, readings: object, step: int) -> None:
        raise ConnectionError("no server")

    def end(self, status: str, artifacts: object) -> None:
        raise ConnectionError("no server")


def test_a_tracker_that_fails_costs_one_warning_and_not_the_run(job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "trackers", lambda typed: {name: BrokenTracker() for name in typed})
    effort = Effort(seconds=10, only=("onnxruntime",), trials=1, track=("broken",))
    given = job(goal=Goal(max_drop=0.02), effort=effort)
    result = optimize_job(given)
    warning = "the tracker broken failed and was left out from then on: no server"
    assert [text for text in result.warnings if "tracker" in text] == [warning]
    assert read_result(given.output) == result
    assert "left out from then on" in (given.output / "report.html").read_text()


def test_a_tracker_or_a_store_that_is_not_there_is_said_before_anything_runs(job: MakeJob) -> None:
    for chosen in ({"track": ("abacus",)}, {"store": "attic"}):
        given = job(effort=Effort(**chosen))
        with pytest.raises(BadInput, match="there is no"):
            optimize_job(given)
        assert not given.output.exists()


def test_running_a_finished_job_again_tries_nothing_twice(finished: tuple[Job, Result]) -> None:
    job, result = finished
    told = Told()
    again = optimize_job(job, told)
    assert told.tried == []
    assert [trial.name for trial in again.trials] == [trial.name for trial in result.trials]
    assert again.winner == result.winner
    assert again.certificate is not None
    assert again.certificate.looks == result.certificate.looks if result.certificate else False


def test_a_run_that_ended_is_told_again_and_not_run_again(finished: tuple[Job, Result]) -> None:
    job, result = finished
    optimize_job(job)
    kept = [job.output / name for name in ("result.json", "manifest.json", "report.html", "work/journal.jsonl")]
    before = [path.stat().st_mtime_ns for path in kept]
    told = Told()
    assert optimize_job(job, told) == read_result(job.output)
    assert told.said[-1] == f"{job.output} holds this run, finished: a longer --budget or more --trials would go on"
    assert [path.stat().st_mtime_ns for path in kept] == before
    assert result.winner is not None


def test_a_report_that_is_missing_is_written_again(finished: tuple[Job, Result]) -> None:
    job, _ = finished
    optimize_job(job)
    (job.output / "report.html").unlink()
    optimize_job(job)
    assert (job.output / "report.html").is_file()


def test_the_folder_of_a_bundle_that_apply_made_is_refused(job: MakeJob) -> None:
    given = job()
    given.output.mkdir()
    (given.output / "manifest.json").write_text('{"made_by": "trimtab"}')
    with pytest.raises(BadInput, match="holds a bundle that trimtab apply made; choose another --output"):
        optimize_job(given)
    assert [path.name for path in given.output.iterdir()] == ["manifest.json"]


def test_a_folder_of_another_run_is_refused(finished: tuple[Job, Result]) -> None:
    job, _ = finished
    with pytest.raises(BadInput, match="holds a run with another goal"):
        optimize_job(replace(job, goal=Goal(max_drop=0.05)))


def test_what_was_refused_before_it_began_leaves_nothing_behind(job: MakeJob, tmp_path: Path) -> None:
    given = job(data=tmp_path / "nowhere.npz")
    with pytest.raises(BadInput):
        optimize_job(given)
    assert not given.output.exists()
    given.output.mkdir()
    with pytest.raises(BadInput):
        optimize_job(given)
    assert list(given.output.iterdir()) == [], "what was there before stays"


@pytest.mark.parametrize("name", ["run.py", "report.html"])
def test_files_of_others_are_never_overwritten(job: MakeJob, name: str) -> None:
    given = job()
    given.output.mkdir(parents=True)
    (given.output / name).write_text("mine")
    with pytest.raises(BadInput, match=f"holds {name} already, which would be overwritten; choose another --output"):
        optimize_job(given)
    assert [path.name for path in given.output.iterdir()] == [name]
    assert (given.output / name).read_text() == "mine"


def test_a_folder_in_use_is_refused(job: MakeJob) -> None:
    given = job()
    with owned(given.output / "work"), pytest.raises(Busy, match=str(os.getpid())):
        optimize_job(given)


def test_without_data_it_is_about_speed_only_and_says_so(job: MakeJob) -> None:
    given = job(data=None, effort=Effort(seconds=15, only=("onnxruntime", "dynamic-int8"), trials=3))
    result = optimize_job(given)
    assert result.certificate is None
    assert "speed only" in result.warnings[0]
    assert read_manifest(given.output).certificate is None


def test_without_labels_the_original_stands_in_for_them(
    job: MakeJob, digits_files: tuple[Path, Path], tmp_path: Path
) -> None:
    with np.load(digits_files[1]) as data:
        np.savez(tmp_path / "plain.npz", inputs=data["inputs"])
    result = optimize_job(job(data=tmp_path / "plain.npz", goal=Goal(max_drop=0.02)))
    assert result.certificate is not None
    assert result.certificate.no_worse.metric == "agreement"


def test_a_limit_that_nothing_keeps_leaves_no_winner_but_the_reason(job: MakeJob) -> None:
    goal = Goal(limits=(Limit(reading="bytes", relation="<=", bound=10.0),))
    result = optimize_job(job(goal=goal))
    assert result.winner is None
    assert result.certificate is None
    assert "bytes" in result.verdict
    assert all(trial.state in ("dropped", "failed") for trial in result.trials)


def test_too_few_items_prove_nothing_and_the_reason_names_how_many_would(
    job: MakeJob, digits_files: tuple[Path, Path], tmp_path: Path
) -> None:
    with np.load(digits_files[1]) as data:
        np.savez(tmp_path / "few.npz", inputs=data["inputs"][:120], labels=data["labels"][:120])
    result = optimize_job(job(data=tmp_path / "few.npz"))
    unproven = [proof for proof in result.comparison.quality if not proof.proven]
    assert result.winner is None or result.winner == result.as_given.name or not unproven
    assert all((proof.needed or 0) >= 299 for proof in unproven)
    assert result.looks >= 1, "what proved nothing was a look all the same"


def test_labels_in_another_order_stop_the_run_with_a_question(
    job: MakeJob, digits_files: tuple[Path, Path], tmp_path: Path
) -> None:
    with np.load(digits_files[1]) as data:
        np.savez(tmp_path / "shifted.npz", inputs=data["inputs"], labels=(data["labels"] + 3) % 10)
    with pytest.raises(BadInput, match="label order"):
        optimize_job(job(data=tmp_path / "shifted.npz"))


def test_smallest_size_wins_when_size_is_minimized(job: MakeJob) -> None:
    result = optimize_job(job(goal=Goal(objective="bytes", max_drop=0.02)))
    sizes = {m.variant.label(): m.value("bytes") for m in result.comparison.measurements}
    assert result.winner is not None
    assert sizes[result.winner] == min(size for size in sizes.values() if size is not None)


def test_an_interrupt_keeps_the_best_so_far(job: MakeJob) -> None:
    class Interrupting(Silent):
        def done(self, trial: Trial, best: Trial | None) -> None:
            if trial.steps:
                raise KeyboardInterrupt

    result = optimize_job(job(goal=Goal(max_drop=0.02)), Interrupting())
    assert any("interrupted" in warning for warning in result.warnings)
    assert result.winner is not None


def test_the_plan_names_what_would_be_tried_without_running(job: MakeJob) -> None:
    given = job()
    lines = preview_job(given)
    assert any(line.startswith("baseline: as given on onnxruntime") for line in lines)
    assert any("static-int8" in line for line in lines)
    assert not (given.output / "work").exists()


def test_a_killed_run_continues_and_repeats_at_most_the_trial_under_way(job: MakeJob, tmp_path: Path) -> None:
    given = job()
    code = "import sys; from trimtab.cli import main; sys.argv = ['trimtab', 'optimize', *sys.argv[1:]]; main()"
    words = [
        str(given.model),
        "--data",
        str(given.data),
        "--output",
        str(given.output),
        "--budget",
        "20s",
        "--trials",
        "4",
        "--max-drop",
        "2pt",
        "--only",
        "onnxruntime",
        "--only",
        "static-int8",
    ]
    journal = given.output / "work" / "journal.jsonl"
    started = subprocess.Popen(
        [sys.executable, "-c", code, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    end = time.monotonic() + 60
    while time.monotonic() < end and not (journal.exists() and journal.read_bytes().count(b"\n") >= 2):
        time.sleep(0.05)
    started.send_signal(signal.SIGKILL)
    started.wait()
    before = [json.loads(line)["name"] for line in journal.read_text().splitlines()]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    after = [json.loads(line)["name"] for line in journal.read_text().splitlines()]
    assert after[: len(before)] == before
    assert len(set(after)) == len(after)


def test_where_the_time_went_counts_what_made_the_winner(finished: tuple[Job, Result]) -> None:
    _, result = finished
    spent = dict(result.spent)
    winner = next(trial for trial in result.trials if trial.name == result.winner)
    assert spent["of it for the winner"] == pytest.approx(winner.seconds + sum(winner.making_s), abs=1e-6)
    assert len(winner.making_s) == len(winner.steps)
    assert all(took > 0 for took in winner.making_s)
    assert spent["searching"] >= sum(trial.seconds for trial in result.trials)


def test_going_on_with_an_old_folder_is_said_clearly(finished: tuple[Job, Result]) -> None:
    job, _ = finished
    told = Told()
    prepare(job, told)[0].close()
    (line,) = (text for text in told.said if "already" in text)
    assert line.startswith(f"{job.output} holds this run already: going on after its ")
    assert line.endswith("choose another --output or delete the folder)")


def test_a_fresh_folder_is_not_said_to_be_an_old_one(job: MakeJob) -> None:
    told = Told()
    prepare(job(), told)[0].close()
    assert told.said == ["opening the model and the data"]


def test_a_run_that_goes_on_keeps_time_back_for_the_proof_as_before(finished: tuple[Job, Result]) -> None:
    job, _ = finished
    race, _ = prepare(job, Silent())
    race.close()
    assert once_s(race) > 0


def test_a_model_that_is_quantized_already_is_said_so(
    job: MakeJob, digits_files: tuple[Path, Path], tmp_path: Path
) -> None:
    proto = onnx.load(digits_files[0])
    (place,) = (n for n, tensor in enumerate(proto.graph.initializer) if tensor.name == "hidden")
    del proto.graph.initializer[place]
    arrays = {"hidden_q": np.eye(64, dtype=np.int8), "scale": np.float32(1)}
    proto.graph.initializer.extend(numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items())
    proto.graph.node.insert(0, onnx.helper.make_node("DequantizeLinear", ["hidden_q", "scale"], ["hidden"]))
    onnx.save(proto, tmp_path / "small.onnx")
    for model, expected in ((tmp_path / "small.onnx", 1), (digits_files[0], 0)):
        race, warnings = prepare(job(model=model, output=tmp_path / model.stem), Silent())
        race.close()
        told = [warning for warning in warnings if "is quantized already (weights only, DequantizeLinear)" in warning]
        assert len(told) == expected


class Planned:
    """A plan that is written down: variants of the original on so many threads."""

    def __init__(self, race: Race, threads: int) -> None:
        self.asked: list[int] = []
        self._race, self._threads = race, threads

    def __iter__(self) -> Iterator[Variant]:
        for threads in range(1, self._threads + 1):
            self.asked.append(threads)
            yield self._race.shop.original.on(Settings(runtime="onnxruntime", threads=threads))


def test_a_run_that_goes_on_meets_all_its_trials_though_the_budget_is_spent(
    over: Race, enter: Callable[..., Trial]
) -> None:
    for threads in (1, 2, 3):
        enter(value=1.0, threads=threads)
    over.names.clear()
    over.budget = Budget(seconds=100, spent_s=100)
    plan = Planned(over, 9)
    assert not explore(over, iter(plan))
    assert [trial.settings.threads for trial in over.trials] == [1, 2, 3]
    assert plan.asked == [1, 2, 3], "nothing new is planned, let alone tried"


def test_what_is_new_in_the_plan_does_not_hide_what_was_tried_before(over: Race, enter: Callable[..., Trial]) -> None:
    for threads in (1, 4):
        enter(value=1.0, threads=threads)
    over.names.clear()
    over.budget = Budget(seconds=100, spent_s=100)
    assert not explore(over, iter(Planned(over, 9)))
    assert [trial.settings.threads for trial in over.trials] == [1, 4]


def test_the_number_of_trials_counts_those_of_before(over: Race, enter: Callable[..., Trial]) -> None:
    for threads in (1, 2):
        enter(value=1.0, threads=threads)
    over.names.clear()
    over.budget = Budget(seconds=1e6, trials=2)
    explore(over, iter(Planned(over, 5)))
    assert len(over.trials) == 2


def test_a_model_that_can_not_run_stops_the_search_with_the_reason(over: Race, enter: Callable[..., Trial]) -> None:
    enter(threads=1, state="failed", reason="it fell over")
    over.names.clear()
    with pytest.raises(BadInput, match="the model as given can't be run: it fell over"):
        explore(over, iter(Planned(over, 2)))


def test_a_goal_that_no_meter_reads_stops_the_search(over: Race, enter: Callable[..., Trial]) -> None:
    enter(threads=1)
    over.names.clear()
    over.shop = replace(over.shop, goal=Goal(objective="regret"))
    with pytest.raises(BadInput, match="no meter reads 'regret' of this model, so it can't be improved"):
        explore(over, iter(Planned(over, 2)))


def test_what_a_failing_meter_said_is_told_when_nothing_can_be_improved(
    over: Race, enter: Callable[..., Trial]
) -> None:
    read = unavailable("regret", "the meter regret failed: KeyError: 'x'")
    measured = Measurement(
        variant=over.shop.original, task="", workload=Workload(), readings=(read,), machine=over.machine, time=""
    )
    enter(threads=1, measurement=measured)
    over.names.clear()
    over.shop = replace(over.shop, goal=Goal(objective="regret"))
    with pytest.raises(BadInput, match=r"so it can't be improved \(the meter regret failed: KeyError: 'x'\)"):
        explore(over, iter(Planned(over, 2)))


@pytest.fixture
def doubted(over: Race, tmp_path: Path) -> Callable[..., float | None]:
    """Ask whether a binary model is any good, given its probabilities and the labels; return the threshold."""

    def ask(labels: np.ndarray, outputs: np.ndarray, **given: Any) -> float | None:
        truth, rows = (save_array(n, tmp_path / f"{n}.npy", a) for n, a in (("labels", labels), ("rows", labels)))
        split = Split(name="select", inputs=(), rows=rows, labels=truth, digest="select")
        path = answers_file(tmp_path, over.shop.original, split)
        path.parent.mkdir()
        np.save(path, outputs.astype(np.float32))
        task = Task(kind="binary", splits=(split,), classes=("no", "yes"), **given)
        job = Job(model="net.onnx", output=tmp_path)
        return original_answers(task, over.shop.original, Goal(), tmp_path, job)[1].threshold

    return ask


def test_a_good_model_is_not_doubted_for_the_threshold_that_costs_ask_for(doubted) -> None:
    labels = np.arange(400) % 2
    outputs = np.where(labels == 1, 0.9, 0.1)
    outputs[1:41:2] = 0.05  # a miss is so dear that all are called positive
    assert doubted(labels, outputs, metric="cost", costs=(1000.0, 1.0)) == 0.0


def test_a_good_model_is_not_doubted_for_probabilities_that_are_all_small(doubted) -> None:
    labels = (np.arange(400) % 10 == 0).astype(int)
    threshold = doubted(labels, np.where(labels == 1, 0.4, 0.1), metric="f1")
    assert threshold == pytest.approx(0.25)


def test_a_model_that_no_threshold_saves_is_doubted(doubted) -> None:
    labels = np.arange(400) % 2
    with pytest.raises(BadInput, match=r"where chance is .* add --poor-model"):
        doubted(labels, np.random.default_rng(0).uniform(size=400), metric="cost", costs=(1000.0, 1.0))


def test_the_best_untouched_is_the_fastest_that_keeps_its_weights(over: Race, enter: Callable[..., Trial]) -> None:
    first = enter(value=1.0)
    assert best_untouched(over) == first
    best = enter(value=0.6, threads=1)
    enter("export-openvino", value=0.8)
    enter("static-int8", value=0.1)
    enter(value=0.2, threads=2, state="dropped")
    assert best_untouched(over) == best
    exported = enter("export-openvino", value=0.5, threads=1)
    assert best_untouched(over) == exported, "an export keeps the weights as they are"


def test_a_metric_or_a_drop_that_makes_no_sense_ends_before_anything_runs(job: MakeJob) -> None:
    with pytest.raises(BadInput, match="there is no metric 'taste'"):
        optimize_job(job(data_request=DataRequest(metric="taste")))
    with pytest.raises(BadInput, match="max_drop=3 says nothing about accuracy"):
        optimize_job(job(goal=Goal(max_drop=3.0)))


def test_a_model_without_a_classifiers_luck_may_go_on_when_told_to(job: MakeJob, digits_files, tmp_path) -> None:
    with np.load(digits_files[1]) as data:
        np.savez(tmp_path / "shifted.npz", inputs=data["inputs"], labels=(data["labels"] + 3) % 10)
    given = job(data=tmp_path / "shifted.npz")
    allowed = replace(given, effort=replace(given.effort, poor_model=True))
    race, _ = prepare(allowed, Silent())
    assert race.outputs is not None
    race.close()


def test_a_budget_too_short_for_all_items_proves_on_a_sample_and_says_so(job: MakeJob, tmp_path: Path) -> None:
    slow = job(goal=Goal(max_drop=0.2), effort=Effort(seconds=100))
    race, _ = prepare(slow, Silent())
    race.close()
    task, told = race.shop.task, []
    select, certify = task.split("select"), task.split("certify")
    assert select is not None
    assert certify is not None
    (tmp_path / "again").mkdir()
    fewer = affordable(task, 0.08 * len(select), slow, tmp_path / "again", told)
    assert len(fewer.split("certify") or ()) == 105  # 0.22 × 100 s / 2.6 answers of the split / 80 ms an item
    assert told == [
        f"the proof takes 105 of the {len(certify):,} items to certify, drawn at random: the budget of 100 s is too "
        "short for the finalists to answer more (see --budget)"
    ]
    assert affordable(task, 1e-6, slow, tmp_path / "again", told) == fewer  # a continued run proves the same
    longer = replace(slow, effort=Effort(seconds=200))
    more = affordable(task, 1e-6, longer, tmp_path / "again", told)
    assert len(more.split("certify") or ()) == 211, "twice the time, twice the items"
    assert told[-1].startswith("the proof takes 211 of ")
    assert "the budget of 200 s is too short" in told[-1]
    assert affordable(task, 1e-6 * len(select), slow, tmp_path, told) == task


def test_a_sample_is_never_too_small_to_prove_anything(job: MakeJob, tmp_path: Path) -> None:
    hasty = job(goal=Goal(max_drop=0.03), effort=Effort(seconds=0.1))
    race, _ = prepare(hasty, Silent())
    race.close()
    fewer = affordable(race.shop.task, 100.0, hasty, tmp_path, [])
    assert len(fewer.split("certify") or ()) == 4 * fewest_items(0.03, 0.05)


def test_a_sample_for_recall_holds_enough_items_of_the_positive_class(tmp_path: Path) -> None:
    labels = (np.arange(20_000) % 10 == 0).astype(np.int64)
    arrays = {"x": labels[:, None].astype(np.float32), "rows": np.arange(20_000), "labels": labels}
    x, rows, truth = (save_array(name, tmp_path / f"{name}.npy", array) for name, array in arrays.items())
    certify = Split(name="certify", inputs=(x,), rows=rows, labels=truth, digest="certify")
    splits = (replace(certify, name="select"), certify)
    task = Task(kind="binary", metric="recall", classes=("no", "yes"), splits=splits)
    hasty = Job(model="net.onnx", output=tmp_path, goal=Goal(max_drop=0.05), effort=Effort(seconds=0.1))
    fewer = affordable(task, 2e6, hasty, tmp_path, []).split("certify")
    assert fewer is not None
    assert fewer.labels is not None
    assert len(fewer) < 20_000
    assert abs(np.load(fewer.labels.path).sum() - 4 * fewest_items(0.05)) <= 1


@pytest.mark.parametrize(
    ("given", "command"),
    [
        ({"data": "my val/"}, "trimtab verify fast --data 'my val/'"),
        ({"data": Path("items.npz")}, "trimtab verify fast --data items.npz"),
        ({"data": "own:items", "output": Path("a b")}, "trimtab verify 'a b' --data own:items"),
        ({"data": {"inputs": np.zeros(3)}}, "trimtab verify fast --data DATA"),
        (
            {
                "data": "val/",
                "data_request": DataRequest(labels=Path("classes.txt"), groups="speaker"),
                "model_request": ModelRequest(trust_pickle=True),
            },
            "trimtab verify fast --data val/ --labels classes.txt --groups speaker --trust-pickle",
        ),
    ],
    ids=["quoted", "path", "module", "arrays", "all"],
)
def test_the_certificate_is_run_again_with_what_was_typed(given: dict[str, object], command: str) -> None:
    job = Job(**{"model": "net.onnx", "output": Path("fast"), **given})  # type: ignore[arg-type]  # the fields of a job
    assert verify_command(job) == command


@pytest.mark.slow
def test_the_most_throughput_is_looked_for_at_a_batch_of_its_own(job: MakeJob) -> None:
    goal = Goal(objective="throughput", direction="maximize", max_drop=0.02)
    given, told = job(goal=goal), Told()
    result = optimize_job(given, told)
    batch = result.goal.workload.batch
    assert batch in (2, 4, 8, 16, 32, 64), "one item at a time costs this model more"
    assert {m.workload.batch for m in result.comparison.measurements} == {batch}
    assert f"throughput is compared at {batch} items per call" in result.notes[0]
    assert result.notes[0] in told.said
    assert result.winner is not None
    rates = {m.variant.label(): m.value("throughput") for m in result.comparison.measurements}
    assert all(rate for rate in rates.values())
    assert result.winner == result.as_given.name or "brings throughput from " in result.verdict
    again = optimize_job(given, told)
    assert (again.goal, again.notes) == (result.goal, result.notes)
    assert len(told.tried) == len(set(told.tried)), "what was tried at this batch is known"


def test_a_plan_for_throughput_says_that_the_batch_is_chosen(job: MakeJob) -> None:
    goal = Goal(objective="throughput", direction="maximize")
    assert any(line.startswith("batch: ") for line in preview_job(job(goal=goal)))
    fixed = replace(goal, workload=Workload(batch=8))
    assert not any(line.startswith("batch: ") for line in preview_job(job(goal=fixed)))


def test_a_limit_that_nothing_reads_costs_no_search(job: MakeJob) -> None:
    given = job(goal=Goal(limits=(Limit(reading="acuracy", relation=">=", bound=0.9),)))
    with pytest.raises(BadInput, match="did you mean accuracy"):
        optimize_job(given)
    assert not given.output.exists()


def test_a_limit_on_quality_that_the_answers_do_not_tell_ends_it_after_the_first_trial(
    over: Race, enter: Callable[..., Trial]
) -> None:
    over.shop = replace(over.shop, goal=Goal(limits=(Limit(reading="top5", relation=">=", bound=0.9),)))
    with pytest.raises(BadInput, match="the limit on top5 can't be checked: no meter could read it; leave that limit"):
        _check_first(over, enter(value=1.0))
