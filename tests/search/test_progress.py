from __future__ import annotations

import inspect

import pytest

from trimtab.cli.live import Live
from trimtab.search.progress import Progress, Silent

TOLD = [name for name, member in vars(Progress).items() if inspect.isfunction(member) and not name.startswith("_")]


@pytest.mark.parametrize("kind", [Silent, Live])
@pytest.mark.parametrize("name", TOLD)
def test_whoever_hears_a_search_is_called_alike(kind: type, name: str) -> None:
    wanted, given = (list(inspect.signature(getattr(each, name)).parameters) for each in (Progress, kind))
    assert given == wanted


def test_telling_nobody_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    silent = Silent()
    silent.stage("searching")
    silent.begin("a", 1.0, 2.0)
    silent.done(None, None)  # type: ignore[arg-type]  # nobody looks
    assert capsys.readouterr() == ("", "")
