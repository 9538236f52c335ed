from __future__ import annotations

from dataclasses import replace

import pytest

from trimtab.reports import method


def told(result, **changes):
    """The certificate in words when its proof is another one."""
    proof = replace(result.certificate.no_worse, **changes)
    return dict(method.certificate(replace(result, certificate=replace(result.certificate, no_worse=proof))))


class TestCertificate:
    """What was proven, how surely and on what."""

    def test_says_the_risk_in_both_directions(self, result):
        assert (
            told(result, error=0.1)["How sure"] == "90 %: a variant that loses more passes in at most 10 % of searches"
        )

    def test_an_interval_of_two_sides_takes_twice_the_risk_of_the_proof(self, result):
        assert "(−0.42 to +0.21 at 98 %)" in told(result, error=0.01)["What was seen"]

    def test_says_when_items_belong_together(self, result):
        assert told(result)["On what"] == "1,200 items, which the search had never seen"
        assert told(result, groups=70)["On what"].startswith("1,200 items in 70 groups, which were resampled whole")

    def test_counts_the_answers_that_changed_and_in_which_direction(self, result):
        assert told(result)["What was seen"] == (
            "accuracy changed by −0.08 pt (−0.42 to +0.21 at 90 %); 9 answers changed, 3 from wrong to right and "
            "4 from right to wrong"
        )

    def test_counts_no_answers_where_they_are_numbers(self, result):
        numbers = replace(result, task=replace(result.task, kind="regression"))
        seen = told(numbers, metric="r2", difference=-0.004, low=-0.01, high=0.002)["What was seen"]
        assert seen == "R² changed by −0.00400 (−0.0100 to +0.0020 at 90 %)"

    @pytest.mark.parametrize(
        ("looks", "said"), [(1, "once"), (3, "3 times, earlier runs included: every look weakens the claim a little")]
    )
    def test_counts_the_looks(self, result, looks, said):
        again = replace(result, certificate=replace(result.certificate, looks=looks))
        assert dict(method.certificate(again))["How often these items were used"] == said

    def test_without_one_nothing_is_said(self, speed_only):
        assert method.certificate(speed_only) == []


class TestMeasured:
    """The protocol, the self-test and the noise."""

    def comparison(self, result, **changes):
        return dict(method.measured(replace(result, comparison=replace(result.comparison, **changes))))

    def test_tells_protocol_margin_and_self_test(self, result):
        found = dict(method.measured(result))
        assert "240 blocks of calls, in 5 fresh processes a side" in found["Protocol"]
        assert "its interval (95 %) is Student’s t over processes" in found["Protocol"]
        assert "bootstrap of processes" not in found["Protocol"]
        assert found["Margin"] == "differences below 3 % count as equivalent"
        assert found["Self-test, one variant against itself"] == "0.996× (0.985–1.007): no difference, as it should be"
        assert found["Noise audit"] == "wall-clock ratios scatter 1.12 times as much as processor-time ratios"

    def test_one_process_is_said_to_be_one(self, result):
        ratios = (replace(result.comparison.ratios[0], processes=1),)
        told_ = self.comparison(result, ratios=ratios)["Protocol"]
        assert "in one fresh process a side" in told_
        assert "its interval (95 %) comes from resampling blocks" in told_
        assert "Student" not in told_

    def test_the_worst_noise_is_told(self, result):
        ratios = tuple(replace(ratio, noise=noise) for ratio, noise in zip(result.comparison.ratios, (2.5, None, 1.0)))  # noqa: B905 # three are enough
        assert "2.50 times" in self.comparison(result, ratios=ratios)["Noise audit"]

    def test_an_engine_that_spins_has_no_noise_audit(self, result):
        ratios = tuple(replace(ratio, noise=None) for ratio in result.comparison.ratios)
        assert self.comparison(result, ratios=ratios)["Noise audit"].startswith("no processor times")

    def test_what_was_not_run_is_said(self, result):
        assert self.comparison(result, ratios=(), self_test=None) == {
            "Self-test, one variant against itself": "not run"
        }


class TestMachine:
    """The record of a machine."""

    def test_names_the_instructions_that_matter(self, result):
        assert dict(method.machine(result.machine))["Instructions"] == "avx2, avx512f, avx512_vnni"

    def test_tells_the_load_while_measuring(self, result):
        assert dict(method.machine(result.machine))["Load while measuring"] == (
            "load average 1.42, pressure 7 %, steal 400 ms"
        )

    def test_says_what_it_could_not_read(self, result):
        bare = replace(
            result.machine, flags=("fpu",), cores=1, hypervisor=None, load_average=None, pressure=None, steal_s=None
        )
        found = dict(method.machine(bare))
        assert found["Processor"] == "Example CPU 9, 1 core"
        assert found["Instructions"] == "none recorded"
        assert found["Virtual machine"] == "none seen"
        assert (found["Frequency governor"], found["Load while measuring"]) == ("not readable", "not readable")


class TestSpent:
    """Where the time went."""

    def test_parts_of_a_part_are_not_added_to_the_whole(self, result):
        shares = {part["name"]: part["share"] for part in method.spent(result)}
        assert shares.pop("of it for the winner") == pytest.approx(21.4)
        assert sum(shares.values()) == pytest.approx(100)

    def test_a_part_is_never_more_than_the_whole(self, result):
        found = method.spent(replace(result, spent=(("searching", 10.0), ("of it for the winner", 12.0))))
        assert [part["percent"] for part in found] == ["100 %", "100 %"]

    @pytest.mark.parametrize("spent", [(), (("searching", 0.0),)], ids=["nothing", "no time"])
    def test_nothing_spent_is_nothing_told(self, result, spent):
        assert method.spent(replace(result, spent=spent)) == []
