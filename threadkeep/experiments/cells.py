"""The finished part of a run, on disk: one line a cell, so that an interrupted run goes on where it was."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
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

    A cell in which the strategy failed is reported, and not kept in the file: it is run again once the strategy was mended. So is a
    finished cell of a strategy whose code has changed since.

    Args:
        path: the file; made where it is missing.
        fingerprint: of what the outcomes depend on beside the cell; a file of another run is refused.
        sources: by strategy, what stands for its code.

    Raises:
        InvalidSetting: the file belongs to another run, or is damaged.
    """

    def __init__(self, path: Path, fingerprint: str, sources: Mapping[str, str]) -> None:
        self._path = path
        self._sources = sources
        self._outcomes: dict[Cell, list[Outcome]] = {}
        self._reuse: dict[Cell, tuple[int, int]] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = _whole_lines(path) if path.exists() else []
        if not lines:
            path.write_text(json.dumps({"fingerprint": fingerprint}) + "\n", "utf-8")
        for number, line in enumerate(lines, 1):
            try:
                self._read(json.loads(line), fingerprint, first=number == 1)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                if isinstance(error, InvalidSetting):
                    raise
                raise InvalidSetting(f"{path}, line {number}: is no cell of a run ({error}): give another folder, or delete it") from error

    def _read(self, record: dict[str, Any], fingerprint: str, *, first: bool) -> None:
        if first:
            if record["fingerprint"] != fingerprint:
                raise InvalidSetting(
                    f"{self._path} holds cells of another run (other data, seed or release): give another folder, or delete it"
                )
            return
        cell = Cell(*record["cell"])
        if record["source"] == self._sources.get(cell.strategy, ""):
            self._outcomes[cell] = [_outcome(each) for each in record["outcomes"]]
            if record["reuse"] is not None:
                shared, total = record["reuse"]
                self._reuse[cell] = (shared, total)

    def __contains__(self, cell: Cell) -> bool:
        return cell in self._outcomes

    def add(self, cell: Cell, outcomes: list[Outcome], reuse: tuple[int, int] | None) -> None:
        """Keep a finished cell, safe on disk; one that failed, for this run only."""
        self._outcomes[cell] = outcomes
        if reuse is not None:
            self._reuse[cell] = reuse
        if any(outcome.error for outcome in outcomes):
            return
        source = self._sources.get(cell.strategy, "")
        line = {"cell": cell, "source": source, "outcomes": [asdict(outcome) for outcome in outcomes], "reuse": reuse}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def outcomes(self, cell: Cell) -> list[Outcome]:
        """What the cell's questions came to, in their order."""
        return self._outcomes.get(cell, [])

    def reuse(self, cell: Cell) -> tuple[int, int] | None:
        """Tokens shared with the turn before and tokens in all, over a replay of the conversation; None: not replayed."""
        return self._reuse.get(cell)


def fingerprint(dataset: Dataset, seed: int) -> str:
    """What a cell's outcomes depend on: the data, the seed and this release."""
    made = hashlib.sha256(f"{release()} {seed}".encode())
    for conversation in dataset.conversations.values():
        made.update(repr((conversation.name, len(conversation.said))).encode("utf-8", "surrogatepass"))
        for said in conversation.said:
            made.update(repr((said.message.to_dict(), said.at)).encode("utf-8", "surrogatepass"))
    for question in dataset.questions:
        made.update(repr(question).encode("utf-8", "surrogatepass"))
    return made.hexdigest()


def release() -> str:
    """This release of threadkeep."""
    try:
        return version("threadkeep")
    except PackageNotFoundError:
        return "a checkout that is not installed"


def _whole_lines(path: Path) -> list[bytes]:
    """The file's lines; a last one that was cut by a crash is taken off."""
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        os.truncate(path, whole)
    return data[:whole].splitlines()


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
