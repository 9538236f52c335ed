"""The laws of a tracker."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from trimtab.core.protocols import Tracker
from trimtab.core.values import Reading, Scalar
from trimtab.testing import laws

_READINGS = (
    Reading(name="accuracy", value=0.75, low=0.7, high=0.8, samples=100),
    Reading(name="latency_p99", value=None, unit="s", provenance="unavailable", scope="n too small", samples=0),
    Reading(name="recall", value=0.5, place="größe"),
)


class TrackerSuite:
    """What every tracker keeps. Subclass it, name the class `Test…`, and set `plugin`.

    Override `tracker` when yours takes other options than `folder`, and `logged` when it logs elsewhere.
    """

    plugin: ClassVar[type[Any]]

    def tracker(self, folder: Path) -> Tracker:
        """Return a tracker without a run, that logs below the folder."""
        tracker: Tracker = self.plugin(folder=str(folder))
        return tracker

    def logged(self, folder: Path) -> str:
        """Return everything that was logged, as text."""
        return "\n".join(path.read_bytes().decode(errors="replace") for path in sorted(folder.rglob("*.*")))

    def test_has_a_name_and_no_option_without_a_default(self) -> None:
        laws.check_kind(self.plugin, Tracker)

    def test_what_is_logged_can_be_found(self, tmp_path: Path) -> None:
        tracker = self.tracker(tmp_path)
        _begin(tracker, "first-run", {"batch": 8, "model": "a.onnx", "seed": None, "share": 0.25, "deep": True})
        tracker.log(_READINGS, step=0)
        tracker.log(_READINGS[:1], step=1)
        (tmp_path / "made.bin").write_bytes(b"model")
        tracker.end("finished", [tmp_path / "made.bin"])
        text = self.logged(tmp_path)
        for word in ("a.onnx", "accuracy", "0.75", "latency_p99", "recall", "finished", "made.bin"):
            assert word in text, f"{word} was not logged"

    def test_a_second_run_may_follow_the_first(self, tmp_path: Path) -> None:
        tracker = self.tracker(tmp_path)
        for run, status in (("first-run", "finished"), ("second-run", "failed")):
            _begin(tracker, run, {"run": run})
            tracker.log(_READINGS, step=0)
            tracker.end(status, [])
        text = self.logged(tmp_path)
        assert all(word in text for word in ("first-run", "second-run", "finished", "failed"))

    def test_logging_and_ending_without_a_run_are_refused_in_words(self, tmp_path: Path) -> None:
        tracker = self.tracker(tmp_path)
        laws.check_refusal(lambda: tracker.log(_READINGS, step=0), "logging before a run was started")
        laws.check_refusal(lambda: tracker.end("finished", []), "ending a run that was not started")
        _begin(tracker, "first-run", {})
        tracker.end("finished", [])
        laws.check_refusal(lambda: tracker.log(_READINGS, step=1), "logging after the run had ended")

    def test_a_run_whose_name_leaves_the_folder_is_refused(self, tmp_path: Path) -> None:
        tracker = self.tracker(tmp_path / "runs")
        for name in ("", "../elsewhere", "/elsewhere"):
            laws.check_refusal(lambda name=name: tracker.start(name, {}), f"a run named {name!r}")  # type: ignore[misc] # binds the loop's name
        assert not list(tmp_path.glob("elsewhere*")), "a run was begun outside of the folder"


def _begin(tracker: Tracker, run: str, configuration: Mapping[str, Scalar]) -> None:
    laws.unless_missing(lambda: tracker.start(run, configuration))
