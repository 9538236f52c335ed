"""The laws of a technique."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from trimtab.core import plugins
from trimtab.core.engine import ready
from trimtab.core.errors import Refused
from trimtab.core.protocols import Context, Technique
from trimtab.core.values import Options, Step, Task, Variant
from trimtab.testing import laws
from trimtab.testing.samples import Sample, accepted, samples, task

_SECONDS = 300.0
_SEED = 3


class TechniqueSuite:
    """What every technique keeps. Subclass it, name the class `Test…`, and set `plugin`.

    `options` are those to test it with. Override `samples` for a technique on a format that trimtab can't write.
    """

    plugin: ClassVar[type[Any]]
    options: ClassVar[Options] = ()

    def samples(self) -> Sequence[Sample]:
        """Return models to work on; those that the technique refuses are left out."""
        return samples()[0]

    def test_has_a_name_and_no_option_without_a_default(self) -> None:
        laws.check_kind(self.plugin, Technique)

    def test_refuses_a_foreign_format_in_words(self, tmp_path: Path) -> None:
        variant, given = self._accepted(tmp_path)[0]
        foreign = replace(variant, model=replace(variant.model, format="no-such-format"))
        laws.check_sentence(self._made().refuses(foreign, given), about="no-such-format")

    def test_refusing_imports_no_framework(self, tmp_path: Path) -> None:
        given = [self._given(sample, tmp_path / f"{number}") for number, sample in enumerate(self.samples())]
        held = laws.elsewhere(self.plugin, *(("refuses", pair) for pair in given))
        assert not held, f"to refuse, {held} were imported"

    def test_works_without_data_or_says_that_it_needs_some(self, tmp_path: Path) -> None:
        accepted = self._accepted(tmp_path)
        reason = self._made().refuses(accepted[0][0], Task())
        if reason is None:
            self._apply_first([(variant, Task()) for variant, _ in accepted], tmp_path / "made")
        else:
            laws.check_sentence(reason, about="data")

    def test_returns_a_variant_that_runs_or_refuses_in_words(self, tmp_path: Path) -> None:
        for number, (variant, given) in enumerate(self._accepted(tmp_path)):
            try:
                made = self._apply(variant, given, tmp_path / f"made-{number}")
            except Refused as error:
                laws.check_sentence(str(error))
                continue
            for items in (1, 3):
                before, after = _run(variant, given, items), _run(made, given, items)
                assert list(before) == list(after), f"the outputs are named {list(after)}"
                for name, value in after.items():
                    assert value.shape == before[name].shape, f"{name} has shape {value.shape} for {items} items"
                    assert np.isfinite(value).all(), f"{name} holds NaN or infinity"

    def test_inputs_and_outputs_keep_their_names_and_types(self, tmp_path: Path) -> None:
        variant, _, made = self._apply_first(self._accepted(tmp_path), tmp_path / "made")
        for before, after in (
            (variant.model.signature.inputs, made.model.signature.inputs),
            (variant.model.signature.outputs, made.model.signature.outputs),
        ):
            now, then = ([(s.name, s.dtype, s.role, s.fed_by) for s in specs] for specs in (after, before))
            assert now == then, f"{then} became {now}"

    def test_leaves_the_given_variant_alone(self, tmp_path: Path) -> None:
        accepted = self._accepted(tmp_path)
        before = [(repr(variant), laws.contents(variant.model.path.parent)) for variant, _ in accepted]
        self._apply_first(accepted, tmp_path / "made")
        after = [(repr(variant), laws.contents(variant.model.path.parent)) for variant, _ in accepted]
        assert after == before, "the given variant or its files were changed"

    def test_writes_only_in_its_folder(self, tmp_path: Path) -> None:
        accepted = self._accepted(tmp_path)
        folder, elsewhere, scratch = (tmp_path / name for name in ("made", "elsewhere", "scratch"))
        elsewhere.mkdir()
        scratch.mkdir()
        before = laws.contents(tmp_path, without=folder)
        here, temporary = Path.cwd(), tempfile.tempdir
        os.chdir(elsewhere)
        tempfile.tempdir = str(scratch)
        try:
            variant, _, made = self._apply_first(accepted, folder)
        finally:
            os.chdir(here)
            tempfile.tempdir = temporary
        assert laws.contents(tmp_path, without=folder) == before, "files were written or left outside of its folder"
        own = made.model.path.is_relative_to(folder)
        assert own or made.model == variant.model, f"the new model lies at {made.model.path}"

    def test_records_its_step_last(self, tmp_path: Path) -> None:
        earlier = Step(technique="an-earlier-one")
        accepted = [(replace(variant, steps=(earlier,)), given) for variant, given in self._accepted(tmp_path)]
        variant, _, made = self._apply_first(accepted, tmp_path / "made")
        assert made.steps[:-1] == (earlier,), f"the steps are now {made.steps}"
        step = made.steps[-1]
        assert (step.technique, step.seed) == (self.plugin.name, _SEED), f"{step} does not say the technique and seed"
        assert made.key != variant.key, "the new variant can't be told from the given one"

    def test_the_step_is_enough_to_do_it_again(self, tmp_path: Path) -> None:
        variant, given, made = self._apply_first(self._accepted(tmp_path), tmp_path / "made")
        technique = self.plugin(**dict(made.steps[-1].options))
        again = technique.apply(variant, _context(variant, given, tmp_path / "again"))
        assert again.steps == made.steps, f"done again, {made.steps} became {again.steps}"
        assert again.settings == made.settings, f"done again, {made.settings} became {again.settings}"
        assert again.model.digest == made.model.digest, "the same step and seed made another model"

    def test_every_choice_is_accepted_or_refused_in_words(self, tmp_path: Path) -> None:
        variant, given = self._accepted(tmp_path)[0]
        if not laws.installed("techniques", self.plugin):
            laws.skip(f"{self.plugin.name} is not installed: its choices are found by its entry point")
        for option, values in plugins.choices("techniques", self.plugin.name).items():
            for value in values:
                reason = self.plugin(**{**dict(self.options), option: value}).refuses(variant, given)
                if reason is not None:
                    laws.check_sentence(reason)

    def _made(self) -> Technique:
        technique: Technique = self.plugin(**dict(self.options))
        return technique

    def _given(self, sample: Sample, folder: Path) -> tuple[Variant, Task]:
        return sample.copied(folder / "given").variant, task(sample.network, folder / "task")

    def _accepted(self, folder: Path) -> list[tuple[Variant, Task]]:
        """Return copies of the samples that the technique doesn't refuse, each with its task."""
        reasons: dict[str, str | None] = {}
        found = []
        for number, sample in enumerate(self.samples()):
            pair = self._given(sample, folder / f"{number}")
            reason = reasons[sample.variant.model.format] = self._made().refuses(*pair)
            found += [pair] if reason is None else []
        return accepted(self.plugin.name, found, reasons)

    def _apply_first(self, pairs: Sequence[tuple[Variant, Task]], folder: Path) -> tuple[Variant, Task, Variant]:
        """Return the first pair that the technique can be applied to, and what it makes of it."""
        refused = []
        for number, (variant, given) in enumerate(pairs):
            try:
                return variant, given, self._apply(variant, given, folder / f"{number}")
            except Refused as error:
                refused.append(str(error))
        raise AssertionError(f"{self.plugin.name} can be applied to no sample, override samples(): {refused}")

    def _apply(self, variant: Variant, given: Task, folder: Path) -> Variant:
        return laws.unless_missing(lambda: self._made().apply(variant, _context(variant, given, folder)))


def _context(variant: Variant, given: Task, folder: Path) -> Context:
    """Return a context in which every variant loses nothing and takes a millisecond."""
    folder.mkdir(parents=True)
    return Context(
        task=given, original=variant, folder=folder, seed=_SEED, deadline=time.monotonic() + _SECONDS,
        evaluate=lambda made, most=None: 0.0, time=lambda made: 1e-3,
    )  # fmt: skip


def _run(variant: Variant, given: Task, items: int) -> dict[str, Any]:
    from trimtab.data.batches import feeds

    split = given.split("select")
    assert split is not None
    engine = laws.unless_missing(lambda: ready(variant))
    return {name: np.array(value) for name, value in engine(feeds(given, split, slice(0, items))).items()}
