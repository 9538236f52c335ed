"""How the command line ends: one line for what a person can mend, and the right exit code."""

from __future__ import annotations

import sys

import pytest


@pytest.fixture
def source(tmp_path, monkeypatch):
    """Make a data source out of the lines of a function, and return how it is typed."""

    def make(*lines: str) -> str:
        body = "".join(f"    {line}\n" for line in lines)
        (tmp_path / "given_items.py").write_text(f"def items():\n{body}")
        monkeypatch.delitem(sys.modules, "given_items", raising=False)
        monkeypatch.chdir(tmp_path)
        return "given_items:items"

    return make


def test_an_interrupt_says_how_to_go_on(trimtab, files, source):
    done = trimtab("measure", files[0], "--data", source("raise KeyboardInterrupt"))
    assert done.code == 130
    assert done.err.splitlines()[-1] == "trimtab: interrupted; run the same command again to continue"


def test_an_error_of_the_users_own_code_is_one_line(trimtab, files, source):
    done = trimtab("measure", files[0], "--data", source("raise RuntimeError('no\\n\\x1b[2Jway')"))
    assert done.code == 2
    (line,) = done.err.splitlines()
    assert line.startswith("trimtab: ")
    assert "RuntimeError: no" in line
    assert "\x1b" not in line


def test_an_exit_of_the_users_own_code_keeps_its_code(trimtab, files, source):
    done = trimtab("measure", files[0], "--data", source("raise SystemExit(7)"))
    assert (done.code, done.err) == (7, "")


def test_a_path_that_the_system_refuses_is_named(trimtab, files, tmp_path):
    done = trimtab("demo", "--save", files[0] / "below a file")
    assert done.code == 2
    (line,) = done.err.splitlines()
    assert "below a file" in line
