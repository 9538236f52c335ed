"""The tree of errors.

    TrimtabError                 exit code 2: something the user can mend
    ├── BadInput                 a model, data or option that can't be used as given
    │   └── Unsafe               refused because reading it could run code or leave its folder
    ├── MissingExtra             an optional package is not installed; names the command that installs it
    ├── Refused                  a technique or runtime can't do this to that variant
    │   └── NothingToGain        it could, but would change nothing or give up all it gains
    ├── Busy                     another run works in the same folder
    └── WorkerError              a worker process failed
        ├── WorkerCrashed        it died or raised
        ├── WorkerTimeout        it took longer than its limit
        └── WorkerOutOfMemory    it took more memory than its limit
    GoalUnmet                    exit code 3: the search ended without a variant that keeps the goal
    CertificateBroken            exit code 1: a certificate did not hold when it was run again

Every message says what happened, why, and what to do next, in one line.
"""

from __future__ import annotations


class TrimtabError(Exception):
    """Something went wrong that the user can mend; the message is one clear line.

    `variant` is the key of the variant whose session it was, where it came from one.
    """

    exit_code = 2
    variant: str | None = None


class BadInput(TrimtabError):
    """A model, data set or option can't be used as given."""


class Unsafe(BadInput):
    """Reading the file could run code or leave its folder."""


class MissingExtra(TrimtabError):
    """An optional package is not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs the package {package}: pip install 'trimtab[{extra}]'")
        self.package = package
        self.extra = extra


class Refused(TrimtabError):
    """A technique or runtime can't do this to that variant."""


class NothingToGain(Refused):
    """A technique would change nothing on that variant, or give up all that it gains."""


class Busy(TrimtabError):
    """Another run works in the same folder."""


class WorkerError(TrimtabError):
    """A worker process failed."""


class WorkerCrashed(WorkerError):
    """A worker process died or raised."""


class WorkerTimeout(WorkerError):
    """A worker process took longer than its limit."""


class WorkerOutOfMemory(WorkerError):
    """A worker process took more memory than its limit."""


class GoalUnmet(TrimtabError):
    """The search ended without a variant that keeps the goal."""

    exit_code = 3


class CertificateBroken(TrimtabError):
    """A certificate did not hold when it was run again."""

    exit_code = 1
