"""Writes the report of a finished run, and reads a run back."""

from __future__ import annotations

from pathlib import Path

from trimtab.core.codec import loads
from trimtab.core.errors import BadInput
from trimtab.core.values import Result
from trimtab.reports import html

REPORT = "report.html"
RESULT = "result.json"


def write_report(result: Result, folder: Path) -> Path:
    """Write the HTML report of a run into its folder and return its path."""
    return html.write(result, (folder / REPORT).resolve())


def read_result(folder: Path) -> Result:
    """Return the result of a finished run."""
    path = folder / RESULT
    if not path.is_file():
        raise BadInput(f"{folder} holds no finished run ({RESULT} is missing); give the --output of trimtab optimize")
    try:
        return loads(Result, path.read_text("utf-8"))
    except (BadInput, UnicodeDecodeError) as error:
        raise BadInput(f"{path} is damaged or of another version of trimtab ({error}); optimize again") from error
