"""The command line: parses words, calls one verb of the workbench, prints what comes back."""

from __future__ import annotations

import sys

from trimtab.cli.app import app
from trimtab.core.errors import TrimtabError

__all__ = ["app", "main"]


def main() -> None:
    """Run the command line; an error of ours is one line and its exit code."""
    try:
        app()
    except TrimtabError as error:
        print(f"trimtab: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except MemoryError as error:
        print(f"trimtab: the memory ran out: {error}; choose a smaller --batch or less data", file=sys.stderr)
        sys.exit(TrimtabError.exit_code)
    except OSError as error:
        if error.errno is None or isinstance(error, BrokenPipeError):
            raise
        where = f" ({error.filename})" if error.filename else ""
        print(f"trimtab: {error.strerror}{where}; mend that and run the same command again", file=sys.stderr)
        sys.exit(TrimtabError.exit_code)
    except KeyboardInterrupt:
        print("trimtab: interrupted; run the same command again to continue", file=sys.stderr)
        sys.exit(130)
