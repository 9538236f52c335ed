"""Variants made on a Ray cluster of two machines: their files come home, and a worker that dies costs one variant."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from trimtab.core import plugins
from trimtab.core.errors import BadInput, Refused, WorkerCrashed, WorkerTimeout
from trimtab.core.values import Step, Variant, options
from trimtab.search.ahead import begin_ahead
from trimtab.search.cluster import Cluster, connected
from trimtab.search.making import make
from trimtab.search.plan import toolbox
from trimtab.search.race import Race

pytest.importorskip("ray")

CODE = """
import os, shutil, signal, time
from dataclasses import dataclass, replace
from pathlib import Path
from trimtab.core.errors import Refused
from trimtab.core.values import Step, options

@dataclass(frozen=True, kw_only=True)
class Plugin:
    how: str = "copies"
    flag: str = ""
    name = "travelling"
    order = 1
    @property
    def needs_target(self):
        return self.how == "times"
    def refuses(self, variant, task):
        return None
    def apply(self, variant, context):
        print("made by", self.how, flush=True)
        flag = Path(self.flag.removeprefix("at ")) if self.flag else None
        if self.how == "dies" or (self.how == "dies once" and not flag.exists()):
            if flag is not None:
                flag.touch()
            os.kill(os.getppid(), signal.SIGKILL)
            time.sleep(600)
        if self.how == "hangs":
            time.sleep(600)
        if self.how == "refuses":
            raise Refused("this can not be")
        if self.how == "times":
            context.time(variant)
        path = context.folder / "deep" / "copy.onnx"
        path.parent.mkdir(parents=True)
        shutil.copyfile(variant.model.path, path)
        (context.folder / "where.txt").write_text(str(context.folder))
        given = options({"how": self.how, "flag": self.flag})
        return variant.after(replace(variant.model, path=path), Step(technique=self.name, options=given))
