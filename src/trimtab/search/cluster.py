"""Makes variants on the machines of a Ray cluster; whatever is timed is timed on this one."""

from __future__ import annotations

import contextlib
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtab.core.errors import BadInput, MissingExtra, TrimtabError, WorkerCrashed, WorkerTimeout
from trimtab.core.files import inside, make_folder, write_bytes
from trimtab.core.process import Limits, Process, revived
from trimtab.core.values import Step, Variant
from trimtab.formats.torch_tracing import first_line
from trimtab.search.parcel import Parcel, below, moved, packed, unpacked, written

if TYPE_CHECKING:
    from trimtab.search.making import Shop

_SILENT = "no Ray cluster answers at {} ({}); start one (ray start --head), and give its address or ray://host:10001"
_REACH_S, _START_S = 10.0, 120.0  # to reach the cluster's port, and to be taken in
_SHIPPING_S = 60.0  # for files to travel, on top of what making may take
_LOOK_S = 2.0  # how often it is looked whether the cluster is still there
_GRACE, _MOST_GRACE_S = 0.5, 30.0  # beyond the deadline that a technique knows, until its process is ended


class Cluster:
    """A Ray cluster, reached through a process of its own: Ray's threads and words stay off the one that times."""

    def __init__(self, address: str, log: Path) -> None:
        limits = Limits(start_s=_START_S, call_s=_START_S)
        self._process = Process("trimtab.search.cluster:Driver", address, log=log, limits=limits)
        try:
            _reach(address)
            self._process.start()
        except (OSError, ValueError, WorkerTimeout) as error:
            raise BadInput(_SILENT.format(address, first_line(error))) from error

    def begin(self, shop: Shop, parent: Variant, step: Step, folder: Path, seconds: float) -> None:
        """Begin to make a variant, for the one who will ask for it."""
        self._process.call("begin", shop, parent, step, folder, seconds)

    def make(self, shop: Shop, parent: Variant, step: Step, folder: Path, seconds: float, log: Path) -> Variant:
        """Return the variant that a step makes of its parent; its files come to the folder, what was said to the log.

        Raises:
            WorkerTimeout: it took too long, waiting for a free machine included.
            WorkerCrashed: its worker died, and the one after it.
            TrimtabError: what the technique raised.
        """
        given = (shop, parent, step, folder, seconds, log)
        made: Variant = self._process.call("make", *given, timeout_s=most_s(seconds) + 2 * _SHIPPING_S)
        return made

    def close(self) -> None:
        """Leave the cluster, which ends what was begun and not asked for."""
        self._process.close()


class Driver:
    """The object in that process, connected to the cluster at an address.

    A worker that dies is replaced by another one once, on any machine that is left; then its variant fails.
    """

    def __init__(self, address: str) -> None:
        self._ray, self._address = _import_ray(), address
        try:
            self._ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            raise BadInput(_SILENT.format(address, first_line(error))) from error
        self._here = None
        if not address.startswith("ray://"):
            self._here = self._ray.get_runtime_context().get_node_id()
        self._check()
        chosen = {} if self._here is None else {"label_selector": {"ray.io/node-id": f"!{self._here}"}}
        self._made = self._ray.remote(_made_there).options(num_cpus=1, max_retries=1, **chosen)
        self._shops: dict[str, Any] = {}
        self._begun: dict[Path, Any] = {}

    def begin(self, shop: Shop, parent: Variant, step: Step, folder: Path, seconds: float) -> None:
        """Begin to make a variant, for the one who will ask for it."""
        key = shop.task.digest + shop.original.key
        if key not in self._shops:
            self._shops[key] = self._ray.put(packed(replace(shop, memory_bytes=None)))
        if folder not in self._begun:
            self._begun[folder] = self._made.remote(self._shops[key], packed(parent), step, folder.absolute(), seconds)

    def make(self, shop: Shop, parent: Variant, step: Step, folder: Path, seconds: float, log: Path) -> Variant:
        """Wait for a variant, write its files into the folder, and return it."""
        self.begin(shop, parent, step, folder, seconds)
        kind, content, files, said = self._awaited(self._begun.pop(folder), seconds)
        make_folder(log.parent)
        with log.open("a") as file:
            file.write(said)
        if kind == "error":
            raise revived(*content)
        for name, held in files:
            write_bytes(inside(folder, name), held)
        made: Variant = content
        return made

    def _awaited(self, reference: Any, seconds: float) -> Any:
        end = time.monotonic() + most_s(seconds) + _SHIPPING_S
        try:
            while not self._ray.wait([reference], timeout=_LOOK_S)[0]:
                self._check()
                if time.monotonic() > end:
                    self._ray.cancel(reference, force=True)
                    raise WorkerTimeout(f"took longer on the cluster than its limit of {seconds:.3g} s")
            return self._ray.get(reference)
        except (self._ray.exceptions.RayError, ConnectionError) as error:
            raise WorkerCrashed(f"its worker on the cluster died ({first_line(error)})") from error

    def _check(self) -> None:
        """Raise where no machine is left that may work; this one times, and is not to be disturbed."""
        alive = [node["NodeID"] for node in self._ray.nodes() if node["Alive"]]
        if not any(node != self._here for node in alive):
            raise WorkerCrashed(
                f"the cluster at {self._address} has no machine beside this one, which times and must not be "
                f"disturbed; add one: ray start --address={self._address}"
            )


@contextlib.contextmanager
def connected(address: str | None, log: Path) -> Iterator[Cluster | None]:
    """Be connected to the cluster at an address, "host:6379", "ray://host:10001" or "auto"; to none without one."""
    cluster = None if address is None else Cluster(address, log)
    try:
        yield cluster
    finally:
        if cluster is not None:
            cluster.close()


def _reach(address: str) -> None:
    """Raise `OSError` where nothing listens: Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if address != "auto":
        socket.create_connection((host, int(port)), timeout=_REACH_S).close()


def most_s(seconds: float) -> float:
    """Return the seconds after which making is ended, where a technique knows of so many."""
    return seconds + min(_GRACE * seconds, _MOST_GRACE_S) + 1.0


def _made_there(shop: Parcel, parent: Parcel, step: Step, folder: Path, seconds: float) -> Any:
    """Make a variant on a machine of the cluster, in a process of its own as at home, and return it with its files."""
    base = Path(tempfile.mkdtemp(prefix="trimtab-"))
    try:
        log, there = base / "log", make_folder(below(base, folder))
        limits = Limits(call_s=most_s(seconds))
        try:
            with Process("trimtab.search.making:Maker", unpacked(shop, base), log=log, limits=limits) as maker:
                made = maker.call("make", unpacked(parent, base), moved(step, lambda p: below(base, p)), there, seconds)
        except TrimtabError as error:
            return "error", (type(error).__name__, str(error)), (), _read(log)
        back = moved(made, lambda path: Path("/") / path.relative_to(base) if path.is_relative_to(base) else path)
        return "made", back, written(there), _read(log)
    finally:
        shutil.rmtree(base, ignore_errors=True)


def _read(log: Path) -> str:
    return log.read_text(errors="replace") if log.is_file() else ""


def _import_ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise MissingExtra("ray", "ray", "--cluster") from error
    return ray
