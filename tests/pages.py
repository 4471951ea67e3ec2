"""The pages for readers, taken apart: fenced blocks, tables, words in backticks."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
RECORDING = (ROOT / "docs/recording.md").read_text()
PROOF = (ROOT / "docs/proof.md").read_text()
CHANGELOG = (ROOT / "CHANGELOG.md").read_text()
PROSE = re.sub(r"^```.*?^```$", "", README + RECORDING + PROOF + CHANGELOG, flags=re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block: the heading that it is below, its language, its text."""

    heading: str
    language: str
    text: str

    @property
    def commands(self) -> list[tuple[str, list[str]]]:
        """Of a console: each command, and the lines that it is said to print."""
        found: list[tuple[str, list[str]]] = []
        for line in self.text.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], []))
            else:
                found[-1][1].append(line.rstrip())
        return found


def blocks(page: str, *languages: str) -> list[Block]:
    pattern = re.compile(
        r"^#+ (?P<heading>[^\n]*)$|^```(?P<language>[\w-]+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
    )
    heading, found = "", []
    for match in re.finditer(pattern, page):
        heading = match["heading"] or heading
        if match["language"] in languages:
            found.append(Block(heading, match["language"], match["text"]))
    return found


def table(head: str) -> list[list[str]]:
    """The cells of the rows below the head of a table of the README."""
    lines = README[README.index(f"\n| {head} |") + 1 :].split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def names(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)
