"""What two processes bring: the page, from runs whose outcome is known."""

import pytest


def seconds(*values):
    return [{"seconds": value} for value in values]


def test_two_processes_are_told_against_one_with_as_many_threads_and_with_one():
    import distributed as d

    rows = {d.ONE: seconds(10, 20), d.THREADS: seconds(6, 12), d.TWO: seconds(5, 10)}
    found = d.scaling(rows)
    assert found[d.ONE].value == pytest.approx(2.0)
    assert found[d.THREADS].value == pytest.approx(1.2)
    page = "\n".join(d.ddp_lines(rows, {d.THREADS: 1e-4, d.TWO: 2e-4}))
    assert "**met**: weights after 20 steps" in page
    assert "one with one thread: 100% (100% to 100%)" in page
    assert "**NOT met**" in "\n".join(d.ddp_lines(rows, {d.THREADS: 1e-4, d.TWO: 2e-2}))


@pytest.mark.parametrize(
    ("rise", "limited", "met"),
    [(50.0, ("failed", "losses"), 3), (70.0, ("failed", "losses"), 2), (50.0, ("losses", "losses"), 2)],
    ids=["all", "too much memory", "one runs as well"],
)
def test_a_pipeline_needs_little_memory_where_one_process_fails(rise, limited, met):
    import distributed as d

    one, two = limited
    rows = {
        "one": {"losses": [2.0, 1.0], "rises": [100.0]},
        "two": {"losses": [2.0, 1.00001], "rises": [40.0, rise]},
        "one, limited": {one: "no memory"},
        "two, limited": {two: [2.0, 1.0]},
    }
    page = "\n".join(d.pipeline_lines(rows, 500_000_000))
    assert page.count("**met**") == met
    assert f"a stage's peak above its imports is {rise:.0f}% of one process's" in page


def test_the_network_that_is_trained_has_no_batch_normalization():
    torch = pytest.importorskip("torch")
    import sys
    from pathlib import Path

    import networks

    sys.path.insert(0, str(Path(networks.__file__).parent / "models"))
    try:
        module = networks.build("grouped.py:build")
    finally:
        sys.path.pop(0)
    assert not any(isinstance(part, torch.nn.BatchNorm2d) for part in module.modules())
    images = torch.randn(4, 1, 28, 28)
    torch.testing.assert_close(module.train()(images)[:2], module(images[:2]))
