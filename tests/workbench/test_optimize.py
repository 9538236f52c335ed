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

import numpy as np
import pytest

from trimtab.core.errors import BadInput, Busy
from trimtab.core.files import owned
from trimtab.core.values import Goal, Limit, Result, Settings, Trial, Variant
from trimtab.data.request import DataRequest
from trimtab.search.budget import Budget
from trimtab.search.progress import Silent
from trimtab.search.race import Race
from trimtab.serving.bundle import load, read_manifest
from trimtab.stats.noninferiority import fewest_items
from trimtab.workbench.opening import ModelRequest
from trimtab.workbench.optimize import (
    Effort,
    Job,
    affordable,
    best_untouched,
    explore,
    optimize_job,
    prepare,
    preview_job,
    verify_command,
)
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
    effort = Effort(seconds=25, only=("onnxruntime", "static-int8"), trials=6)
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


def test_running_a_finished_job_again_tries_nothing_twice(finished: tuple[Job, Result]) -> None:
    job, result = finished
    told = Told()
    again = optimize_job(job, told)
    assert told.tried == []
    assert [trial.name for trial in again.trials] == [trial.name for trial in result.trials]
    assert again.winner == result.winner
    assert again.certificate is not None
    assert again.certificate.looks == result.certificate.looks if result.certificate else False


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
    assert spent["of it for the winner"] == pytest.approx(winner.seconds + winner.making_s, abs=1e-6)
    assert (winner.making_s > 0) == bool(winner.steps)
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
    assert len(fewer.split("certify") or ()) == 107  # 0.3 × 100 s / 3.5 answers of the split / 80 ms an item
    assert told == [
        f"the proof takes 107 of the {len(certify):,} items to certify, drawn at random: the budget of 100 s is too "
        "short for the finalists to answer more (see --budget)"
    ]
    assert affordable(task, 1e-6, slow, tmp_path / "again", told) == fewer  # a continued run proves the same
    assert affordable(task, 1e-6 * len(select), slow, tmp_path, told) == task


def test_a_sample_is_never_too_small_to_prove_anything(job: MakeJob, tmp_path: Path) -> None:
    hasty = job(goal=Goal(max_drop=0.03), effort=Effort(seconds=0.1))
    race, _ = prepare(hasty, Silent())
    race.close()
    fewer = affordable(race.shop.task, 100.0, hasty, tmp_path, [])
    assert len(fewer.split("certify") or ()) == 4 * fewest_items(0.03, 0.05)


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
