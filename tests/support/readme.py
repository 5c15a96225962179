"""A README as something to run: its shell blocks with what it says comes back, and its tables."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import groupby, pairwise

_PARTS = re.compile(r"^## (?P<heading>[^\n]+)$|^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block. `section`: the heading that it is under. `says`: the block of output that follows, if one does."""

    section: str
    language: str
    text: str
    says: str | None = None


def blocks(markdown: str) -> list[Block]:
    """Every fenced block, in order; output (a block without a language) that follows a shell block goes with it."""
    found: list[Block] = []
    section = ""
    for match in _PARTS.finditer(markdown):
        section = match["heading"] or section
        if match["text"] is not None:
            found.append(Block(section, match["language"], match["text"]))
    return [
        Block(block.section, block.language, block.text, after.text if (block.language, after.language) == ("sh", "") else None)
        for block, after in pairwise([*found, Block("", "end", "")])
    ]


def tables(markdown: str, section: str) -> list[list[list[str]]]:
    """The tables under a heading: their rows, the header first; their cells without code marks."""
    _before, _heading, after = markdown.partition(f"\n## {section}\n")
    under = after.partition("\n## ")[0]
    return [
        [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines if not set(line) <= set("|-")]
        for is_table, lines in groupby(under.splitlines(), lambda line: line.startswith("|"))
        if is_table
    ]


def agrees(said: str, came: str) -> bool:
    """Whether `came` is what a README says comes: white space apart (grpcurl varies its own), `...` for whatever there is."""
    pattern = ".*?".join(re.escape(_collapsed(part)) for part in said.split("..."))
    return re.fullmatch(pattern, _collapsed(came), re.DOTALL) is not None


def _collapsed(text: str) -> str:
    return " ".join(text.split())
