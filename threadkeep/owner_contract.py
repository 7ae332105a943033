"""What holds for owners whose names look alike, on every database: whatever one reads, searches, or is told, nothing of another is in it.

Each owner's words carry the owner's number, so that a foreign one is seen wherever it comes out. What comes new reads one more in `READS`.
"""

import json
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product

import pytest

from threadkeep.memory.budget import Budget
from threadkeep.memory.errors import ThreadkeepError
from threadkeep.memory.memory import Memory
from threadkeep.memory.message import Message
from threadkeep.stores.jobs import Jobs
from threadkeep.strategies.compose import Compose
from threadkeep.strategies.default import default_strategy
from threadkeep.strategies.recall import Recall
from threadkeep.strategies.rolling_summary import RollingSummary
from threadkeep.strategies.sliding_window import SlidingWindow

BEGINNINGS = (
    "ada",
    "Ada",
    "ADA",
    "aDa",
    "ad",
    "adaa",
    "a",
    "ａｄａ",
    "áda",
    "ädа",
    "аda",
    "%",
    "_",
    "ad_",
    "a%",
    "1",
    "01",
    "ß",
    "ss",
    "İ",
    "ı",
    "ﬁ",
)
ENDS = (
    *("", " ", "  ", "\t", "\n", "\r\n", "\u00a0", "\u200b", "\u0301", "\u0308", "%", "_", "'", "''", '"', "`", "\\", "\\\\", "\\'", ";--"),
    *(
        "/",
        "/*",
        "*/",
        "$1",
        ":p",
        "%s",
        "{}",
        "?",
        "é",
        "É",
        "ё",
        "ﬀ",
        "🙂",
        "👩\u200d👧",
        "\ufeff",
        "\u202e",
        "x" * 240,
        "x" * 239 + "X",
        "null",
    ),
)


