"""The pages that people read, and the blocks of code in them."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
READ = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")


class Page:
    """A page of Markdown with its fenced blocks: (language, text), in their order."""

    def __init__(self, path):
        self.path = path
        self.text = path.read_text("utf-8")
        self.blocks = re.findall(r"^```(\w+)\n(.*?)^```$", self.text, re.DOTALL | re.MULTILINE)

    def of(self, language):
        return [text for found, text in self.blocks if found == language]

    def commands(self):
        """Return what is typed at a prompt."""
        return [
            line.removeprefix("$ ") for text in self.of("console") for line in text.splitlines() if line[:2] == "$ "
        ]


@pytest.fixture(scope="session")
def readme():
    return Page(ROOT / "README.md")


@pytest.fixture(scope="session")
def tutorial():
    return Page(ROOT / "docs" / "tutorial.md")


@pytest.fixture(scope="session")
def pages():
    written = [path for path in sorted((ROOT / "docs").rglob("*.md")) if path.parent.name != "reference"]
    return [Page(ROOT / name) for name in READ] + [Page(path) for path in written]
