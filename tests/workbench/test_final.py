"""Who wins, what is said of it, and where the time went; whole runs are in `test_optimize.py`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trimtab.core.errors import WorkerCrashed
from trimtab.core.values import Goal, Limit, Measurement, NoWorse, Reading, Split, Task, Trial
from trimtab.data.arrays import save_array
from trimtab.search.race import Race
from trimtab.workbench import final as subject
from trimtab.workbench.final import (
    Ending,
    Final,
    _best_untouched,
    _field,
    _improved,
    _in_order,
    _meters,
    _quality,
    _timed,
    _with_proofs,
    certify,
    choose,
    tail_s,
)
from trimtab.workbench.ledger import look
from trimtab.workbench.proof import answers_file
from trimtab.workbench.timing import Timing

Enter = Callable[..., Trial]


def verdict(proven: bool = True, **given: Any) -> NoWorse:
    parts = {
        "metric": "accuracy", "variant": "v", "baseline": "b", "max_drop": 0.01, "error": 0.05, "method": "",
        "items": 700, "groups": 700, "difference": 0.0, "low": -0.001, "high": 0.001, "better": 0, "worse": 0,
        "flips": 0, "proven": proven, "reason": "" if proven else "loses 3 pt",
    }  # fmt: skip
    return NoWorse(**{**parts, **given})


def timed(field: list[Trial], control: int) -> Timing:
    """The final times of trials, as the search had screened them, with hardly any noise."""
    rng = np.random.default_rng(0)
    speeds = [trial.screening.value for trial in field if trial.screening is not None]
    wall = tuple(
        np.array([speed * rng.lognormal(0, 0.002, 40) for speed in [*speeds, speeds[control]]]) for _ in range(5)
    )
    variants = tuple(trial.variant for trial in field if trial.variant is not None)
    return Timing(variants=variants, control=control, wall_s=wall, cpu_s=wall, seed=0, margin=0.03)


@pytest.fixture
def ended(over: Race, tmp_path: Path) -> Callable[..., Final]:
    """The end of a race: the model as given first, the best untouched, and who was chosen, with what was proven."""

    def make(*field: Trial, untouched: int = 0, proofs: dict[str, NoWorse] | None = None, chosen: int = 0) -> Final:
        given = {trial.name: verdict() for trial in field} if proofs is None else proofs
        names = tuple(name for name, proof in given.items() if proof.proven)
        ending = Ending(
            race=over, folder=tmp_path / "work", untouched=field[untouched], warnings=(), command="", verify="again"
        )
        return Final(
            ending=ending,
            field=field,
            timing=timed(list(field), untouched),
            proofs=given,
            proven=names,
            chosen=(*given, *(f"other {n}" for n in range(chosen))),
        )

    return make


def order(final: Final) -> list[str]:
    return [final.field[place].name.split(" on ")[0] for place in _in_order(final)]


class TestBestUntouched:
    """The better of the two baselines that run the weights as they are."""

    def test_one_that_the_final_timing_finds_slower_than_given_is_no_best(self, enter, ended) -> None:
        field = (enter(value=1.0), enter(value=1.3, threads=1), enter("bf16", value=0.5))
        final = ended(*field, untouched=1)
        assert _best_untouched(final.ending, field, final.timing) == field[0]

    def test_one_that_is_faster_stays(self, enter, ended) -> None:
        field = (enter(value=1.0), enter(value=0.8, threads=1), enter("bf16", value=0.5))
        final = ended(*field, untouched=1)
        assert _best_untouched(final.ending, field, final.timing) == field[1]

    def test_for_a_goal_that_is_no_time_times_decide_nothing(self, over, enter, ended) -> None:
        field = (enter(value=1.0), enter(value=1.3, threads=1))
        final = ended(*field, untouched=1)
        over.shop = replace(over.shop, goal=Goal(objective="bytes"))
        assert _best_untouched(final.ending, field, final.timing) == field[1]


class TestOrder:
    """Who may win, the best first."""

    def test_the_fastest_beyond_doubt_goes_first_and_the_best_untouched_after_them(self, enter, ended) -> None:
        field = (enter(value=1.0), enter(value=0.8, threads=1), enter("bf16", value=0.5), enter("simplify", value=0.3))
        assert _in_order(ended(*field, untouched=1)) == [3, 2, 1, 0]

    def test_what_is_not_faster_beyond_doubt_loses_to_the_untouched(self, enter, ended) -> None:
        field = (enter(value=1.0), enter(value=0.5, threads=1), enter("bf16", value=0.499))
        assert _in_order(ended(*field, untouched=1)) == [1, 0]

    def test_with_limits_to_keep_the_slower_ones_are_asked_as_well(self, over, enter, ended) -> None:
        field = (enter(value=1.0), enter(value=0.5, threads=1), enter("bf16", value=0.9))
        over.shop = replace(over.shop, goal=Goal(limits=(Limit(reading="bytes", relation="<=", bound=1.0),)))
        assert "bf16" in order(ended(*field, untouched=1))

    def test_the_model_as_given_does_not_win_while_something_better_went_unproven(self, enter, ended) -> None:
        given, fast = enter(value=1.0), enter("bf16", value=0.5)
        unproven = {fast.name: verdict(proven=False)}
        assert _in_order(ended(given, proofs=unproven)) == []
        assert _in_order(ended(given, proofs={})) == [0]
        assert _in_order(ended(given, proofs={}, chosen=1)) == [], "nor while it was not even tested"

    def test_nor_where_it_is_the_best_untouched_itself_and_proven_to_be_no_worse_than_itself(
        self, enter, ended
    ) -> None:
        given, fast, sure = enter(value=1.0), enter("static-int8", value=0.5), enter("bf16", value=0.6)
        unproven = verdict(proven=False, reason="not proven on 220 items: about 3,100 would decide")
        proofs = {given.name: verdict(method="the same variant"), fast.name: unproven}
        assert _in_order(ended(given, proofs=proofs)) == []
        assert order(ended(given, sure, proofs={**proofs, sure.name: verdict()})) == ["bf16"], "what is proven wins"

    def test_one_that_failed_does_not_keep_the_model_as_given_from_winning_and_wins_nothing(
        self, over, enter, ended
    ) -> None:
        given, crashed, broken = enter(value=1.0), enter("bf16", value=0.5), enter("simplify", value=0.4)
        final = ended(given, crashed, proofs={crashed.name: verdict()})
        final = replace(final, chosen=(*final.chosen, broken.name))
        assert order(final) == ["bf16"]
        for trial in (crashed, broken):
            over.fail(trial, "it fell over")
        assert order(final) == ["as given"]

    def test_for_another_goal_than_time_its_own_reading_decides(self, over, enter, ended) -> None:
        over.shop = replace(over.shop, goal=Goal(objective="bytes"))

        def sized(trial: Trial, size: float) -> Trial:
            assert trial.variant is not None
            reading = Reading(name="bytes", value=size, unit="B")
            measured = Measurement(
                variant=trial.variant, task="", workload=over.goal.workload, readings=(reading,), machine=over.machine,
                time="",
            )  # fmt: skip
            return replace(trial, measurement=measured)

        field = (sized(enter(value=1.0), 9.0), sized(enter("bf16", value=0.2), 5.0), sized(enter("simplify"), 2.0))
        assert order(ended(*field)) == ["simplify", "bf16", "as given"]


class TestField:
    """Who is timed at the end."""

    def names(self, field: list[Trial]) -> list[str]:
        return [trial.name.split(" on ")[0] for trial in field]

    def test_it_is_both_baselines_and_the_proven_ones_the_best_first(self, enter, ended) -> None:
        given, best, slow, fast = (
            enter(value=1.0), enter(value=0.8, threads=1), enter("bf16", value=0.5), enter("simplify", value=0.3),
        )  # fmt: skip
        found, told = _field(ended(given, best, untouched=1).ending, [best, slow, fast])
        assert found == [given, best, fast, slow]
        assert told == []

    def test_where_memory_is_short_the_best_goes_and_who_is_left_out_is_told(self, over, enter, ended) -> None:
        given, slow, fast = enter(value=1.0), enter("bf16", value=0.5), enter("simplify", value=0.3)
        over.shop = replace(over.shop, memory_bytes=10**6)
        found, told = _field(ended(given).ending, [slow, fast])
        assert found == [given, fast]
        assert told == [f"{slow.name} was proven but not timed at the end: there was no memory for it"]

    def test_an_untouched_one_that_failed_is_no_baseline(self, over, enter, ended) -> None:
        given, best, fast = enter(value=1.0), enter(value=0.8, threads=1), enter("simplify", value=0.3)
        ending = ended(given, best, untouched=1).ending
        over.fail(best, "it fell over")
        found, _ = _field(ending, [fast])
        assert found == [given, fast]
        final = ended(given, fast)
        assert _best_untouched(ending, found, final.timing) == given

    def test_one_that_crashes_while_it_is_timed_is_out(self, over, enter, ended, crashing) -> None:
        given, bad, fast = enter(value=1.0), enter("bf16", value=0.5), enter("simplify", value=0.3)
        crashing.add(bad.variant.key)
        over.budget.seconds = 1.0
        field, timing = _timed(ended(given).ending, [given, bad, fast])
        assert field == [given, fast]
        assert timing.variants == (given.variant, fast.variant)
        assert [trial.state for trial in over.trials] == ["kept", "failed", "kept"]


class TestChoice:
    """Contenders are measured, the best first, until one keeps all limits."""

    @pytest.fixture
    def unreadable(self, monkeypatch: pytest.MonkeyPatch) -> list[Trial]:
        """Measure nothing; the trials that a test adds crash meanwhile."""
        crashing: list[Trial] = []

        def read(final: Final, trial: Trial, measured: dict[str, Measurement]) -> Measurement:
            if trial in crashing:
                raise WorkerCrashed("crashed with SIGSEGV")
            assert trial.variant is not None
            return Measurement(
                variant=trial.variant, task="", workload=final.race.goal.workload, readings=(),
                machine=final.race.machine, time="",
            )  # fmt: skip

        monkeypatch.setattr(subject, "_read", read)
        return crashing

    def test_one_that_can_not_be_measured_has_failed_and_the_next_one_wins(self, enter, ended, unreadable) -> None:
        field = given, fast, fastest = enter(value=1.0), enter("bf16", value=0.5), enter("simplify", value=0.3)
        unreadable.append(fastest)
        final = ended(*field)
        winner, measured, reason = choose(final)
        assert (winner, reason) == (fast, "")
        assert set(measured) == {given.name, fast.name}
        found = {trial.name: trial for trial in _with_proofs(final)}[fastest.name]
        assert (found.state, found.reason) == ("failed", "failed when it was measured: crashed with SIGSEGV")
        assert found.quality == final.proofs[fastest.name]

    def test_a_baseline_that_can_not_be_measured_has_failed_as_well(self, enter, ended, unreadable) -> None:
        field = enter(value=1.0), enter(value=0.8, threads=1), enter("bf16", value=0.5)
        unreadable.extend((field[1], field[2]))
        assert choose(ended(*field, untouched=1))[0] == field[0]

    def test_without_the_model_as_given_there_is_nothing_to_tell(self, enter, ended, unreadable) -> None:
        field = enter(value=1.0), enter("bf16", value=0.5)
        unreadable.append(field[0])
        with pytest.raises(WorkerCrashed):
            choose(ended(*field))

    def test_without_a_winner_every_reason_is_told(self, over, enter, ended, unreadable) -> None:
        given, large, bad = enter(value=1.0), enter("bf16", value=0.5), enter("static-int8", value=0.3)
        over.shop = replace(over.shop, goal=Goal(limits=(Limit(reading="bytes", relation="<=", bound=1.0),)))
        proofs = {
            given.name: verdict(method="the same variant"), large.name: verdict(), bad.name: verdict(proven=False)
        }  # fmt: skip
        winner, _, reason = choose(ended(given, large, proofs=proofs))
        assert winner is None
        assert reason == (
            f"{large.name}: the limit on bytes can't be checked: no meter could read it; {bad.name}: loses 3 pt"
        )


class TestCertificate:
    """What is claimed of the winner."""

    @pytest.fixture
    def task(self, over: Race, tmp_path: Path) -> Task:
        rows = save_array("rows", tmp_path / "rows.npy", np.arange(700))
        split = Split(name="certify", inputs=(), rows=rows, labels=rows, digest="split")
        over.shop = replace(over.shop, task=Task(splits=(split,)))
        return over.shop.task

    @pytest.mark.parametrize(
        ("metric", "drop", "words"),
        [
            ("accuracy", 0.01, "accuracy is at most 1.0 pt worse than the original's"),
            ("cost", 0.02, "cost is at most 0.0200 worse than the original's"),
            ("mse", 3.0, "mse is at most 3.00 worse than the original's"),
        ],
    )
    def test_the_claim_is_in_the_unit_of_its_metric(self, task, enter, ended, metric, drop, words) -> None:
        given, fast = enter(value=1.0), enter("bf16", value=0.5)
        proof = verdict(metric=metric, max_drop=drop, error=0.01)
        found = certify(ended(given, fast, proofs={fast.name: proof}), fast)
        assert found is not None
        assert found.claim == f"with 99 % confidence {words}, on items like the 700 of the certify split"
        assert found.no_worse == proof

    def test_it_holds_both_ratios_and_how_often_the_items_were_looked_at(self, over, task, enter, ended) -> None:
        field = (enter(value=1.0), enter(value=0.8, threads=1), enter("bf16", value=0.4))
        final = ended(*field, untouched=1)
        look(task.splits[0], field[2].variant.key, final.ending.folder)
        found = certify(final, field[2])
        assert found is not None
        assert [ratio.baseline for ratio in found.ratios] == [trial.variant.key for trial in field[:2]]
        assert [round(ratio.value, 1) for ratio in found.ratios] == [0.4, 0.5]
        assert (found.looks, found.data, found.command) == (1, "split", "again")
        assert found.original == over.shop.original.key
        look(task.splits[0], field[1].variant.key, final.ending.folder)
        other = certify(final, field[1])  # the best untouched: a ratio to itself would be no measurement
        assert other is not None
        assert other.looks == 2

    def test_the_model_as_given_is_certified_by_being_itself(self, over, task, enter, ended) -> None:
        given, other = enter(value=0.5), enter(value=0.8, threads=1)
        final = ended(given, other, untouched=1, proofs={other.name: verdict()})
        (split,) = task.splits
        kept = answers_file(final.ending.folder, over.shop.original, split)
        kept.parent.mkdir(parents=True)
        np.save(kept, np.arange(700))
        found = certify(final, given)
        assert found is not None
        assert (found.no_worse.proven, found.no_worse.method, found.no_worse.items) == (True, "the same variant", 700)
        assert [(ratio.variant, ratio.baseline) for ratio in found.ratios] == [(given.variant.key, other.variant.key)]
        (alone,) = [certify(ended(given, proofs={given.name: verdict()}), given)]
        assert alone is not None
        assert alone.ratios == ()
        over.shop = replace(over.shop, goal=Goal(max_drop=None))
        assert certify(final, given) is None, "nothing was to be protected"

    def test_without_a_proof_there_is_none(self, over, task, enter, ended) -> None:
        given, fast = enter(value=1.0), enter("bf16", value=0.5)
        assert certify(ended(given, fast, proofs={}), fast) is None
        over.shop = replace(over.shop, task=Task())
        assert certify(ended(given, fast), fast) is None


class TestTrials:
    """What the proof made of the trials."""

    def test_proven_unproven_and_never_tested_are_told_apart(self, enter, ended) -> None:
        given, good, bad, later, dropped = (
            enter(value=1.0), enter("bf16", reason="seen"), enter("static-int8"), enter("nncf-int8"),
            enter("simplify", state="dropped", reason="too slow"),
        )  # fmt: skip
        proofs = {good.name: verdict(), bad.name: verdict(proven=False)}
        final = replace(ended(given, good, proofs=proofs), chosen=(good.name, bad.name, later.name))
        found = {trial.name: trial for trial in _with_proofs(final)}
        assert [found[trial.name].state for trial in (given, good, bad, later, dropped)] == [
            "kept", "proven", "unproven", "unproven", "dropped",
        ]  # fmt: skip
        assert found[good.name].reason == "seen"
        assert found[bad.name].reason == "loses 3 pt"
        assert found[later.name].reason == "not tested: a safer variant before it was not proven"
        assert found[dropped.name] == dropped
        assert found[good.name].quality == proofs[good.name]

    def test_when_nothing_is_protected_nothing_is_unproven(self, over, enter, ended) -> None:
        given, fast = enter(value=1.0), enter("bf16")
        over.shop = replace(over.shop, goal=Goal(max_drop=None))
        final = replace(ended(given, fast, proofs={}), chosen=(fast.name,))
        assert [trial.state for trial in _with_proofs(final)] == ["kept", "kept"]


class TestMeters:
    """What a finalist is read with."""

    @pytest.mark.parametrize(("budget", "latency"), [(600, 5.0), (6000, 5.0), (300, 2.5), (60, 1.25), (1, 1.25)])
    def test_the_longer_ones_take_a_share_of_the_budget_within_bounds(self, over, budget, latency) -> None:
        over.budget.seconds = budget
        found = _meters(over)
        assert dict(found["latency"]) == {"seconds": latency}
        assert dict(found["throughput"]) == {"seconds": 2 * latency}

    def test_a_limit_on_a_percentile_is_given_the_calls_that_it_takes(self, over) -> None:
        over.latency_s = 0.1
        assert tail_s(over) == 0
        limits = tuple(Limit(reading=name, relation="<=", bound=0.02) for name in ("latency_p90", "bytes"))
        over.shop = replace(over.shop, goal=Goal(limits=limits))
        assert dict(_meters(over)["latency"]) == {"seconds": 5.0, "percentile": 0.9}
        assert tail_s(over) == pytest.approx(3 * 64 * 0.1)
        p99 = Limit(reading="latency_p99", relation="<=", bound=0.02)
        over.shop = replace(over.shop, goal=Goal(limits=(*limits, p99)))
        assert dict(_meters(over)["latency"]) == {"seconds": 5.0, "percentile": 0.99}
        assert tail_s(over) == pytest.approx(3 * 662 * 0.1)

    def test_preprocessing_is_timed_only_where_there_is_data(self, over, tmp_path) -> None:
        assert "end-to-end" not in _meters(over)
        rows = save_array("rows", tmp_path / "rows.npy", np.arange(3))
        over.shop = replace(over.shop, task=Task(splits=(Split(name="select", inputs=(), rows=rows),)))
        assert set(_meters(over)) == {"size", "compute", "memory", "latency", "throughput", "end-to-end"}
        assert "quality" not in _meters(over), "it was answered for the proof already"


def test_quality_that_a_limit_is_on_is_read_though_nothing_is_protected(over, enter, ended, tmp_path) -> None:
    rows = save_array("rows", tmp_path / "rows.npy", np.arange(8))
    labels = save_array("labels", tmp_path / "labels.npy", np.arange(8) % 2)
    split = Split(name="certify", inputs=(), rows=rows, labels=labels, digest="split")
    over.shop = replace(over.shop, task=Task(splits=(split,)), goal=Goal(max_drop=None))
    final = ended(enter(value=1.0), enter("bf16", value=0.5), proofs={})
    for variant, wrong in ((over.shop.original, 0), (final.field[1].variant, 2)):
        path = answers_file(final.ending.folder, variant, split)
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, np.where(np.arange(8) < wrong, 1, 0) ^ (np.arange(8) % 2))
    assert _quality(final, final.field[1]) == ()
    limit = Limit(reading="accuracy", relation=">=", bound=0.5)
    over.shop = replace(over.shop, goal=Goal(max_drop=None, limits=(limit,)))
    read = {reading.name: reading.value for reading in _quality(final, final.field[1]) if reading.place is None}
    assert (read["accuracy"], read["agreement"]) == (0.75, 0.75)


def test_what_the_goal_improves_is_told_when_it_is_no_latency(over, enter) -> None:
    trial = enter(value=0.5)
    readings = (
        Reading(name="bytes", value=3.0, unit="B"),
        Reading(name="latency_p50", value=1.0, unit="s"),
        Reading(name="throughput", value=9.0, unit="1/s"),
    )
    measured = {
        trial.name: Measurement(
            variant=over.shop.original, task="", workload=over.goal.workload, readings=readings, machine=over.machine,
            time="",
        )
    }  # fmt: skip
    assert _improved(Goal(objective="bytes"), measured, trial) == readings[0]
    assert _improved(Goal(objective="latency"), measured, trial) is None
    assert _improved(Goal(objective="throughput", direction="maximize"), measured, trial) == readings[2]
    assert _improved(Goal(objective="macs"), measured, trial) is None
    assert _improved(Goal(objective="bytes"), {}, trial) is None
    assert _improved(Goal(objective="bytes"), measured, None) is None
