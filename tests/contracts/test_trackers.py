"""Every tracker that is found keeps the laws of a tracker."""

from __future__ import annotations

from pathlib import Path

from trimtab.core.files import home
from trimtab.testing import TrackerSuite, suites
from trimtab.tracking.mlflow import MlflowTracker

globals().update(suites("trackers", TrackerSuite))


class TestMlflow(TrackerSuite):
    """MLflow takes no folder: each test logs to an experiment of its own, and everything in it is read back."""

    plugin = MlflowTracker

    def tracker(self, folder: Path) -> MlflowTracker:
        return MlflowTracker(experiment=folder.name)

    def logged(self, folder: Path) -> str:
        from mlflow import MlflowClient

        client = MlflowClient(f"sqlite:///{home() / 'mlflow' / 'mlflow.db'}")
        experiment = client.get_experiment_by_name(folder.name)
        runs = client.search_runs([experiment.experiment_id])
        files = [file.path for run in runs for file in client.list_artifacts(run.info.run_id)]
        words = [f"{run.info.run_name} {run.info.status} {run.data.to_dictionary()}" for run in runs]
        return "\n".join([*files, *words]).lower()