"""


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Two nodes of Ray with one processor each, and a plug-in that both have; the address."""
    from ray.cluster_utils import Cluster as Nodes

    site = tmp_path_factory.mktemp("site")
    (site / "travelling.py").write_text(CODE)
    info = site / "travelling-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: travelling\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[trimtab.techniques]\ntravelling = travelling:Plugin\n")
    patch = pytest.MonkeyPatch()
    patch.syspath_prepend(str(site))
    patch.setenv("PYTHONPATH", os.pathsep.join([str(site), *(path for path in sys.path if path)]))
    patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    patch.setenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    _forget()
    nodes = Nodes(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    nodes.add_node(num_cpus=1)
    yield nodes.address
    nodes.shutdown()
    patch.undo()
    _forget()


def _forget() -> None:
    plugins._found.cache_clear()
    plugins.plugin_class.cache_clear()


@pytest.fixture
def cluster(machines: str, tmp_path: Path) -> Iterator[Cluster]:
    with connected(machines, tmp_path / "cluster.log") as made:
        assert made is not None
        yield made


@pytest.fixture
def work(cluster: Cluster, race: Race, original: Variant, tmp_path: Path) -> Any:
    """Make what a step makes of the original on the cluster, within some seconds."""

    def run(seconds: float = 60.0, **given: str) -> Any:
        step = Step(technique="travelling", options=options(given))
        return make(race.shop, original, step, seconds, tmp_path / "log", cluster=cluster)

    return run


def test_what_was_made_elsewhere_is_at_home(work: Any, race: Race, original: Variant, tmp_path: Path) -> None:
    made = work()
    path, home = made.variant.model.path, race.shop.folder.absolute()
    assert path.is_relative_to(home)
    assert path.read_bytes() == original.model.path.read_bytes()
    where = Path((path.parents[1] / "where.txt").read_text())
    assert not where.is_relative_to(home) and not where.exists(), "it was made below a folder of its own, which is gone"
    assert made.variant.steps[-1].technique == "travelling"
    assert "made by copies" in (tmp_path / "log").read_text()
    assert work() == made, "it is made once"


def test_a_technique_of_ours_makes_there_what_it_makes_here(
    cluster: Cluster, race: Race, original: Variant, tmp_path: Path
) -> None:
    step = Step(technique="static-int8")
    there = make(race.shop, original, step, 60, tmp_path / "log", cluster=cluster).variant
    here = make(replace(race.shop, folder=tmp_path / "here"), original, step, 60, tmp_path / "log").variant
    assert there.model.digest == here.model.digest
    assert there.steps == here.steps


def test_what_times_is_made_on_this_machine(work: Any, race: Race) -> None:
    path = work(how="times").variant.model.path
    assert (path.parents[1] / "where.txt").read_text() == str(path.parents[1])


def test_a_refusal_comes_back_as_it_was(work: Any) -> None:
    with pytest.raises(Refused, match="this can not be"):
        work(how="refuses")


def test_a_worker_that_is_killed_is_replaced_once(work: Any, tmp_path: Path) -> None:
    made = work(how="dies once", flag=f"at {tmp_path / 'killed'}")
    assert (tmp_path / "killed").exists()
    assert made.variant.model.path.is_file()


def test_one_whose_workers_die_fails_and_the_search_goes_on(work: Any, race: Race, cluster: Cluster) -> None:
    race.cluster = cluster
    step = Step(technique="travelling", options=options(how="dies"))
    assert race.made(race.shop.original, step) is None
    (trial,) = race.trials
    assert trial.state == "failed"
    assert trial.reason.startswith("its worker on the cluster died (")
    assert "\n" not in trial.reason
    assert race.made(race.shop.original, Step(technique="travelling")) is not None


def test_one_that_hangs_ends_at_its_limit(work: Any) -> None:
    with pytest.raises(WorkerTimeout):
        work(seconds=2.0, how="hangs")


class Noting:
    """Stands for a cluster: notes what is begun, and where."""

    def __init__(self) -> None:
        self.begun: dict[str, Path] = {}

    def begin(self, shop: Any, parent: Variant, step: Step, folder: Path, seconds: float) -> None:
        self.begun[step.technique] = folder


def test_what_will_be_asked_for_is_begun_before(machines: str, race: Race, tmp_path: Path) -> None:
    tools = toolbox(["onnxruntime", "travelling", "static-int8", "export-openvino", "keep-float"])
    race.cluster = noting = Noting()  # type: ignore[assignment] # of which only this is asked
    begin_ahead(race, tools)
    assert set(noting.begun) == {"travelling", "static-int8"}, "neither what exports nor what repairs"
    made = make(race.shop, race.shop.original, Step(technique="travelling"), 60, tmp_path / "log")
    assert made.variant.model.path.is_relative_to(noting.begun["travelling"].absolute())
    noting.begun.clear()
    begin_ahead(race, tools)
    assert set(noting.begun) == {"static-int8"}, "the other one is made already"


def test_what_was_begun_is_what_is_given(cluster: Cluster, race: Race, tmp_path: Path) -> None:
    race.cluster = cluster
    begin_ahead(race, toolbox(["onnxruntime", "travelling", "static-int8"]))
    for technique in ("travelling", "static-int8"):
        made = make(race.shop, race.shop.original, Step(technique=technique), 60, tmp_path / "log", cluster=cluster)
        assert made.variant.model.path.is_file()


def test_without_a_cluster_nothing_is_begun(race: Race, tmp_path: Path) -> None:
    with connected(None, tmp_path / "log") as none:
        assert none is None
    begin_ahead(race, toolbox(["onnxruntime"]))


def test_where_no_cluster_is_it_is_told_in_one_line(tmp_path: Path) -> None:
    for address in ("127.0.0.1:1", "ray://127.0.0.1:1", "nonsense"):
        with pytest.raises(
            BadInput, match=rf"no Ray cluster answers at {address} \(.*\); start one \(ray start --head\)"
        ):
            Cluster(address, tmp_path / "log")


@pytest.mark.usefixtures("machines")
def test_when_the_last_other_machine_goes_it_ends_with_one_line(race: Race, tmp_path: Path) -> None:
    from ray.cluster_utils import Cluster as Nodes

    nodes = Nodes(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    other = nodes.add_node(num_cpus=1)
    try:
        with connected(nodes.address, tmp_path / "one.log") as cluster:
            leaving = threading.Timer(5.0, nodes.remove_node, [other])
            leaving.start()
            with pytest.raises(WorkerCrashed, match=r"no machine beside this one|its worker on the cluster died"):
                step = Step(technique="travelling", options=options(how="hangs"))
                make(race.shop, race.shop.original, step, 300, tmp_path / "log", cluster=cluster)
            leaving.join()
        with pytest.raises(WorkerCrashed, match="no machine beside this one, which times and must not be disturbed"):
            Cluster(nodes.address, tmp_path / "two.log")
    finally:
        nodes.shutdown()
