"""The commands as people type them, on a tiny network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from trimtab import __version__
from trimtab.core.errors import BadInput, CertificateBroken, GoalUnmet
from trimtab.testing.networks import CONVOLUTION, PERCEPTRON
from trimtab.workbench import hardware as hardware_module


@pytest.fixture(scope="module")
def run(files: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess]:
    """One finished run that several tests look at, made by a process of its own without a terminal."""
    folder = tmp_path_factory.mktemp("run")
    words = ["optimize", files[0], "--data", files[1], "--output", folder / "fast", "--max-drop", "3pt"]
    words += ["--budget", "15s", "--trials", "3", "--only", "onnxruntime", "--only", "dynamic-int8"]
    environment = {**os.environ, "TRIMTAB_HOME": str(folder / "home"), "COLUMNS": "80"}
    code = "import sys; from trimtab.cli import main; sys.argv[0] = 'trimtab'; main()"
    given = [sys.executable, "-c", code, *map(str, words)]
    return folder / "fast", subprocess.run(given, capture_output=True, text=True, env=environment, check=False)


def fits(text: str) -> bool:
    """Say whether a terminal shows the lines as they are; progress and the report's path stay whole for programs."""
    whole = ("report: ", "  kept ", "  dropped ", "  skipped ", "  failed ")
    return all(len(line) <= 80 for line in text.splitlines() if not line.startswith(whole))


class TestOptimize:
    """The main job."""

    def test_prints_progress_table_verdict_and_report_on_80_columns(self, run):
        folder, done = run
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        assert fits(done.stdout), done.stdout
        lines = done.stdout.splitlines()
        assert lines[-1] == f"report: {folder.resolve() / 'report.html'}"
        assert "searching" in lines
        assert any(line.startswith("  kept as given on onnxruntime") for line in lines)
        assert "\x1b" not in done.stdout, "no colours without a terminal"

    def test_leaves_bundle_report_and_result(self, run, files):
        folder, _ = run
        assert {"manifest.json", "model", "run.py", "evidence.npz", "report.html", "result.json", "work"} == {
            path.name for path in folder.iterdir()
        }
        result = json.loads((folder / "result.json").read_text())
        assert result["command"].startswith("trimtab optimize ")
        again = f"trimtab verify {folder} --data {files[1]}"
        assert result["certificate"] is None or result["certificate"]["command"] == again
        assert result["version"] == __version__

    def test_the_plan_is_printed_and_nothing_is_run(self, trimtab, files, tmp_path):
        done = trimtab("optimize", files[0], "--data", files[1], "--output", tmp_path / "out", "--dry-run")
        assert done.code == 0
        assert "baseline: as given on onnxruntime" in done.out
        assert "best untouched: as given on openvino" in done.out
        assert "not tried: bf16: it helps only goals and limits on bytes" in done.out
        assert not (tmp_path / "out").exists()

    def test_a_plan_as_json_is_refused(self, trimtab, files, tmp_path):
        done = trimtab("optimize", files[0], "--output", tmp_path / "out", "--dry-run", "--json")
        assert done.code == 2
        assert "--dry-run tells the plan in words: leave --json out" in done.err

    @pytest.mark.slow
    def test_a_goal_that_can_not_be_met_is_exit_code_3_with_the_reason(self, trimtab, files, tmp_path):
        words = ["optimize", files[0], "--data", files[1], "--output", tmp_path / "out", "--max-drop", "3pt"]
        words += ["--budget", "8s", "--trials", "1", "--only", "onnxruntime", "--limit", "size <= 1kB"]
        done = trimtab(*words)
        assert done.code == GoalUnmet.exit_code == 3
        assert "limit" in done.out
        assert (tmp_path / "out" / "report.html").is_file(), "the front and the reason are still told"


