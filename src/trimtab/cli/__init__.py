"""The command line: parses words, calls one verb of the workbench, prints what comes back."""

from __future__ import annotations

import sys

from trimtab.cli.app import app
from trimtab.core.errors import TrimtabError
from trimtab.reports.words import printable

__all__ = ["app", "main"]

_INTERRUPTED = 130  # what typer makes of Ctrl-C


def main() -> None:
    """Run the command line; an error of ours is one line and its exit code."""
    try:
        app()
    except TrimtabError as error:
        print(f"trimtab: {printable(str(error))}", file=sys.stderr)
        sys.exit(error.exit_code)
    except MemoryError as error:
        print(f"trimtab: the memory ran out: {error}; choose a smaller --batch or less data", file=sys.stderr)
        sys.exit(TrimtabError.exit_code)
    except OSError as error:
        if error.errno is None:
            raise
        where = f" ({error.filename})" if error.filename else ""
        print(f"trimtab: {error.strerror}{where}; mend that and run the same command again", file=sys.stderr)
        sys.exit(TrimtabError.exit_code)
    except SystemExit as left:
        if left.code == _INTERRUPTED:
            print("trimtab: interrupted; run the same command again to continue", file=sys.stderr)
        raise
