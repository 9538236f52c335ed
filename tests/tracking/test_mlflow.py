"""What is logged to MLflow, read back with MLflow's own client from a real database."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from trimtab.core.errors import BadInput, MissingExtra, TrimtabError
from trimtab.core.values import Reading
from trimtab.testing.laws import Missing
from trimtab.tracking.mlflow import MlflowTracker

NEEDED = ("mlflow", "sqlalchemy", "alembic")

pytestmark = pytest.mark.skipif(
    not all(map(find_spec, NEEDED)), reason="mlflow-skinny, sqlalchemy or alembic is not installed"
)  # none is imported here: MLflow would begin to report

SILENCING = ("PYTEST_CURRENT_TEST", "GITHUB_ACTIONS", "CI", "DO_NOT_TRACK")  # with which MLflow does not report anyway
LATENCY = Reading(name="latency_p50", value=0.25, unit="s", direction="lower", low=0.125, high=0.5, samples=10)


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database without the experiment of the tests: MLflow takes a second to make one."""
    path = tmp_path_factory.mktemp("empty") / "mlflow.db"
    MlflowTracker(f"sqlite:///{path}", experiment="none").start("run", {})
    return path


@pytest.fixture(autouse=True)
def home(empty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRIMTAB_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "home" / "mlflow").mkdir(parents=True)
    shutil.copy(empty, tmp_path / "home" / "mlflow" / "mlflow.db")
    return tmp_path / "home"


def client(home: Path) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(f"sqlite:///{home}/mlflow/mlflow.db")


def runs(home: Path, experiment: str = "trimtab") -> dict[str, Any]:
    """Return the runs of an experiment by their names."""
    kept = client(home)
    found = kept.search_runs([kept.get_experiment_by_name(experiment).experiment_id])
    assert len({run.info.run_name for run in found}) == len(found), "two runs have one name"
    return {run.info.run_name: run for run in found}


def history(home: Path, run: Any, metric: str) -> list[tuple[int, float]]:
    return [(held.step, held.value) for held in client(home).get_metric_history(run.info.run_id, metric)]


def logged(*readings: Reading, run: str = "run", **options: str) -> None:
    tracker = MlflowTracker(**options)
    tracker.start(run, {})
    tracker.log(readings, step=1)
    tracker.end("finished", [])


def test_readings_are_metrics_at_their_step_with_the_ends_of_their_interval(home):
    tracker = MlflowTracker()
    tracker.start("run", {})
    tracker.log([LATENCY, Reading(name="accuracy", value=0.5)], step=1)
    tracker.log([Reading(name="accuracy", value=0.75)], step=7)
    tracker.end("finished", [])
    run = runs(home)["run"]
    assert history(home, run, "accuracy") == [(1, 0.5), (7, 0.75)]
    assert history(home, run, "latency_p50") == [(1, 0.25)]
    assert (history(home, run, "latency_p50.low"), history(home, run, "latency_p50.high")) == ([(1, 0.125)], [(1, 0.5)])
    assert set(run.data.metrics) == {"accuracy", "latency_p50", "latency_p50.low", "latency_p50.high"}
    assert (run.data.tags["unit.latency_p50"], run.data.tags["unit.accuracy"]) == ("s", "1")


def test_what_is_unavailable_is_no_metric_and_says_why(home):
    logged(Reading(name="macs", value=None, provenance="unavailable", scope="no counter", unit="MAC"))
    run = runs(home)["run"]
    assert run.data.metrics == {}
    assert run.data.tags["unavailable.macs"] == "no counter"


def test_the_configuration_are_parameters(home):
    tracker = MlflowTracker()
    tracker.start(
        "run", {"batch": 8, "model": "a.onnx", "seed": None, "share": 0.25, "deep": True, "limits": "", "größe/1": 3}
    )
    params = runs(home)["run"].data.params
    odd = {name: params.pop(name) for name in list(params) if name.startswith("größe")}
    assert params == {"batch": "8", "model": "a.onnx", "seed": "None", "share": "0.25", "deep": "True", "limits": ""}
    assert list(odd.values()) == ["3"]


@pytest.mark.parametrize("status", ["finished", "failed", "killed"])
def test_how_a_run_ended_is_its_status(home, status):
    tracker = MlflowTracker()
    tracker.start("run", {})
    assert runs(home)["run"].info.status == "RUNNING"
    tracker.end(status, [])
    ended = runs(home)["run"].info
    assert ended.status == status.upper()
    assert ended.end_time >= ended.start_time


