from trimtab.meters.readings import WORKER_CLOCK, timed, unavailable
from trimtab.stats.percentiles import median


def test_a_time_keeps_its_interval_its_samples_and_where_it_comes_from():
    estimate = median([3.0, 1.0, 2.0, 5.0, 4.0, 6.0, 7.0])
    reading = timed("latency_p50", estimate, "batch 1")
    assert (reading.value, reading.low, reading.high) == (estimate.value, estimate.low, estimate.high)
    assert (reading.samples, reading.level, reading.unit, reading.direction) == (7, 0.95, "s", "lower")
    assert (reading.source, reading.scope, reading.provenance) == (WORKER_CLOCK, "batch 1", "measured")


def test_what_could_not_be_had_is_never_zero_and_says_why():
    reading = unavailable("throughput", "out of memory", "1/s", "batch=8")
    assert (reading.value, reading.provenance, reading.samples) == (None, "unavailable", 0)
    assert (reading.scope, reading.unit, reading.place) == ("out of memory", "1/s", "batch=8")
