"""The laws of a runtime."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, ClassVar

import numpy as np

from trimtab.core.errors import MissingExtra, WorkerError
from trimtab.core.machine import machine
from trimtab.core.protocols import Arrays, Engine, Runtime
from trimtab.core.values import Settings, Variant, Workload
from trimtab.testing import laws
from trimtab.testing.samples import Sample, accepted, samples

# Sixteen bits keep two to three digits; a mean over a sum of them loses some more.
_TOLERANCE = {None: 1e-4, "fp32": 1e-4, "bf16": 5e-2, "fp16": 1e-2}


class RuntimeSuite:
    """What every runtime keeps. Subclass it, name the class `Test…`, and set `plugin`.

    Override `samples` for a runtime of a format that trimtab can't write.
    """

    plugin: ClassVar[type[Any]]

    def samples(self) -> Sequence[Sample]:
        """Return models with known answers; those that the runtime refuses are left out."""
        return samples()[0]

    def test_has_a_name_and_no_option_without_a_default(self) -> None:
        laws.check_kind(self.plugin, Runtime)

    def test_refuses_a_foreign_format_in_words(self) -> None:
        variant = self._accepted()[0].variant
        foreign = replace(variant, model=replace(variant.model, format="no-such-format"))
        laws.check_sentence(self.plugin().refuses(foreign), about="no-such-format")

    def test_refuses_a_device_that_does_not_exist(self) -> None:
        variant = self._accepted()[0].variant
        nowhere = variant.on(replace(variant.settings, device="no-such-device"))
        laws.check_sentence(self.plugin().refuses(nowhere), about="no-such-device")

    def test_refuses_a_setting_that_it_does_not_have(self) -> None:
        variant = self._accepted()[0].variant
        asked = replace(variant.settings, extra=(*variant.settings.extra, ("no-such-setting", True)))
        laws.check_sentence(self.plugin().refuses(variant.on(asked)), about="no-such-setting")

    def test_refusing_and_offering_settings_import_no_framework(self) -> None:
        calls = [("refuses", (sample.variant,)) for sample in self._own()] + [("settings", (machine(), Workload()))]
        held = laws.elsewhere(self.plugin, *calls)
        assert not held, f"to refuse and to offer settings, {held} were imported"

    def test_offers_different_settings_of_its_own_with_its_defaults_first(self) -> None:
        here = machine()
        small = replace(here, cores=1, flags=())
        for computer in (here, small):
            for workload in (Workload(), Workload(batch=8, concurrency=4)):
                offered = list(self.plugin().settings(computer, workload))
                assert offered, "no settings are offered"
                assert all(settings.runtime == self.plugin.name for settings in offered), "settings of another runtime"
                assert len(set(offered)) == len(offered), f"the same settings twice: {offered}"
                reason = self.plugin().refuses(self._accepted()[0].variant.on(offered[0]))
                assert reason is None, f"it refuses its own defaults: {reason}"

    def test_answers_what_the_network_computes(self) -> None:
        for sample in self._accepted():
            for items in (1, 3):
                self._check_answer(sample, sample.variant.settings, sample.network.inputs(items, items))

    def test_every_setting_it_offers_answers_alike_or_is_refused_in_words(self) -> None:
        for sample in self._accepted():
            for settings in self.plugin().settings(machine(), Workload(concurrency=4)):
                reason = self.plugin().refuses(sample.variant.on(settings))
                if reason is None:
                    self._check_answer(sample, settings, sample.network.inputs(2, 2))
                else:
                    laws.check_sentence(reason)

    def test_leaves_its_inputs_alone_and_takes_those_that_nobody_may_write_to(self) -> None:
        sample = self._accepted()[0]
        given = sample.network.inputs(3, 1)
        before = {name: value.copy() for name, value in given.items()}
        for value in given.values():
            value.flags.writeable = False
        self._engine(sample.variant)(given)
        assert all(np.array_equal(given[name], before[name]) for name in before), "the inputs were changed"

    def test_takes_arrays_that_do_not_lie_in_one_piece(self) -> None:
        for sample in self._accepted():
            backwards = {name: value[::-1] for name, value in sample.network.inputs(3, 5).items()}
            self._check_answer(sample, sample.variant.settings, backwards)

    def test_equal_calls_have_equal_answers(self) -> None:
        for sample in self._accepted():
            engine, given = self._engine(sample.variant), sample.network.inputs(3, 2)
            first = {name: np.array(value) for name, value in engine(given).items()}
            engine(sample.network.inputs(3, 3))
            again = engine(given)
            assert all(np.array_equal(first[name], again[name]) for name in first), "an answer depends on the last one"

    def test_runs_and_is_timed_in_a_worker_process(self) -> None:
        from trimtab.runtimes.session import open_session

        if not laws.installed("runtimes", self.plugin):
            laws.skip(f"{self.plugin.name} is not installed: worker processes find it by its entry point")
        sample = self._accepted()[0]
        given = sample.network.inputs(2, 4)
        with open_session(sample.variant) as session:
            answer = laws.unless_missing(lambda: session.run(given))
            times = session.time(given, 5).wall_ns
        wanted = sample.network.answer(given)["scores"]
        assert np.allclose(answer["scores"], wanted, atol=1e-4), "a worker process answers something else"
        assert times.shape == (5,) and (times > 0).all(), f"five calls took {times} ns"

    def test_a_missing_framework_is_named_with_the_extra_that_brings_it(self) -> None:
        variant = self._accepted()[0].variant
        try:
            laws.elsewhere(self.plugin, ("load", (variant,)), without=laws.OPTIONAL)
        except MissingExtra as error:
            laws.check_sentence(str(error), about="pip install")
        except WorkerError as error:
            raise AssertionError(f"without its framework it fails with {error}, not with MissingExtra") from error

    def _own(self) -> list[Sample]:
        """Return every sample on the first settings that the runtime offers, with one thread where it has threads."""
        first = next(iter(self.plugin().settings(machine(), Workload())))
        single = replace(first, threads=1)
        given = [(sample, sample.variant.on(single)) for sample in self.samples()]
        return [
            replace(sample, variant=one if self.plugin().refuses(one) is None else sample.variant.on(first))
            for sample, one in given
        ]

    def _accepted(self) -> list[Sample]:
        """Return the samples that the runtime doesn't refuse."""
        own = self._own()
        reasons = {sample.variant.model.format: self.plugin().refuses(sample.variant) for sample in own}
        found = [sample for sample in own if reasons[sample.variant.model.format] is None]
        return accepted(self.plugin.name, found, reasons)

    def _engine(self, variant: Variant) -> Engine:
        kind: Callable[[], Runtime] = self.plugin
        return laws.unless_missing(lambda: _loaded(kind, variant))

    def _check_answer(self, sample: Sample, settings: Settings, given: Arrays) -> None:
        wanted = sample.network.answer(given)
        got = self._engine(sample.variant.on(settings))(given)
        specs = sample.variant.model.signature.outputs
        assert list(got) == [spec.name for spec in specs], f"the outputs are named {list(got)}"
        for spec in specs:
            value, shape = np.asarray(got[spec.name]), wanted[spec.name].shape
            assert value.dtype.name == spec.dtype, f"{spec.name} is {value.dtype.name}, the model says {spec.dtype}"
            assert value.shape == shape, f"{spec.name} has shape {value.shape}, not {shape}"
            error = float(np.abs(value - wanted[spec.name]).max() / np.abs(wanted[spec.name]).max())
            allowed = _TOLERANCE.get(settings.precision, 5e-2)
            assert error <= allowed, f"{sample.network.name} on {settings.label()} is off by {error:.2g} of the largest"


@cache
def _loaded(plugin: Callable[[], Runtime], variant: Variant) -> Engine:
    return plugin().load(variant)