def test_other_words_for_the_end_are_refused(home):
    tracker = MlflowTracker()
    tracker.start("run", {})
    with pytest.raises(BadInput, match="'over' does not say how a run ended"):
        tracker.end("over", [])


def test_artifacts_lie_under_the_home_of_trimtab_and_come_back_as_they_were(home, tmp_path):
    (tmp_path / "report.html").write_text("<p>größe</p>")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights.bin").write_bytes(b"\0\1")
    tracker = MlflowTracker()
    tracker.start("run", {})
    tracker.end("finished", [tmp_path / "report.html", tmp_path / "model"])
    run = runs(home)["run"]
    fetched = Path(client(home).download_artifacts(run.info.run_id, "", str(make(tmp_path / "fetched"))))
    assert (fetched / "report.html").read_text() == "<p>größe</p>"
    assert (fetched / "model" / "weights.bin").read_bytes() == b"\0\1"
    assert run.info.artifact_uri.startswith((home / "mlflow" / "artifacts").as_uri())
    assert not (tmp_path / "mlruns").exists(), "nothing is left in the working folder"


def make(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_a_run_has_ended_even_if_a_file_of_it_is_gone(home, tmp_path):
    tracker = MlflowTracker()
    tracker.start("run", {})
    with pytest.raises(TrimtabError, match=r"gone\.html"):
        tracker.end("finished", [tmp_path / "gone.html"])
    assert runs(home)["run"].info.status == "FINISHED"


def test_everything_that_readings_say_is_in_an_artifact(home, tmp_path):
    ended = Reading(name="trial_time", value=1.5, unit="s", scope="bf16 on onnxruntime: dropped", place="größe")
    logged(ended, LATENCY)
    run = runs(home)["run"]
    path = client(home).download_artifacts(
        run.info.run_id, "readings-from-step-1.jsonl", str(make(tmp_path / "fetched"))
    )
    first, second = (json.loads(line) for line in Path(path).read_text().splitlines())
    assert (first["scope"], first["place"], first["step"]) == ("bf16 on onnxruntime: dropped", "größe", 1)
    assert (second["samples"], second["provenance"]) == (10, "measured")


def test_a_run_that_goes_on_keeps_its_metrics_and_its_number(home):
    for step, seconds in ((1, 60), (2, 120)):
        tracker = MlflowTracker()
        tracker.start('it\'s "fast"', {"seed": 1, "seconds": seconds})
        tracker.log([Reading(name="accuracy", value=step / 4)], step=step)
        if step == 1:
            first = runs(home)['it\'s "fast"'].info.run_id
            tracker.end("killed", [])
    run = runs(home)['it\'s "fast"']
    assert (run.info.run_id, run.info.status) == (first, "RUNNING")
    assert history(home, run, "accuracy") == [(1, 0.25), (2, 0.5)]
    assert run.data.params == {"seed": "1", "seconds": "60"}, "MLflow never changes a parameter"
    assert run.data.tags["seconds"] == "120"
    assert "seed" not in run.data.tags


def test_two_runs_stay_apart_and_so_do_two_experiments(home):
    logged(Reading(name="accuracy", value=0.25), run="one")
    logged(Reading(name="accuracy", value=0.5), run="two")
    logged(Reading(name="accuracy", value=0.75), run="one", experiment="other")
    values = {name: run.data.metrics["accuracy"] for name, run in runs(home).items()}
    assert values == {"one": 0.25, "two": 0.5}
    assert [run.data.metrics["accuracy"] for run in runs(home, "other").values()] == [0.75]


def test_a_run_of_somebody_else_with_the_same_name_is_left_alone(home):
    logged(run="ours")
    kept = client(home)
    experiment = kept.get_experiment_by_name("trimtab").experiment_id
    theirs = kept.create_run(experiment, run_name="theirs")
    logged(Reading(name="accuracy", value=0.5), run="theirs")
    assert kept.get_run(theirs.info.run_id).data.metrics == {}


def test_places_that_differ_are_metrics_that_differ_whatever_their_characters(home):
    places = ["spam", "größe", "spam → ham", "spam ← ham", "/body/conv", "..", "", "a.b c-d", "x" * 400, "x" * 401]
    logged(*(Reading(name="recall", value=number, place=place) for number, place in enumerate(places)))
    metrics = runs(home)["run"].data.metrics
    assert sorted(metrics.values()) == list(range(len(places)))
    assert (metrics["recall/spam"], metrics["recall/größe"], metrics["recall/a.b c-d"]) == (0, 1, 7)


def test_many_readings_are_logged_at_once(home):
    logged(*(Reading(name="recall", value=number, place=str(number)) for number in range(1500)))
    assert len(runs(home)["run"].data.metrics) == 1500


def test_values_without_bounds_do_not_end_a_run(home):
    logged(Reading(name="loss", value=float("nan")), Reading(name="ratio", value=1.0, low=0.0, high=float("inf")))
    metrics = runs(home)["run"].data.metrics
    assert metrics["loss"] != metrics["loss"]
    assert metrics["ratio.high"] > 1e300


def test_a_database_may_be_named_by_its_uri(tmp_path):
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path}/new/runs.db"
    tracker = MlflowTracker(uri=uri)
    tracker.start("run", {"seed": 1})
    (run,) = MlflowClient(uri).search_runs([MlflowClient(uri).get_experiment_by_name("trimtab").experiment_id])
    assert run.data.params == {"seed": "1"}


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("abacus://here", "abacus"),
        ("sqlite:////proc/nowhere/runs.db", "can't create the folder"),
        ("sqlite:/runs.db", "failed"),
        ("postgresql://me:secret@127.0.0.1:1/runs", "failed"),
        ("/somewhere/mlruns", "failed"),
        ("http://127.0.0.1:port/", "failed|answer"),
    ],
)
def test_an_address_that_can_not_be_used_is_refused_in_one_line(uri, words):
    with pytest.raises(TrimtabError, match=words) as caught:
        MlflowTracker(uri=uri).start("run", {})
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_server_that_does_not_run_is_named(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # a port on which nobody listens
        address = f"http://127.0.0.1:{held.getsockname()[1]}"
        with pytest.raises(TrimtabError, match=f"the MLflow server {address} gives no answer: start it"):
            MlflowTracker(uri=address).start("run", {})


class FakeServer(BaseHTTPRequestHandler):
    """A web server that is none of MLflow's."""

    def do_GET(self) -> None:
        self.send_error(404)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def stranger() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), FakeServer) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_a_server_that_is_none_of_mlflow_is_told_apart(stranger):
    with pytest.raises(TrimtabError, match=f"logging to MLflow at {stranger} failed: .*404"):
        MlflowTracker(uri=stranger).start("run", {})


