from __future__ import annotations

import re
import tomllib
from pathlib import Path

from trimtab.core import errors
from trimtab.core.errors import CertificateBroken, GoalUnmet, MissingExtra, TrimtabError, Unsafe

ROOT = Path(__file__).parents[2]
KINDS = {name: kind for name, kind in vars(errors).items() if isinstance(kind, type)}


def drawn() -> dict[str, str]:
    """Return the tree at the top of the file: the name of each error and of the one it hangs on, "" for none."""
    branches: list[str] = []
    found = {}
    for line in (errors.__doc__ or "").splitlines():
        if match := re.match(r"    ((?:[│ ]   |├── |└── )*)([A-Z]\w+) ", line):
            depth = len(match[1]) // 4
            branches[depth:] = [match[2]]
            found[match[2]] = branches[depth - 1] if depth else ""
    return found


def test_the_tree_that_is_drawn_is_the_tree_that_there_is():
    real = {name: kind.__base__.__name__ for name, kind in KINDS.items() if kind is not TrimtabError}
    unrelated = {"GoalUnmet": "", "CertificateBroken": ""}  # drawn apart: they are outcomes, not mistakes
    assert drawn() == {**real, "TrimtabError": "", **unrelated}


def test_exit_codes_tell_a_mistake_from_an_unmet_goal_and_from_a_broken_certificate():
    codes = {name: kind.exit_code for name, kind in KINDS.items()}
    assert codes.pop("GoalUnmet") == 3
    assert codes.pop("CertificateBroken") == 1
    assert set(codes.values()) == {2}


def test_every_one_is_caught_as_an_error_of_ours_and_never_as_one_of_python():
    for kind in KINDS.values():
        assert issubclass(kind, TrimtabError)
        assert not issubclass(kind, ValueError | OSError | ImportError | RuntimeError)
    assert issubclass(Unsafe, errors.BadInput), "what is unsafe can't be used either"
    assert not issubclass(GoalUnmet, errors.BadInput)
    assert not issubclass(CertificateBroken, errors.BadInput)


def test_a_missing_extra_says_who_needs_what_and_how_to_get_it():
    error = MissingExtra("nncf", "openvino", "int8 by NNCF")
    assert str(error) == "int8 by NNCF needs the package nncf: pip install 'trimtab[openvino]'"
    assert (error.package, error.extra) == ("nncf", "openvino")


def test_every_extra_that_an_error_names_brings_its_package():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    sources = "\n".join(path.read_text("utf-8") for path in (ROOT / "src").rglob("*.py"))
    named = set(re.findall(r'MissingExtra\(\s*"([\w-]+)",\s*"(\w+)"', sources))
    assert len(named) >= 4
    for package, extra in named:
        brought = {re.split(r"[>=<\[]", requirement)[0] for requirement in extras[extra]}
        assert package in brought, f"trimtab[{extra}] does not bring {package}"
