"""The simulation of whole searches: its candidates are as bad as it says, and its counting is right."""

import json
import math

import numpy as np
import pytest
from scipy.stats import beta


@pytest.fixture
def certificate(monkeypatch):
    import certificate

    small = tuple(certificate.Setting(search=way, select=30, certify=90) for way in ("plain", "adaptive"))
    monkeypatch.setattr(certificate, "SETTINGS", small)
    return certificate


def tango_by_hand(items, better, worse, delta):
    """Return Tango's z as his paper writes it."""
    linear = -better - worse + (2 * items - better + worse) * -delta
    product = worse * delta * (1 + delta)
    q = (math.sqrt(linear**2 - 8 * items * product) - linear) / (4 * items)
    return (better - worse + items * delta) / math.sqrt(items * (2 * q - delta * (1 + delta)))


def test_every_candidate_is_worse_by_one_point_at_a_known_discordance(certificate):
    items = 100_000
    made = certificate.Candidates(items, np.random.default_rng(1))
    for _ in range(6):
        gains = made.gains(made.draw())
        changed = np.count_nonzero(gains) / items
        psi = min(certificate.DISCORDANCES, key=lambda known: abs(known - changed))
        error = 5 * math.sqrt(psi / items)
        assert changed == pytest.approx(psi, abs=error)
        assert gains.mean() == pytest.approx(-certificate.DELTA, abs=error)


def test_candidates_fail_on_the_same_items_and_variations_even_more_so(certificate):
    made = certificate.Candidates(20_000, np.random.default_rng(2))
    parent = made.draw()
    others = [np.corrcoef(parent, made.draw())[0, 1] for _ in range(8)]
    assert all(min(abs(found - 0.45), abs(found - 0.80)) < 0.03 for found in others)
    assert np.corrcoef(parent, made.vary(parent))[0, 1] == pytest.approx(math.sqrt(0.85), abs=0.02)
    assert made.vary(parent).std() == pytest.approx(1.0, abs=0.03)


@pytest.mark.parametrize(("better", "worse"), [(0, 0), (3, 5), (10, 2), (0, 40)])
def test_the_score_is_that_of_tango(certificate, better, worse):
    gains = np.repeat(np.array([1, -1, 0], np.int8), (better, worse, 700 - better - worse))
    assert certificate.score(gains) == pytest.approx(tango_by_hand(700, better, worse, 0.01), abs=1e-9)


def test_without_a_flip_299_items_prove_one_point_and_298_do_not(certificate):
    assert certificate.proven(np.zeros(299, np.int8))
    assert not certificate.proven(np.zeros(298, np.int8))


def test_a_plain_search_keeps_every_candidate_and_an_adaptive_one_drops_what_is_dead(certificate):
    made = certificate.Candidates(120, np.random.default_rng(3))
    assert len(certificate.plain_search(made, 30)) == certificate.CANDIDATES
    hopeless = certificate.Candidates(1200, np.random.default_rng(3))
    hopeless.gains = lambda latent: np.full(latent.size, -1, np.int8)
    assert certificate.adaptive_search(hopeless, 1000) == []
    hopeless.gains = lambda latent: np.zeros(latent.size, np.int8)
    seen = [seen for _, seen in certificate.adaptive_search(hopeless, 1000)]
    assert len(seen) == certificate.CANDIDATES
    assert max(seen) < 1000, "what never loses is not looked at to the end"


def test_equal_seeds_are_equal_searches_and_settings_do_not_share_them(certificate):
    plain, adaptive = certificate.SETTINGS
    assert certificate.search(plain, 4) == certificate.search(plain, 4)
    row = certificate.search(adaptive, 4)
    assert row["setting"] == "adaptive, 30 to select and 90 to certify"
    assert 0 <= row["certified"] <= row["finalists"] <= certificate.CANDIDATES


def test_searches_that_are_done_are_not_run_again_and_a_cut_off_line_is(certificate, tmp_path, monkeypatch):
    path = tmp_path / "work" / "journal.jsonl"
    first = certificate.run_searches(2, path)
    assert len(first) == 4
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:3], lines[3][:20]]))
    ran = []
    real = certificate.search
    monkeypatch.setattr(certificate, "search", lambda *given: ran.append(given) or real(*given))
    assert sorted(map(json.dumps, certificate.run_searches(2, path))) == sorted(map(json.dumps, first))
    assert len(ran) == 1
    assert certificate.run_searches(1, path) == [row for row in first if row["seed"] == 0]


def test_searches_of_other_code_are_run_again(certificate, tmp_path, monkeypatch):
    path = tmp_path / "journal.jsonl"
    certificate.run_searches(1, path)
    changed = [{**json.loads(line), "code": "older", "certified": 99} for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row) + "\n" for row in changed))
    assert all(row["certified"] < 99 for row in certificate.run_searches(1, path))
    monkeypatch.setattr(certificate.pages, "sources", lambda *paths: "newer")
    ran = []
    monkeypatch.setattr(certificate, "search", lambda *given: ran.append(given) or {"setting": "", "seed": 0})
    certificate.run_searches(1, path)
    assert len(ran) == len(certificate.SETTINGS)


@pytest.mark.parametrize(("risk", "share", "met"), [(0.051, 0.06, 2), (0.052, 0.06, 1), (0.04, 0.061, 1)])
def test_each_figure_is_met_or_not_on_its_own(certificate, risk, share, met):
    table = [{"items": 300, "psi": 0.01, "error": 0.01}, {"items": 5000, "psi": 0.05, "error": risk}]
    table.append({"items": 268, "psi": 0.01, "error": 0.2})
    found = {"search": "plain", "certify": 300, "searches": 2000, "low": 0.0, "high": 0.1}
    lines = certificate.figures(table, [{**found, "share": 0.01}, {**found, "share": share}])
    assert sum("**met**" in line for line in lines) == met
    assert sum("**NOT met**" in line for line in lines) == 2 - met
    assert f"{100 * risk:.2f} % (allowed 5.1 %)" in lines[0]
    assert f"{100 * share:.2f} % of 2,000" in lines[1]


def test_the_share_has_the_exact_interval_of_clopper_and_pearson(certificate):
    rows = [
        {"setting": setting.name, "seed": seed, "finalists": 10 + seed % 2, "certified": int(seed < 3)}
        for setting in certificate.SETTINGS
        for seed in range(50)
    ]
    for found in certificate.summary(rows):
        assert (found["searches"], found["wrong"], found["share"], found["finalists"]) == (50, 3, 0.06, 10.5)
        assert found["low"] == pytest.approx(beta.ppf(0.025, 3, 48))
        assert found["high"] == pytest.approx(beta.ppf(0.975, 4, 47))


def test_the_page_holds_every_risk_and_every_search(certificate):
    table = [
        {"items": 300, "psi": psi, "error": 0.04 + psi, "score_only": 0.05 + psi} for psi in certificate.DISCORDANCES
    ]
    rows = [{"setting": s.name, "seed": 0, "finalists": 30, "certified": 0} for s in certificate.SETTINGS]
    page = certificate.body(table, certificate.summary(rows))
    assert "| 300 | 5.00 (6.00) | 6.00 (7.00) | 9.00 (10.00) | 14.00 (15.00) |" in page
    assert "| adaptive | 30 | 90 | 1 | 30.0 | 0.00 % | 0.00 to 97.50 % |" in page