def test_nothing_is_printed_reported_or_left_in_the_environment(tmp_path):
    code = (
        "import os, sys; before = dict(os.environ)\n"
        "from trimtab.tracking.mlflow import MlflowTracker\n"
        "tracker = MlflowTracker(); tracker.start('run', {'seed': 1}); tracker.end('finished', [])\n"
        "from mlflow.telemetry import get_telemetry_client\n"
        "assert get_telemetry_client() is None, 'telemetry is on'\n"
        "left = {name for name in os.environ.keys() | before if os.environ.get(name) != before.get(name)}\n"
        "assert not left, left\n"
    )
    told = {"TRIMTAB_HOME": str(tmp_path / "fresh"), "MLFLOW_HTTP_REQUEST_TIMEOUT": "7"}
    quiet = {name: value for name, value in os.environ.items() if name not in SILENCING} | told
    done = subprocess.run([sys.executable, "-c", code], env=quiet, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert runs(tmp_path / "fresh")["run"].info.status == "FINISHED"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fresh", "home"], "nothing lies in the working folder"


@pytest.mark.parametrize("package", NEEDED)
def test_names_the_command_that_installs_what_is_missing(monkeypatch, package):
    for module in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(sys, "meta_path", [Missing([package]), *sys.meta_path])
    with pytest.raises(MissingExtra, match=re.escape(f"needs the package {package}: pip install 'trimtab[mlflow]'")):
        MlflowTracker().start("run", {})


def test_a_name_that_is_none_is_refused_before_anything_is_written(home):
    with pytest.raises(BadInput, match="is not a name of a run"):
        MlflowTracker().start("../run", {})
    assert client(home).get_experiment_by_name("trimtab") is None


def test_a_step_is_timed_by_the_clock(home):
    before = time.time()
    logged(LATENCY)
    (held,) = client(home).get_metric_history(runs(home)["run"].info.run_id, "latency_p50")
    assert before - 1 <= held.timestamp / 1000 <= time.time() + 1
