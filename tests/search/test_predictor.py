from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from trimtab.core.values import Layer, Settings, Work, Workload
from trimtab.search.predictor import Predictor, features, where

PLACE = "openvino, batch 1"


def seconds(operators: float, macs: float, size: float) -> float:
    """A machine on which a call costs 20 µs, an operator 2 µs, a MAC 10 ps and a byte 50 ps."""
    return 20e-6 + 2e-6 * operators + 1e-11 * macs + 5e-11 * size


def networks(count: int, seed: int = 0) -> list[tuple[float, float, float, float]]:
    rng = np.random.default_rng(seed)
    return [(1.0, float(rng.integers(5, 80)), 10 ** rng.uniform(5, 8.5), 10 ** rng.uniform(4, 7)) for _ in range(count)]


def taught(path: Path, count: int, noise: float = 0.0) -> Predictor:
    made, rng = Predictor(path), np.random.default_rng(1)
    for each in networks(count):
        made.learn(PLACE, each, seconds(*each[1:]) * np.exp(noise * rng.standard_normal()))
    return made


def test_the_costs_of_a_machine_are_found_again(tmp_path: Path) -> None:
    made = taught(tmp_path / "seen.jsonl", 30)
    for each in networks(20, seed=5):
        found = made.predict(PLACE, each)
        assert found is not None
        assert found.seconds == pytest.approx(seconds(*each[1:]), rel=0.01)


def test_nine_in_ten_of_new_networks_lie_in_the_interval(tmp_path: Path) -> None:
    made, rng = taught(tmp_path / "seen.jsonl", 60, noise=0.1), np.random.default_rng(2)
    inside = []
    for each in networks(300, seed=7):
        found = made.predict(PLACE, each)
        assert found is not None
        inside.append(found.low <= seconds(*each[1:]) * np.exp(0.1 * rng.standard_normal()) <= found.high)
    assert 0.8 <= np.mean(inside) <= 0.97


def test_too_little_or_other_settings_predict_nothing(tmp_path: Path) -> None:
    assert taught(tmp_path / "few.jsonl", 7).predict(PLACE, networks(1)[0]) is None
    assert taught(tmp_path / "many.jsonl", 20).predict("torch, batch 1", networks(1)[0]) is None


def test_what_was_learnt_is_there_in_the_next_run_and_only_once(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "seen.jsonl"
    before = taught(path, 12).predict(PLACE, networks(1, seed=3)[0])
    again = taught(path, 12)
    assert again.predict(PLACE, networks(1, seed=3)[0]) == before
    assert len(path.read_text().splitlines()) == 12


def test_a_half_written_line_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "seen.jsonl"
    taught(path, 10)
    with path.open("a") as file:
        file.write('{"where": "openvi')
    found = Predictor(path).predict(PLACE, networks(1)[0])
    assert found is not None and found.seen == 10


def test_features_are_a_call_its_operators_its_macs_and_its_bytes() -> None:
    layers = (Layer(name="a", operator="Conv", macs=100), Layer(name="b", operator="Gemm", macs=None))
    work = Work(layers=layers, excluded=(("Relu", 3),))
    assert features(work, 40.0) == (1.0, 5.0, 100.0, 40.0)
    assert where(Settings(runtime="openvino", threads=2), Workload(batch=8)) == "openvino, 2 threads, batch 8"