def look_alikes(count: int) -> list[str]:
    """So many names that somebody or some database may take for one another, each a valid one."""
    every: dict[str, None] = {}
    for beginning, end in product(BEGINNINGS, ENDS):
        for form in ("NFC", "NFD", "NFKC"):
            every.setdefault(unicodedata.normalize(form, beginning + end))
        every.setdefault(beginning + end)
    names = [name for name in every if 0 < len(name) <= 255]
    assert len(names) >= count, f"there are {len(names)} names"
    return [names[at * len(names) // count] for at in range(count)]


def word(number: int) -> str:
    """What an owner of this number says, and nobody else."""
    return f"w{number}w"


def words_in(told: object) -> set[str]:
    return set(re.findall(r"w\d+w", str(told)))


def fill(memory: Memory, owner: str, number: int, *, much: bool = True) -> None:
    """Two sessions, of which one is called the same for everybody."""
    own = word(number)
    session = memory.session("chat", owner=owner)
    session.append(
        f"The secret parcel is {own}.", Message.assistant(f"It is {own}, then."), key="k", metadata={"tags": ["fact"], "said": own}
    )
    memory.session(f"about {own}", owner=owner).append(f"Another secret parcel is {own}, too.")
    if much:
        session.chat(f"And the parcel of {own}?", key="asked")
        session.append(*(f"The train number {at} is {own}, and its parcel is late." for at in range(12)))
        session.pin(1)
        session.upkeep()
        session.fork(f"branch {own}", at=4)
        session.edit(2, f"It is {own} after all.")


def _context(strategy: object) -> Callable[[Memory, str], object]:
    def read(memory: Memory, owner: str) -> object:
        made = memory.session("chat", owner=owner).context("Which is the secret parcel?", strategy=strategy, budget=Budget(300))  # type: ignore[arg-type]
        return json.dumps([made.messages, made.manifest]), made.explain().data, str(made.explain())

    return read


READS: Mapping[str, Callable[[Memory, str], object]] = {
    "sessions": lambda memory, owner: memory.sessions(owner=owner),
    "sessions after one": lambda memory, owner: memory.sessions(owner=owner, after="chat"),
    "entries": lambda memory, owner: [(one, one.metadata) for one in memory.session("chat", owner=owner).entries()],
    "search": lambda memory, owner: memory.session("chat", owner=owner).search("secret parcel"),
    "search everywhere": lambda memory, owner: memory.session("chat", owner=owner).search("secret parcel", scope="owner"),
    "window": _context(SlidingWindow()),
    "default": _context(default_strategy()),
    "recall": _context(Recall(floor=0)),
    "recall everywhere": _context(Recall(scope="owner", floor=0)),
    "summary": _context(Compose(RollingSummary(span=1, tokens=40, recent=0), Recall(), shares=(0.5, 0.5))),
    "context of a turn": lambda memory, owner: memory.session("chat", owner=owner).context(as_of=1).messages,
    "calls": lambda memory, owner: memory.session("chat", owner=owner).calls(),
    "usage": lambda memory, owner: memory.usage(owner=owner),
    "usage of a session": lambda memory, owner: memory.usage(owner=owner, session="chat"),
    "branches": lambda memory, owner: memory.session("chat", owner=owner).branches(),
    "upkeep": lambda memory, owner: Jobs(memory.store).status(owner, 1000),
    "a session that is not there": lambda memory, owner: memory.session("none", owner=owner).entries(),
    "an entry that is not there": lambda memory, owner: memory.session("chat", owner=owner).pin(10**6),
    "a turn that is not there": lambda memory, owner: memory.session("chat", owner=owner).context(as_of=10**6),
    "a branch that is not there": lambda memory, owner: memory.session("chat", owner=owner).switch("none"),
    "a key that was used": lambda memory, owner: memory.session("chat", owner=owner).append("other words", key="k"),
    "a page after nothing": lambda memory, owner: memory.sessions(owner=owner, after="none"),
}
"""What an owner may ask, by name."""
TELLING = frozenset(READS) - {name for name in READS if name.startswith(("a ", "an ", "calls", "usage", "upkeep"))} - {"context of a turn"}
"""Those of which the answer has words of the owner's own."""


def told(memory: Memory, owner: str, read: Callable[[Memory, str], object]) -> object:
    """The answer, or the error."""
    try:
        return read(memory, owner)
    except ThreadkeepError as error:
        return type(error).__name__, error, getattr(error, "__notes__", ())


def foreign(memory: Memory, owners: Sequence[str], reads: Mapping[str, Callable[[Memory, str], object]] = READS) -> Iterator[str]:
    """What an owner was told of others; and where nothing of his own came, though there is some."""
    for number, owner in enumerate(owners):
        for name, read in reads.items():
            answer = told(memory, owner, read)
            if not words_in(answer) <= {word(number)}:
                yield f"{owner!r}, {name}: {sorted(words_in(answer) - {word(number)})}"
            if name in TELLING and not words_in(answer):
                yield f"{owner!r}, {name}: nothing of his own in {str(answer)[:200]}"


class OwnerContract:
    """What holds for owners on every database."""

    owners = 6
    """How many there are in the tests that do everything."""

    @pytest.fixture
    def alike(self, memory: Memory) -> list[str]:
        """Owners whose names look alike, each with sessions, turns, pins, branches and what upkeep makes."""
        names = look_alikes(self.owners)
        for number, owner in enumerate(names):
            fill(memory, owner, number)
        return names

    def test_no_read_shows_anything_of_an_owner_whose_name_looks_alike(self, memory: Memory, alike: list[str]) -> None:
        assert list(foreign(memory, alike)) == []

    def test_deleting_an_owner_deletes_nothing_of_one_whose_name_looks_alike(self, memory: Memory, alike: list[str]) -> None:
        gone, kept = alike[::2], alike[1::2]
        before = {owner: told(memory, owner, READS["entries"]) for owner in kept}
        assert [memory.delete_owner(owner) for owner in gone] == [2] * len(gone)
        assert {owner: told(memory, owner, READS["entries"]) for owner in kept} == before
        for owner in gone:
            assert not words_in([told(memory, owner, read) for name, read in READS.items() if name != "a key that was used"])  # that writes
            assert memory.delete_owner(owner) == 0
