from __future__ import annotations

from dataclasses import replace

import pytest

from trimtab.reports.verdict import verdict


@pytest.fixture
def parts(result):
    over_given, over_untouched = result.comparison.ratios[1], result.comparison.ratios[3]
    winner = next(trial for trial in result.trials if trial.name == result.winner)
    return {"winner": winner, "over_given": over_given, "over_untouched": over_untouched}


def test_proven_winner_is_told_with_both_baselines_and_what_was_proven(result, parts):
    assert verdict(result.goal, certificate=result.certificate, **parts) == (
        "static-int8 on openvino is 2.90× faster (2.82–2.99) than the model as given and 1.80× faster (1.75–1.86) than "
        "the best untouched variant; proven with 95 % confidence to lose at most 1.0 pt of accuracy "
        "(lost 0.08 pt on 1,200 items)."
    )


def test_without_labels_the_proof_is_told_as_agreement(result, parts):
    proof = replace(result.certificate.no_worse, metric="agreement", flips=7)
    said = verdict(result.goal, certificate=replace(result.certificate, no_worse=proof), **parts)
    assert "answer at most 1 % of the items differently from the original (7 of 1,200 differed; there were no" in said


def test_speed_only_says_that_nothing_is_proven(result, parts):
    said = verdict(replace(result.goal, max_drop=None), certificate=None, **parts)
    assert said.endswith("; speed only: nothing is proven about its quality.")


def test_winner_without_certificate_is_never_called_proven(result, parts):
    said = verdict(result.goal, certificate=None, **parts)
    assert "not proven" in said


def test_certificate_that_proves_nothing_is_not_told_as_proof(result, parts):
    broken = replace(result.certificate, no_worse=replace(result.certificate.no_worse, proven=False))
    said = verdict(result.goal, certificate=broken, **parts)
    assert "proven with" not in said
    assert "not proven" in said


def test_unmet_goal_gives_the_reason(result):
    said = verdict(result.goal, winner=None, reason="1,200 items can't decide.")
    assert said == "No variant met the goal: 1,200 items can't decide. The model as given remains the one to use."


def test_model_as_given_that_wins_is_told_as_nothing_gained(result):
    said = verdict(result.goal, winner=result.as_given, certificate=result.certificate)
    assert said == "Nothing tried was better than the model as given: as given on onnxruntime stays."


def test_goal_that_is_no_time_is_told_first(result, parts):
    before, after = (result.comparison.measurements[place].reading("bytes") for place in (0, 2))
    said = verdict(result.goal, certificate=result.certificate, before=before, after=after, **parts)
    assert said.startswith(
        "static-int8 on openvino brings size from 1.69 MB to 470 kB and is 2.90× faster (2.82–2.99) than the model as "
    )


def test_gain_is_told_as_gained(result, parts):
    better = replace(result.certificate, no_worse=replace(result.certificate.no_worse, difference=0.002))
    assert "(gained 0.20 pt on 1,200 items)" in verdict(result.goal, certificate=better, **parts)


def test_what_did_not_improve_is_not_told_as_improved(result, parts):
    size = result.comparison.measurements[0].reading("bytes")
    unknown = replace(size, value=None, provenance="unavailable")
    for before, after in ((size, size), (size, unknown), (unknown, size), (None, size), (size, None)):
        said = verdict(result.goal, certificate=result.certificate, before=before, after=after, **parts)
        assert "brings" not in said


def test_the_best_untouched_is_compared_only_with_the_model_as_given(result, parts):
    said = verdict(result.goal, winner=result.untouched, over_given=parts["over_given"], certificate=result.certificate)
    assert said.startswith("as given on openvino is 2.90× faster (2.82–2.99) than the model as given; proven with")
    assert "untouched" not in said


def test_a_smaller_model_that_is_slower_is_told_as_both(result, parts):
    before, after = (result.comparison.measurements[place].reading("bytes") for place in (0, 2))
    slower = replace(parts["over_given"], value=1.2, low=1.1, high=1.3, verdict="slower")
    said = verdict(
        result.goal,
        winner=parts["winner"],
        over_given=slower,
        certificate=result.certificate,
        before=before,
        after=after,
    )
    assert "brings size from 1.69 MB to 470 kB and is 1.20× slower (1.10–1.30) than the model as given" in said


def test_nothing_lost_is_told_so(result, parts):
    same = replace(result.certificate, no_worse=replace(result.certificate.no_worse, difference=0.0))
    assert "(lost nothing on 1,200 items)" in verdict(result.goal, certificate=same, **parts)


def test_a_metric_in_its_own_unit_is_told_in_it(result, parts):
    proof = replace(result.certificate.no_worse, metric="mse", max_drop=0.02, difference=-0.0123)
    said = verdict(result.goal, certificate=replace(result.certificate, no_worse=proof), **parts)
    assert "lose at most 0.0200 of mean squared error (lost 0.0123 on 1,200 items)" in said


def test_an_unmet_goal_without_a_reason_is_still_a_sentence(result):
    said = verdict(result.goal, winner=None)
    assert said == "No variant met the goal. The model as given remains the one to use."


@pytest.mark.parametrize(("word", "said"), [("faster", "2.90× faster"), ("equivalent", "as fast as")])
def test_baselines_that_are_one_are_told_once(result, parts, word, said):
    over = replace(parts["over_given"], verdict=word)
    text = verdict(result.goal, certificate=result.certificate, **{**parts, "over_given": over, "over_untouched": over})
    assert text.count(said) == text.count("2.82–2.99") == 1
    assert "the model as given, itself the best untouched variant" in text
    assert " and " not in text.partition(";")[0]
