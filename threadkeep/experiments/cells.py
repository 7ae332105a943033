"""The finished part of a run, on disk: one line a cell, so that an interrupted run goes on where it was."""

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from threadkeep import InvalidSetting
from threadkeep.experiments.base import Dataset
from threadkeep.experiments.metrics import Outcome


class Cell(NamedTuple):
    """One conversation with one strategy at one budget."""

    task: str
    conversation: str
    strategy: str
    budget: int


class Cells:
    """Outcomes by cell, appended to a file as each is finished.

    Args:
        path: the file; made where it is missing.
        fingerprint: of what the outcomes depend on beside the cell; a file of another run is refused.

    Raises:
        InvalidSetting: the file belongs to another run.
    """

    def __init__(self, path: Path, fingerprint: str) -> None:
        self._path = path
        self._outcomes: dict[Cell, list[Outcome]] = {}
        self._reuse: dict[Cell, tuple[int, int]] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = list(_whole_lines(path)) if path.exists() else []
        if lines and lines[0].get("fingerprint") != fingerprint:
            raise InvalidSetting(f"{path} holds cells of another run (other data, seed or release): give another folder, or delete it")
        if not lines:
            path.write_text(json.dumps({"fingerprint": fingerprint}) + "\n")
        for line in lines[1:]:
            cell = Cell(*line["cell"])
            self._outcomes[cell] = [_outcome(each) for each in line["outcomes"]]
            if line.get("reuse") is not None:
                self._reuse[cell] = (line["reuse"][0], line["reuse"][1])

    def __contains__(self, cell: Cell) -> bool:
        return cell in self._outcomes

    def add(self, cell: Cell, outcomes: list[Outcome], reuse: tuple[int, int] | None) -> None:
        """Keep a finished cell, safe on disk."""
        self._outcomes[cell] = outcomes
        if reuse is not None:
            self._reuse[cell] = reuse
        line = {"cell": cell, "outcomes": [asdict(outcome) for outcome in outcomes], "reuse": reuse}
        with self._path.open("a") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def outcomes(self, cell: Cell) -> list[Outcome]:
        """What the cell's questions came to, in their order."""
        return self._outcomes.get(cell, [])

    def reuse(self, cell: Cell) -> tuple[int, int] | None:
        """Tokens shared with the turn before and tokens in all, over a replay of the conversation; None: not replayed."""
        return self._reuse.get(cell)


def fingerprint(dataset: Dataset, *settings: object) -> str:
    """What a cell's outcomes depend on: the data and the run's settings."""
    made = hashlib.sha256(repr(settings).encode())
    for name, conversation in dataset.conversations.items():
        made.update(name.encode())
        for said in conversation.said:
            made.update(repr((said.message.role, said.message.text, said.at)).encode("utf-8", "surrogatepass"))
    for question in dataset.questions:
        made.update(repr(question).encode("utf-8", "surrogatepass"))
    return made.hexdigest()


def _whole_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The file's records; a last line that was cut by a crash is taken off."""
    text = path.read_text()
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        path.write_text(whole)
    for line in whole.splitlines():
        yield json.loads(line)


def _outcome(record: dict[str, Any]) -> Outcome:
    ranks = record["ranks"]
    return Outcome(
        **{
            **record,
            "kept": tuple(record["kept"]),
            "ages": tuple(record["ages"]),
            "ranks": None if ranks is None else tuple(ranks),
        }
    )
