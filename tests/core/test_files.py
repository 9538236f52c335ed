from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from trimtab.core import files
from trimtab.core.errors import BadInput, Busy, TrimtabError


def left_over(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class TestHome:
    def test_is_where_the_user_says_or_in_the_data_folder(self, monkeypatch, tmp_path):
        monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
        monkeypatch.delenv("TRIMTAB_HOME", raising=False)
        assert files.home() == tmp_path / "trimtab"
        monkeypatch.setenv("TRIMTAB_HOME", str(tmp_path / "mine"))
        assert files.home() == tmp_path / "mine"


class TestDigest:
    def test_is_sha256_of_content_and_borders(self, tmp_path):
        (tmp_path / "a").write_bytes(b"one")
        (tmp_path / "b").write_bytes(b"two")
        expected = hashlib.sha256(b"one\0end of file\0two\0end of file\0").hexdigest()[:32]
        assert files.digest_files([tmp_path / "a", tmp_path / "b"]) == expected

    def test_depends_on_content_order_and_borders_not_on_names(self, tmp_path):
        contents = {"a": b"one", "b": b"two", "c": b"onetwo", "d": b"", "e": b"one"}
        for name, content in contents.items():
            (tmp_path / name).write_bytes(content)
        a, b, c, d, e = (tmp_path / name for name in contents)
        digests = [files.digest_files(paths) for paths in ([a, b], [b, a], [c], [c, d], [a])]
        assert len(set(digests)) == 5
        assert files.digest_files([a]) == files.digest_files(iter([e]))

    def test_reads_beyond_one_chunk(self, tmp_path):
        (tmp_path / "a").write_bytes(bytes(3 << 20) + b"x")
        (tmp_path / "b").write_bytes(bytes(3 << 20) + b"y")
        assert files.digest_files([tmp_path / "a"]) != files.digest_files([tmp_path / "b"])


class TestWriting:
    def test_replaces_the_whole_file_and_makes_its_folder(self, tmp_path):
        path = tmp_path / "new" / "deep" / "a.txt"
        files.write_text(path, "long old content")
        files.write_text(path, "new")
        assert path.read_text() == "new"
        assert left_over(path.parent) == ["a.txt"]
        assert path.stat().st_mode & 0o777 == 0o644

    def test_a_failure_leaves_the_old_content_and_no_litter(self, tmp_path, monkeypatch):
        path = tmp_path / "a.txt"
        files.write_text(path, "old")

        def fail(descriptor: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "fsync", fail)
        with pytest.raises(TrimtabError, match="the disk is full while writing"):
            files.write_text(path, "new")
        assert (path.read_text(), left_over(tmp_path)) == ("old", ["a.txt"])

    def test_an_interrupt_leaves_no_litter_either(self, tmp_path, monkeypatch):
        def interrupt(descriptor: int) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(os, "fsync", interrupt)
        with pytest.raises(KeyboardInterrupt):
            files.write_text(tmp_path / "a.txt", "new")
        assert left_over(tmp_path) == []


class TestFolders:
    def test_one_that_can_not_be_made_is_one_clear_line(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(BadInput, match=r"can't create the folder .*; choose one you may write to"):
            files.make_folder(tmp_path / "file" / "below")

    def test_one_without_permission_is_one_clear_line(self, tmp_path, monkeypatch):
        monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
        with pytest.raises(BadInput, match="no permission to write to the folder"):
            files.make_folder(tmp_path)

    def test_a_whole_folder_appears_at_the_end_or_not_at_all(self, tmp_path):
        target = tmp_path / "bundle"
        with files.whole_folder(target) as folder:
            (folder / "a").write_text("1")
            assert not target.exists()
        assert left_over(target) == ["a"]
        assert target.stat().st_mode & 0o777 == 0o755
        with pytest.raises(ZeroDivisionError), files.whole_folder(target) as folder:
            (folder / "b").write_text("2")
            raise ZeroDivisionError
        assert (left_over(target), left_over(tmp_path)) == (["a"], ["bundle"])

    def test_a_whole_folder_replaces_the_old_one(self, tmp_path):
        for name in ("a", "b"):
            with files.whole_folder(tmp_path / "bundle") as folder:
                (folder / name).write_text("")
        assert (left_over(tmp_path / "bundle"), left_over(tmp_path)) == (["b"], ["bundle"])


class TestDiskErrors:
    @pytest.mark.parametrize(
        ("number", "kind", "words"),
        [
            (errno.ENOSPC, TrimtabError, "the disk is full"),
            (errno.EDQUOT, TrimtabError, "the disk is full"),
            (errno.EFBIG, TrimtabError, "the disk is full"),
            (errno.EACCES, BadInput, "choose a folder you may write to"),
            (errno.EPERM, BadInput, "choose a folder you may write to"),
            (errno.EROFS, BadInput, "choose a folder you may write to"),
        ],
    )
    def test_are_one_clear_line(self, number, kind, words):
        with pytest.raises(kind, match=words) as caught, files.disk_errors(Path("a/b")):
            raise OSError(number, os.strerror(number))
        assert "a/b" in str(caught.value)

    def test_a_full_disk_is_known_by_what_numpy_says_of_it_too(self):
        with pytest.raises(TrimtabError, match="the disk is full"), files.disk_errors(Path("a")):
            raise OSError("1024 requested and 0 written")

    def test_others_stay_what_they_are(self):
        with pytest.raises(FileNotFoundError), files.disk_errors(Path("a")):
            raise FileNotFoundError


class TestOwnership:
    def test_a_second_owner_is_refused_and_told_who_the_first_is(self, tmp_path):
        with files.owned(tmp_path), pytest.raises(Busy, match=f"process {os.getpid()}"), files.owned(tmp_path):
            pass
        with files.owned(tmp_path):
            pass

    def test_another_process_is_refused_too(self, tmp_path):
        code = (
            f"from pathlib import Path; from trimtab.core.files import owned\nwith owned(Path({str(tmp_path)!r})): pass"
        )
        with files.owned(tmp_path):
            assert b"Busy" in subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).stderr
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

    def test_a_killed_owner_owns_nothing(self, tmp_path):
        code = (
            "import os, signal; from pathlib import Path; from trimtab.core.files import owned\n"
            f"with owned(Path({str(tmp_path)!r})): os.kill(os.getpid(), signal.SIGKILL)"
        )
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode < 0
        with files.owned(tmp_path):
            pass

    def test_an_error_inside_gives_the_folder_back(self, tmp_path):
        with pytest.raises(ZeroDivisionError), files.owned(tmp_path):
            raise ZeroDivisionError
        with files.owned(tmp_path):
            pass

    def test_its_lock_goes_with_it(self, tmp_path):
        with files.owned(tmp_path):
            assert list(tmp_path.iterdir())
        assert not list(tmp_path.iterdir())


class TestNewFolder:
    def test_stays_when_all_went_well(self, tmp_path):
        with files.new_folder(tmp_path / "a" / "b", "mark") as folder:
            assert folder.is_dir()
        assert folder.is_dir()

    @pytest.mark.parametrize(
        ("before", "mark", "error", "stays"),
        [
            (False, False, BadInput, False),
            (False, True, BadInput, True),
            (True, False, BadInput, True),
            (False, False, Busy, True),
            (False, False, ZeroDivisionError, True),
        ],
    )
    def test_goes_only_if_it_is_new_and_was_refused_before_the_mark(self, tmp_path, before, mark, error, stays):
        folder = tmp_path / "new"
        if before:
            folder.mkdir()
        with pytest.raises(error), files.new_folder(folder, "mark"):
            (folder / "litter").touch()
            if mark:
                (folder / "mark").touch()
            raise error
        assert folder.exists() == stays


class TestInside:
    def test_returns_what_is_inside(self, tmp_path):
        assert files.inside(tmp_path, "a/../b.bin") == tmp_path.resolve() / "b.bin"

    @pytest.mark.parametrize("relative", ["../b", "/etc/passwd", "a/../../b", "link/b"])
    def test_refuses_what_leaves_by_name_or_by_link(self, tmp_path, relative):
        folder = tmp_path / "folder"
        folder.mkdir()
        (folder / "link").symlink_to(tmp_path)
        with pytest.raises(BadInput, match="points outside the folder"):
            files.inside(folder, relative)

    def test_a_folder_with_a_name_that_begins_alike_is_outside(self, tmp_path):
        (tmp_path / "model").mkdir()
        (tmp_path / "model2").mkdir()
        with pytest.raises(BadInput):
            files.inside(tmp_path / "model", "../model2/b")


class TestReplacing:
    def test_a_folder_that_can_not_be_moved_leaves_the_old_one(self, tmp_path, monkeypatch):
        target = tmp_path / "bundle"
        with files.whole_folder(target) as folder:
            (folder / "a").write_text("old")
        real = Path.replace

        def fail(path: Path, to: Path) -> Path:
            if to == target:
                raise OSError(errno.EACCES, "Permission denied")
            return real(path, to)

        monkeypatch.setattr(Path, "replace", fail)
        with pytest.raises(BadInput, match="can't write"), files.whole_folder(target) as folder:
            (folder / "a").write_text("new")
        (kept,) = tmp_path.iterdir()
        assert (kept / "a").read_text() == "old"

    def test_names_may_hold_spaces_dots_and_any_letter(self, tmp_path):
        path = tmp_path / "mein Modell.v2" / "größe.json"
        files.write_text(path, "ü")
        assert path.read_text("utf-8") == "ü"
        with files.whole_folder(tmp_path / "ein Bündel") as folder:
            (folder / "leer").mkdir()
        assert (tmp_path / "ein Bündel" / "leer").is_dir()

    def test_an_empty_file_and_an_empty_folder_are_written_too(self, tmp_path):
        files.write_bytes(tmp_path / "empty", b"")
        with files.whole_folder(tmp_path / "folder"):
            pass
        assert (tmp_path / "empty").read_bytes() == b""
        assert left_over(tmp_path / "folder") == []


def test_no_file_has_the_digest_of_no_content():
    assert files.digest_files([]) == hashlib.sha256().hexdigest()[:32]


def test_a_file_that_is_gone_is_not_digested_as_empty(tmp_path):
    with pytest.raises(FileNotFoundError):
        files.digest_files([tmp_path / "gone"])