class TestLater:
    """What is done with a finished run."""

    def test_the_certificate_holds_and_breaks_with_exit_code_1(self, trimtab, run, files, tmp_path):
        folder, _ = run
        done = trimtab("verify", folder, "--data", files[1])
        assert done.code == 0, done.err
        assert done.out.startswith(f"the certificate holds here: {folder} is proven with 95 % confidence to lose ")
        with np.load(files[1]) as data:
            np.savez(tmp_path / "fewer.npz", x=data["x"][:-50], labels=data["labels"][:-50])
        broken = trimtab("verify", folder, "--data", tmp_path / "fewer.npz")
        assert broken.code == CertificateBroken.exit_code == 1
        assert broken.err.startswith("trimtab: the certificate does not hold here: ")
        found = trimtab("verify", folder, "--data", tmp_path / "fewer.npz", "--json")
        assert json.loads(found.out)["holds"] is False
        assert found.code == 1

    def test_data_of_another_kind_is_exit_code_2(self, trimtab, run, tmp_path):
        other = PERCEPTRON.inputs(100, 5)
        np.savez(tmp_path / "other.npz", **other, labels=PERCEPTRON.answer(other)["scores"].argmax(axis=1))
        done = trimtab("verify", run[0], "--data", tmp_path / "other.npz")
        assert (done.code, BadInput.exit_code) == (2, 2)
        assert "none of the certified items is in the data given" in done.err

    def test_figures_are_written_in_the_formats_named(self, trimtab, run, tmp_path):
        done = trimtab("plot", run[0], "--output", tmp_path / "figures", "--formats", "svg")
        assert done.code == 0, done.err
        written = {Path(line) for line in done.out.split()}
        assert written == set((tmp_path / "figures").iterdir())
        assert {path.suffix for path in written} == {".svg"}
        assert trimtab("plot", tmp_path).code == 2

    def test_what_is_left_is_shown_and_freed_only_when_asked(self, trimtab, run, tmp_path):
        folder, _ = run
        copied = tmp_path / "fast"
        subprocess.run(["cp", "-r", folder, copied], check=True)
        shown = trimtab("clean", tmp_path)
        assert f"MB  {copied / 'work'}  (finished)" in shown.out
        assert "nothing was freed" in shown.out
        assert (copied / "work").exists()
        freed = trimtab("clean", tmp_path, "--yes")
        assert freed.code == 0
        assert not (copied / "work").exists()
        assert (copied / "manifest.json").is_file()
        assert trimtab("verify", copied, "--data", folder.parent / "x.npz").code == 2
        assert trimtab("clean", tmp_path).out == "nothing to free\n"


