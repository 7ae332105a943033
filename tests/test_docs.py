"""Every Python block of the README and the docs runs, in a folder of its own.

What the reader need not see stands before a block in a comment: `<!-- setup: code -->` is run first, with pytest's `monkeypatch` at
hand (to put a scripted model in the default one's place); `<!-- not run: why -->` leaves the block out, and the reason is reported.
"""

import ast
import re
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(
    r"(?:<!--\s*(?P<mark>setup|not run):(?P<note>(?:(?!-->).)*)-->\s*?\n)?^```python\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


class Block(NamedTuple):
    page: Path
    line: int
    """The line before its first."""
    mark: str | None
    note: str
    code: str


def blocks_of(page: Path) -> list[Block]:
    text = page.read_text()
    return [
        Block(page, text.count("\n", 0, match.start("code")), match["mark"], (match["note"] or "").strip(), match["code"])
        for match in BLOCK.finditer(text)
    ]


BLOCKS = [block for page in PAGES for block in blocks_of(page)]


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: f"{block.page.relative_to(ROOT)}:{block.line}")
def test_the_block_runs(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if block.mark == "not run":
        assert block.note, f"{block.page.name}:{block.line} is not run, and does not say why"
        compile(block.code, str(block.page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        pytest.skip(block.note)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "__main__", "monkeypatch": monkeypatch}
    if block.mark == "setup":
        exec(compile(block.note, f"{block.page}: set-up", "exec"), names)
    exec(compile("\n" * block.line + block.code, str(block.page), "exec"), names)


def test_the_readme_shows_code() -> None:
    assert [block for block in BLOCKS if block.page.name == "README.md" and block.mark != "not run"]


def test_no_block_escapes() -> None:
    fences = sum(len(re.findall(r"^\s*(?:```|~~~)\s*(?:python|py|python3|pycon)\b", page.read_text(), re.MULTILINE)) for page in PAGES)

    assert len(BLOCKS) == fences, "a block is fenced in a way that the tests do not find: begin it with ```python, not indented"
