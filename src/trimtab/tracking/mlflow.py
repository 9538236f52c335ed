"""Runs in MLflow: in a database under trimtab's home, or with any tracking server or database by its URI."""

from __future__ import annotations

import logging
import os
import re
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from trimtab.core.errors import BadInput, MissingExtra, TrimtabError
from trimtab.core.files import home, make_folder
from trimtab.core.values import Reading, Scalar, content_digest
from trimtab.tracking.runs import begun, checked_name, json_lines, points

_STATUS = {"finished": "FINISHED", "failed": "FAILED", "killed": "KILLED"}
_RUN = "trimtab_run"  # the tag by which a run is found again: the digest of its name, which may hold quotes
_LONGEST = 100  # characters of a part of a name: MLflow takes 250 in all

# Through the environment, and no other way, MLflow is told to keep to itself, and to give up on a server that does not
# answer within a minute instead of ten. In the second the user's own variables count.
_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_DISABLE_AGENT_HINT": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}


class MlflowTracker:
    """Logs each run to an experiment of MLflow.

    Readings are metrics; the unit of each, and the reason where one is unavailable, are tags. Everything that readings
    say is in an artifact besides, one JSON object a line.

    Args:
        uri: a tracking server (`http://host:5000`) or a database (`sqlite:////path/runs.db`); by default a database
            and a folder of artifacts in `mlflow/` under trimtab's home.
        experiment: the name of the experiment; it is made when it is not there.
    """

    name = "mlflow"

    def __init__(self, uri: str | None = None, experiment: str = "trimtab") -> None:
        self._uri = uri
        self._experiment = experiment
        self._client: Any = None
        self._run: str | None = None
        self._lines: list[tuple[int, str]] = []

    def start(self, run: str, configuration: Mapping[str, Scalar]) -> None:
        """Begin a run; one that was begun by this name in this experiment is continued.

        MLflow never changes a parameter: where a run that goes on is told another value, the new one is a tag.
        """
        checked_name(run)
        told = {_allowed(name): str(value) for name, value in configuration.items()}
        with self._asking():
            from mlflow.entities import Param, RunTag

            self._client = _client(self._where())
            found = self._find(run)
            known = found.data.params
            self._client.log_batch(
                found.info.run_id,
                params=[Param(name, value) for name, value in told.items() if name not in known],
                tags=[RunTag(name, value) for name, value in told.items() if known.get(name, value) != value],
                synchronous=True,
            )
        self._run, self._lines = found.info.run_id, []

    def log(self, readings: Sequence[Reading], step: int) -> None:
        """Log the readings of one step in one request."""
        run, now = begun(self._run), int(time.time() * 1000)
        values = [point for reading in readings for point in points(reading, _metric(reading))]
        tags = {f"unit.{_allowed(reading.name)}": reading.unit for reading in readings}
        tags |= {f"unavailable.{_metric(reading)}": reading.scope for reading in readings if reading.value is None}
        with self._asking():
            from mlflow.entities import Metric, RunTag

            self._client.log_batch(
                run,
                metrics=[Metric(name, value, now, step) for name, value in values],
                tags=[RunTag(name, value) for name, value in tags.items()],
                synchronous=True,
            )
        self._lines.append((step, json_lines(readings, step)))

    def end(self, status: str, artifacts: Sequence[Path]) -> None:
        """End the run, and upload the files that it made."""
        run = begun(self._run)
        if status not in _STATUS:
            raise BadInput(f"{status!r} does not say how a run ended: it is one of {', '.join(_STATUS)}")
        with self._asking():
            self._client.set_terminated(run, _STATUS[status])  # first, so that it has ended even if a file can't be had
            if self._lines:
                lines, first = "".join(lines for _, lines in self._lines), self._lines[0][0]
                self._client.log_text(run, lines, f"readings-from-step-{first}.jsonl")  # the run may be continued
            for path in artifacts:
                self._client.log_artifact(run, str(path))
        self._run = None

    def _find(self, run: str) -> Any:
        """Return the run of that name, continued or new."""
        client, name = self._client, content_digest(run)
        known = client.get_experiment_by_name(self._experiment)
        files = None if self._uri else (_folder() / "artifacts").as_uri()
        experiment = known.experiment_id if known else client.create_experiment(self._experiment, files)
        found = client.search_runs([experiment], f"tags.{_RUN} = '{name}'", max_results=1)
        if not found:
            return client.create_run(experiment, tags={_RUN: name}, run_name=run)
        client.update_run(found[0].info.run_id, "RUNNING")
        return found[0]

    def _where(self) -> str:
        return self._uri or f"sqlite:///{_folder() / 'mlflow.db'}"

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """Let MLflow work in the block, quietly; what goes wrong is told in one line."""
        with _quiet():
            from mlflow.exceptions import MlflowException
            from sqlalchemy.exc import SQLAlchemyError

            try:
                yield
            except (MlflowException, SQLAlchemyError, ImportError, OSError, ValueError) as error:
                raise TrimtabError(_line(self._where(), error)) from error


def _folder() -> Path:
    return make_folder(home().absolute() / "mlflow")


def _client(uri: str) -> Any:
    """Return the client of a server or database; a database is opened here first, MLflow would try for minutes."""
    import sqlalchemy
    from mlflow import MlflowClient
    from mlflow.store.db.db_types import DATABASE_ENGINES

    if re.split("[:+]", uri)[0] in DATABASE_ENGINES:
        address = sqlalchemy.make_url(uri)
        if address.get_backend_name() == "sqlite" and address.database:
            make_folder(Path(address.database).parent)
        engine = sqlalchemy.create_engine(address)
        engine.connect().close()
        engine.dispose()
    return MlflowClient(uri)


@contextmanager
def _quiet() -> Iterator[None]:
    """Import MLflow and keep it from reporting, from printing, and from trying for too long, while the block lasts."""
    told = _QUIET | {name: os.environ.get(name, value) for name, value in _PATIENCE.items()}
    with _environment(told), warnings.catch_warnings(action="ignore"):
        try:
            for module in ("mlflow", "sqlalchemy", "alembic"):
                import_module(module)
        except ImportError as error:
            raise MissingExtra(module, "mlflow", "logging to MLflow") from error
        logger = logging.getLogger("mlflow")
        level = logger.level
        logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            logger.setLevel(level)


@contextmanager
def _environment(told: Mapping[str, str]) -> Iterator[None]:
    """Set variables of the environment while the block lasts."""
    before = {name: os.environ.get(name) for name in told}
    os.environ.update(told)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _line(uri: str, error: Exception) -> str:
    """Return an error of MLflow in one line, without the passwords that may stand in addresses."""
    if isinstance(error.__context__, OSError) and not isinstance(error, OSError):
        said = f"the MLflow server {uri} gives no answer: start it, or check the address"
    else:
        said = f"logging to MLflow at {uri} failed: {' '.join(str(error).split())[:200]}; check uri and experiment"
    return re.sub(r"//[^/@\s]+@", "//", said)


def _metric(reading: Reading) -> str:
    """Return the name of a metric; MLflow groups by what stands before the slash."""
    return "/".join(_allowed(part) for part in (reading.name, reading.place) if part is not None)


def _allowed(part: str) -> str:
    """Return a part of a name in the characters that MLflow allows.

    One that had to change ends in a digest, so that names that differ stay apart.
    """
    made = re.sub(r"[^\w.\- ]", "_", part)[:_LONGEST]
    return part if made == part and part.strip(".") else f"{made}-{content_digest(part)[:4]}"