class TestSmaller:
    """The other verbs."""

    def test_the_version(self, trimtab):
        assert trimtab("--version").out == f"trimtab {__version__}\n"

    def test_inspecting_shows_what_a_model_is_and_what_can_be_done(self, trimtab, files):
        done = trimtab("inspect", files[0])
        assert done.code == 0
        assert fits(done.out)
        assert all(word in done.out for word in ("float32, batch × 16", "scores", "676", "Gemm", "dynamic-int8"))
        told = json.loads(trimtab("inspect", files[0], "--json").out)
        assert told["model"]["format"] == "onnx"

    def test_measuring_prints_a_table_or_json_with_stable_names(self, trimtab, files):
        words = ["measure", files[0], "--data", files[1], "--meter", "quality", "--meter", "size"]
        done = trimtab(*words)
        assert done.code == 0, done.err
        assert fits(done.out)
        assert "accuracy" in done.out
        readings = json.loads(trimtab(*words, "--json", "--split", "certify").out)["readings"]
        found = {reading["name"]: reading["value"] for reading in readings if reading["place"] is None}
        assert found["accuracy"] == 1.0
        assert found["parameters"] == 16 * 32 + 32 + 32 * 4 + 4
        assert {"f1_macro", "recall_weighted", "roc_auc", "bytes"} <= set(found)

    def test_measuring_on_another_runtime(self, trimtab, files):
        done = trimtab("measure", files[0], "--meter", "size", "--runtime", "openvino", "--json")
        assert json.loads(done.out)["variant"]["settings"]["runtime"] == "openvino"
        assert "no runtime named 'abacus'" in trimtab("measure", files[0], "--runtime", "abacus").err

    def test_predictions_are_compared_without_a_model(self, trimtab, tmp_path, monkeypatch):
        truth = np.arange(400) % 3
        np.save(tmp_path / "truth.npy", truth)
        np.save(tmp_path / "a.npy", truth)
        np.save(tmp_path / "b.npy", np.where(np.arange(400) < 40, (truth + 1) % 3, truth))
        words = ["compare", "a.npy", "a.npy", "b.npy", "--truth", "truth.npy"]
        monkeypatch.chdir(tmp_path)
        done = trimtab(*words)
        assert done.code == 0, done.err
        said = " ".join(done.out.split())
        assert "a.npy is proven with 95 % confidence to lose at most 1.0 pt of accuracy against a.npy: 0.0 pt" in said
        assert "b.npy is not proven to lose at most 1.0 pt of accuracy against a.npy: −10.0 pt (" in said
        assert said.endswith(" on 400 items.")
        assert "Variant" not in said, "there is no table of models"
        assert [found["proven"] for found in json.loads(trimtab(*words, "--json").out)] == [True, False]

    @pytest.mark.parametrize("option", [("--data", "items.npz"), ("--threshold", "0.3"), ("--kind", "binary")])
    def test_what_predictions_have_no_use_for_is_not_ignored(self, trimtab, tmp_path, option):
        np.save(tmp_path / "a.npy", np.arange(300) % 3)
        words = ["compare", tmp_path / "a.npy", tmp_path / "a.npy", "--truth", tmp_path / "a.npy"]
        done = trimtab(*words, *option)
        assert done.code == 2
        assert done.err == (
            "trimtab: --truth judges files of predictions, by --metric only: leave out what says how data is read\n"
        )
        assert trimtab(*words, "--metric", "f1_macro", "--max-drop", "5pt").code == 0

    def test_a_technique_alone(self, trimtab, files, tmp_path):
        done = trimtab("apply", "dynamic-int8", files[0], "--output", tmp_path / "out", "-o", "per_channel=true")
        assert done.code == 0, done.err
        assert done.out == f"dynamic-int8 on onnxruntime: {tmp_path / 'out'}\n", (
            "options at their defaults are not told"
        )
        told = trimtab("measure", tmp_path / "out", "--meter", "size", "--json")
        assert json.loads(told.out)["variant"]["steps"][0]["technique"] == "dynamic-int8"

    def test_simplifying_prints_what_was_fused(self, trimtab, tmp_path):
        (tmp_path / "net.onnx").write_bytes(CONVOLUTION.graph(0).SerializeToString())
        done = trimtab("apply", "simplify", tmp_path / "net.onnx", "--output", tmp_path / "out")
        assert done.code == 0, done.err
        first, second = done.out.splitlines()
        assert first == f"simplify on onnxruntime: {tmp_path / 'out'}"
        assert second.startswith("Conv + BatchNormalization → Conv (")

    def test_a_meter_takes_options_typed_by_its_signature(self, trimtab, files):
        words = ("measure", files[0], "--meter", "latency", "--json", "--option")
        done = trimtab(*words, "latency.calls=9")
        assert done.code == 0, done.err
        found = {reading["name"]: reading for reading in json.loads(done.out)["readings"]}
        assert found["latency_mean"]["samples"] == 9
        for option, said in (
            ("latency.calls=many", "latency's option calls takes a whole number, not 'many'"),
            ("latency.colour=red", "latency has no option 'colour=red'; its options are: calls, seconds"),
            ("memory.processes=2", "memory has options but isn't read: add it to the meters, or leave its options out"),
            ("seconds=2", "'seconds=2' does not say whose option it is; type it like \"latency.seconds=20\""),
        ):
            done = trimtab(*words, option)
            assert (done.code, said in done.err) == (2, True), done.err

    def test_the_machine_is_shown(self, trimtab, monkeypatch):
        from trimtab.core.values import Reading

        peaks = (Reading(name="peak_macs", value=4e10, low=3e10, high=4e10, unit="MAC/s", place="fp32"),)
        monkeypatch.setattr(hardware_module, "peaks", lambda: peaks)
        done = trimtab("hardware")
        assert done.code == 0
        assert fits(done.out)
        assert "40.0 GMACs/s" in done.out
        assert json.loads(trimtab("hardware", "--json").out)["peaks"][0]["value"] == 4e10

    def test_the_demos_model_and_data_can_be_had_to_play_with(self, trimtab, tmp_path):
        done = trimtab("demo", "--save", tmp_path / "digits")
        assert done.out.split() == [str(tmp_path / "digits" / name) for name in ("digits.onnx", "digits.npz")]
        with np.load(tmp_path / "digits" / "digits.npz") as data:
            assert set(data) == {"inputs", "labels", "split"}
