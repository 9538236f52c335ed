"""Files that survive a crash: written to a temporary name and renamed; folders that one run owns at a time."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from trimtab.core.errors import BadInput, Busy, TrimtabError

_CHUNK = 1 << 20
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def home() -> Path:
    """Return the folder of what outlives a run (peaks, ledger of looks): $TRIMTAB_HOME or the XDG data folder."""
    given = os.environ.get("TRIMTAB_HOME")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "trimtab"


def digest_files(paths: Iterable[Path]) -> str:
    """Return one SHA-256 (first 16 bytes, hex) over the content of the files, in the order given."""
    total = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                total.update(chunk)
        total.update(b"\0end of file\0")
    return total.hexdigest()[:32]


def make_folder(path: Path) -> Path:
    """Create a folder and its parents; raise one clear `BadInput` when that can't be done."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"can't create the folder {path}: {error.strerror}; choose one you may write to") from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise BadInput(f"no permission to write to the folder {path}; choose another one or change its permissions")
    return path


def write_text(path: Path, text: str) -> None:
    """Write a text file so that a crash leaves the old content or the new, never half of it."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file so that a crash leaves the old content or the new, never half of it."""
    with whole_file(path) as file:
        file.write(content)


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """Yield a temporary file that becomes `path` when the block ends well, and is removed when it doesn't."""
    make_folder(path.parent)
    with disk_errors(path), tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
            Path(file.name).chmod(0o644)
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder that becomes `path` when the block ends well, and is removed when it doesn't."""
    make_folder(path.parent)
    with disk_errors(path):
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        with disk_errors(path):
            yield temporary
            temporary.chmod(0o755)
            old = temporary.with_name(f"{temporary.name}.old")
            if path.exists():
                path.replace(old)  # renaming is quick: a crash while removing would leave half a folder
            temporary.replace(path)
            shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a full disk, a read-only folder or a missing permission into one clear line."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL or " requested and " in str(error):  # numpy's words, without a number
            raise TrimtabError(
                f"the disk is full while writing {path}; free some space (trimtab clean) and run again"
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise BadInput(f"can't write {path}: {error.strerror}; choose a folder you may write to") from error
        raise


@contextlib.contextmanager
def new_folder(path: Path, mark: str) -> Iterator[Path]:
    """Make a folder; one that wasn't there goes again when the block is refused before the file `mark` is in it."""
    there = path.exists()
    try:
        yield make_folder(path)
    except Busy:
        raise
    except TrimtabError:
        if not there and not (path / mark).exists():
            shutil.rmtree(path, ignore_errors=True)
        raise


@contextlib.contextmanager
def owned(folder: Path) -> Iterator[None]:
    """Own a folder for the time of the block; raise `Busy` when another run owns it. A dead owner owns nothing."""
    path = make_folder(folder) / ".lock"
    with disk_errors(folder), path.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not path.exists() or not os.path.samestat(path.stat(), os.fstat(lock.fileno())):
                raise BlockingIOError  # its owner ended between the two lines above, and took the file away
        except BlockingIOError as error:
            lock.seek(0)
            owner = lock.read().strip() or "unknown"
            raise Busy(
                f"another run (process {owner}) works in {folder}; wait for it to end or choose another --output"
            ) from error
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def inside(folder: Path, relative: str) -> Path:
    """Return `folder / relative`; raise `BadInput` when that points outside the folder, by name or by link."""
    root = folder.resolve()
    path = (root / relative).resolve()
    if not path.is_relative_to(root):
        raise BadInput(f"{relative!r} points outside the folder {folder}; put the file inside it")
    return path
