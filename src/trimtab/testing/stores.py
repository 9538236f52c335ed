"""The laws of a store."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from trimtab.core.errors import WorkerTimeout
from trimtab.core.machine import machine
from trimtab.core.process import Process, imported
from trimtab.core.protocols import Store
from trimtab.core.values import Measurement, Reading, Trace, Workload
from trimtab.testing import laws
from trimtab.testing.samples import samples

_KEY = "0123456789abcdef0123456789abcdef"
_KILLS_S = (0.02, 0.05, 0.11)


class StoreSuite:
    """What every store keeps. Subclass it, name the class `Test…`, and set `plugin`.

    Override `store` when yours takes other options than `folder`.
    """

    plugin: ClassVar[type[Any]]

    def store(self, folder: Path) -> Store:
        """Return an empty store the first time, and the same one, opened again, for the same folder."""
        store: Store = self.plugin(folder=str(folder))
        return store

    def test_has_a_name_and_no_option_without_a_default(self) -> None:
        laws.check_kind(self.plugin, Store)

    def test_nothing_is_kept_under_an_unknown_key(self, tmp_path: Path) -> None:
        store = self.store(tmp_path)
        assert store.get(_KEY) is None, "an empty store holds something"
        store.put(_KEY[::-1], measurement(1.0))
        assert store.get(_KEY) is None, "what was put under one key is got under another"

    def test_what_is_got_equals_what_was_put(self, tmp_path: Path) -> None:
        store = self.store(tmp_path)
        for kept in (measurement(0.1), measurement(float("inf")), measurement(None)):
            store.put(_KEY, kept)
            assert (got := store.get(_KEY)) == kept, f"{kept.readings} was put, {got and got.readings} is got"

    def test_keys_do_not_mix_and_the_last_one_put_counts(self, tmp_path: Path) -> None:
        store = self.store(tmp_path)
        for value in (1.0, 2.0):
            store.put(_KEY, measurement(value))
            store.put(_KEY[::-1], measurement(-value))
        assert store.get(_KEY) == measurement(2.0), "what is got is not what was put last"
        assert store.get(_KEY[::-1]) == measurement(-2.0), "what is got is not what was put last"

    def test_is_still_there_for_the_next_process(self, tmp_path: Path) -> None:
        self.store(tmp_path).put(_KEY, measurement(1.0))
        assert self.store(tmp_path).get(_KEY) == measurement(1.0), "what was put is gone when the store is opened again"

    def test_a_process_killed_while_it_puts_leaves_the_old_one_or_the_new(self, tmp_path: Path) -> None:
        if "folder" not in inspect.signature(self.plugin).parameters:
            laws.skip(f"{self.plugin.name} takes no folder, so another process can't be told where to put")
        values = [measurement(float(number), length=20_000) for number in range(2)]
        for delay_s in _KILLS_S:
            with Process(f"{__name__}:Putter", laws.address(self.plugin), str(tmp_path / "kept")) as other:
                other.call("put", values[:1])
                with contextlib.suppress(WorkerTimeout):
                    other.call("put_for_ever", values, timeout_s=delay_s)
            assert self.store(tmp_path / "kept").get(_KEY) in values, "half of a measurement was kept"


def measurement(value: float | None, length: int = 3) -> Measurement:
    """Return a measurement of one reading and of a trace of that length."""
    reading = Reading(name="latency_p50", value=value, unit="s", scope="a fake", place="größe=1")
    if value is None:
        reading = replace(reading, provenance="unavailable", samples=0)
    times = tuple(float(number) for number in range(length))
    variant = samples()[0][0].variant
    return Measurement(
        variant=variant,
        task="a task",
        workload=Workload(batch=2, lengths=(("sequence", 7),)),
        readings=(reading,),
        traces=(Trace(name="latency", times=times, values=times, unit="s"),),
        machine=replace(machine(), load_average=0.5, pressure=None, steal_s=None),
        time="2030-01-01T00:00:00+00:00",
    )


class Putter:
    """The object in the process that is killed while it puts."""

    def __init__(self, plugin: str, folder: str) -> None:
        self._store: Store = imported(plugin)(folder=folder)

    def put(self, values: Sequence[Measurement]) -> None:
        """Put one measurement after the other, under the same key."""
        for value in values:
            self._store.put(_KEY, value)

    def put_for_ever(self, values: Sequence[Measurement]) -> None:
        """Put them by turns until somebody kills this process."""
        while True:
            self.put(values)
