"""Random compositions of all strategies keep the promises, in random logs and turn by turn."""

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import count, pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_rows_read import work_of

from threadkeep import (
    Budget,
    CannotFit,
    ClearToolResults,
    Compose,
    Context,
    Memory,
    Message,
    Profile,
    ScriptedBackend,
    Selective,
    Session,
    Strategy,
    TiktokenCounter,
)
from threadkeep.embedders.hashed import HashedEmbedder
from threadkeep.memory.message import JSON
from threadkeep.promises import Asked, Log, shown_by, smallest, violations, whole
from threadkeep.random_logs import PROFILES, TOOL, Step, courses, logs, steps, talks
from threadkeep.random_strategies import compositions
from threadkeep.strategies.recall import Recall
from threadkeep.testing import SAME_BEGINNING, WINDOW, Conversation

COUNTER = TiktokenCounter("o200k_base")
MARKS: tuple[JSON, ...] = ({"tags": ["fact"], "importance": 0.9}, {"tags": ["home"]}, {"importance": 0.2}, {})


class Place:
    """Where each composition gets a database of its own: a copy of one that is made already."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = count()
        with Memory(f"sqlite:///{folder / 'empty.db'}", counter=COUNTER, budget=Budget(100)) as memory:
            memory.store.migrate()

    @contextmanager
    def memory(self, strategy: Strategy, profile: Profile, *, embeds: bool = False) -> Iterator[Callable[[], Memory]]:
        """What opens a memory on a new copy, as often as it is called."""
        path = self._folder / f"{next(self._numbers)}.db"
        shutil.copy(self._folder / "empty.db", path)
        opened: list[Memory] = []

        def another() -> Memory:
            backend = ScriptedBackend(lambda _: "well then " * 3, counter=COUNTER, profile=profile, window=WINDOW)
            embedder = HashedEmbedder() if embeds else None
            opened.append(Memory(f"sqlite:///{path}", backend=backend, strategy=strategy, embedder=embedder, upkeep=False))
            return opened[-1]

        try:
            yield another
        finally:
            for memory in opened:
                memory.close()
            for left in self._folder.glob(f"{path.name}*"):
                left.unlink()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def lay(session: Session, log: Log) -> None:
    """A log with its pins, marked in turns, with all summaries and vectors that are due before its live message."""
    for at, message in enumerate(log.messages):
        if at and at == log.live - 1:
            session.upkeep()
        session.append(message, metadata=MARKS[at % len(MARKS)])
    for seq in sorted(seq for seq in log.pinned if seq in log.showable or seq <= log.leading):
        session.pin(seq)


def asked_for(session: Session, ceiling: int, asked: Asked) -> Context | CannotFit:
    try:
        return session.context(tools=asked.tools, budget=Budget(ceiling + 7, reply=7))
    except CannotFit as refusal:
        return refusal


@pytest.mark.timeout(600)
def test_random_compositions_keep_the_promises(place: Place) -> None:
    seen: Counter[str] = Counter()

    @settings(max_examples=200)
    @given(
        compositions,
        st.tuples(logs(), talks),
        st.sampled_from(PROFILES),
        st.booleans(),
        st.lists(st.floats(0, 1), max_size=6),
    )
    def holds(strategy: Strategy, given_logs: tuple[Log, Log], profile: Profile, more: bool, shares: list[float]) -> None:
        asked = Asked(COUNTER, profile, "Be kind." if more else None, (TOOL,) if more else ())
        seen["compositions"] += 1
        with place.memory(strategy, profile, embeds=more) as opened:
            memory, again = opened(), opened()
            for number, log in enumerate(given_logs):
                session = memory.session(f"session {number}", instructions=asked.instructions)
                lay(session, log)
                least, most = smallest(log, asked), whole(log, asked)
                between = [least + int(share * (most - least)) for share in shares]
                for ceiling in sorted({least - 1, least, *between, (least + most) // 2, most - 1, most}):
                    if ceiling < 1:
                        continue
                    made = asked_for(session, ceiling, asked)
                    seen["contexts"] += 1
                    if isinstance(made, CannotFit):
                        assert ceiling < least == made.needed, f"P1: {least} tokens would do within {ceiling}: {made}"
                        continue
                    assert not (found := violations(made, log, asked)), found
                    seen.update(
                        {pick.kind for pick in made.picks} | {part for one in made.decisions for part in one.reason.split(", the ")}
                    )
                    elsewhere = asked_for(again.session(session.name, instructions=asked.instructions), ceiling, asked)
                    assert isinstance(elsewhere, Context)
                    assert json.dumps([made.messages, made.manifest]) == json.dumps([elsewhere.messages, elsewhere.manifest]), "P6"

    holds()
    assert seen["contexts"] > 1500
    assert min(seen[kind] for kind in ("entries", "summary", "excerpt", "in the window", "tool's result cleared")) >= 10, seen


@pytest.mark.timeout(600)
def test_random_compositions_keep_them_turn_by_turn(place: Place) -> None:
    """And are made again from their records, and begin alike where they say so."""

    seen: Counter[str] = Counter()

    @settings(max_examples=60)
    @given(compositions, st.sampled_from(PROFILES), st.one_of(st.lists(steps, min_size=2, max_size=6), courses), st.integers(200, 2000))
    def holds(strategy: Strategy, profile: Profile, taken: list[Step], ceiling: int) -> None:
        asked = Asked(COUNTER, profile, "Be kind.")
        with place.memory(strategy, profile) as opened:
            session = opened().session("a session", instructions="Be kind.")
            conversation = Conversation(session, asked, ceiling)
            for step in taken:
                conversation.take(step)
                session.upkeep()
            seen.update(pick.kind for turn in conversation.turns.values() for pick in turn.last.picks)
            for before, after in pairwise(conversation.turns.values()):
                if after.first.cache_note == SAME_BEGINNING:
                    seen[SAME_BEGINNING] += 1
                    kept = before.last.messages[: before.opening]
                    assert after.first.messages[: len(kept)] == kept, "P13: another beginning, and the note does not say so"
            again = opened().session("a session")
            for turn_id, turn in conversation.turns.items():
                for made in (session.context(as_of=turn_id), again.context(as_of=turn_id)):
                    assert json.dumps(made.messages) == json.dumps(turn.last.messages)
                    assert [replace(pick, step=0) for pick in turn.last.picks] == list(made.picks)
                    assert shown_by(made) == shown_by(turn.last)

    holds()
    assert all(seen[kind] for kind in ("entries", "summary", "excerpt", SAME_BEGINNING)), seen


def test_no_composition_shows_one_owner_anything_of_another(place: Place) -> None:
    """Under the same names, about the same things, in the sessions that recall may read."""

    @settings(max_examples=40)
    @given(compositions, st.sampled_from((0.2, 0.5, 0.8)), st.booleans())
    def holds(strategy: Strategy, share: float, embeds: bool) -> None:
        everywhere = Compose(Recall(scope="owner", floor=0), strategy, shares=(share, 1 - share))
        with place.memory(everywhere, PROFILES[0], embeds=embeds) as opened:
            memory = opened()
            for owner, secret in (("ada", "lavender"), ("eve", "hemlock")):
                for name in ("chat", "another chat"):
                    session = memory.session(name, owner=owner)
                    for number in range(12):
                        session.append(
                            Message.user(f"the parcel {number} smells of {secret}"), metadata={"tags": ["fact"], "importance": 1}
                        )
                    session.upkeep()
            for ceiling in (60, 150, 2000):
                made = memory.session("chat", owner="ada").context("What does the parcel smell of?", budget=Budget(ceiling))
                told = json.dumps([made.messages, made.manifest, str(made.explain())])
                assert "hemlock" not in told, "P11"

    holds()


BOUNDED = (
    ClearToolResults(),
    Selective(tags=("fact",)),
    Selective(roles=("assistant",), importance=0.5),
    Compose(ClearToolResults(), Selective(importance=0.5), shares=(0.6, 0.4)),
)
"""What reads rows in proportion to its context, and nothing else."""


@pytest.mark.parametrize("strategy", BOUNDED, ids=repr)
def test_a_turn_costs_the_same_in_a_session_ten_times_as_long(tmp_path: Path, strategy: Strategy) -> None:
    costs = []
    for messages in (400, 4000):
        budget = Budget(700, reply=100)
        with Memory(f"sqlite:///{tmp_path / f'{messages}.db'}", counter=COUNTER, budget=budget, strategy=strategy, upkeep=False) as memory:
            session = memory.session("chat")
            for number in range(messages // 100):
                session.append(*(Message.user(f"message {at} about a parcel") for at in range(60)))
                session.append(*(Message.assistant(f"fact {number}.{at}") for at in range(40)), metadata=MARKS[0])
            costs.append(work_of(memory, partial(session.context, "And now?")))
    assert costs[0] > 100
    assert costs[1] <= 1.2 * costs[0]
