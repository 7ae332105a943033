"""What can be recalled: which entries, where their terms stand, their vectors; the same warm and cold, and never another owner's."""

import gc
import json
import multiprocessing
import os
import re
import sys
import weakref
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from sqlalchemy import delete, insert, select, update
from test_rows_read import plan, statements

from threadkeep import Budget, InvalidSetting, Memory, Message, Pick, ScriptedBackend, Session, ToolCall, Turn
from threadkeep.embedders.hashed import HashedEmbedder
from threadkeep.memory.analysis import terms as terms_of
from threadkeep.memory.errors import EmbedderError
from threadkeep.memory.history import History
from threadkeep.memory.index import Index, Scope
from threadkeep.stores import index_cache as held_here
from threadkeep.stores.schema import branches, messages, sessions, terms, vectors

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


@dataclass
class Looking:
    """Picks nothing, and keeps what it saw."""

    asked: tuple[str, ...] = ()
    look_at: Scope = "session"
    scope: str = "owner"
    seen: "list[Seen]" = field(default_factory=list)

    def pick(self, history: History, budget: Budget) -> Sequence[Pick]:
        self.seen.append(Seen.of(history.index(self.look_at), self.asked))
        return []


@dataclass
class Seen:
    """An index's content, for comparing."""

    rows: list[tuple[str, int]]
    columns: dict[str, list[int]]
    postings: dict[str, dict[tuple[str, int], int]]
    texts: list[str]
    vectors: list[bytes] | None
    query: bytes | None

    @classmethod
    def of(cls, index: Index, asked: Sequence[str]) -> "Seen":
        rows = [(index.sessions[session], seq) for session, seq in zip(index.session.tolist(), index.seqs.tolist(), strict=True)]
        postings = {
            term: dict(zip([rows[row] for row in found.rows], found.frequencies.tolist(), strict=True))
            for term, found in index.lookup.postings(asked).items()
        }
        columns = {name: getattr(index, name).tolist() for name in ("tokens", "created_us", "groups", "roles")}
        made = None if index.vectors is None else [vector.tobytes() for vector in index.vectors]
        texts = [entry.message.text for entry in index.lookup.entries(range(len(index)))]
        return cls(rows, columns, postings, texts, made, None if index.query is None else index.query.tobytes())


def seen(session: Session, *asked: str, scope: Scope = "session", question: str | None = "And what was it?") -> Seen:
    """What the index holds for a question that comes next."""
    strategy = Looking(asked, scope)
    session.context(question, strategy=strategy)
    return strategy.seen[-1]


def stored(text: str) -> bytes:
    """A text's vector as it comes back from the database."""
    (made,) = HashedEmbedder().embed([text])
    return made.astype("<f2").astype(np.float32).tobytes()


def opened(url: str, embedder: object = None) -> Memory:
    backend = ScriptedBackend(lambda context: f"reply to {context.messages[-1]['content']}")
    return Memory(url, backend=backend, budget=Budget(4000, reply=500), embedder=embedder, upkeep=False)  # type: ignore[arg-type]


@pytest.fixture
def memory(url: str) -> Iterator[Memory]:
    with opened(url, HashedEmbedder()) as made:
        yield made


def test_an_index_holds_what_may_be_recalled(session: Session) -> None:
    session.append(Message.system("You help."), "Where is the parcel?", created_at=LONG_AGO)
    session.append(Message.assistant(None, tool_calls=[ToolCall("a", "look", "{}")]), Message.tool("in the shed", tool_call_id="a"))
    session.append(Message.tool("too late", tool_call_id="b"), Message.assistant("In the shed."))
    found = seen(session, "shed", "parcel", "late", "help")
    assert found.rows == [("chat", 2), ("chat", 3), ("chat", 4), ("chat", 6)]
    assert found.columns["roles"] == [2, 3, 4, 3]
    assert found.columns["groups"] == [2, 3, 3, 6]
    assert found.columns["created_us"][0] == int(LONG_AGO.timestamp()) * 1_000_000
    assert found.columns["tokens"] == [entry.shown_tokens for entry in session.entries() if ("chat", entry.seq) in found.rows]
    assert found.postings == {"shed": {("chat", 4): 1, ("chat", 6): 1}, "parcel": {("chat", 2): 1}}
    assert found.texts == ["Where is the parcel?", "", "in the shed", "In the shed."]


def test_the_live_turn_is_not_in_its_index(session: Session) -> None:
    session.append("One parcel.", Message.assistant("Yes."))
    strategy = Looking(("parcel",))
    with session.turn("Which parcel?", strategy=strategy) as turn:
        assert turn.request
        turn.append(Message.assistant(None, tool_calls=[ToolCall("a", "look", "{}")]), Message.tool("a parcel", tool_call_id="a"))
        assert turn.request
        assert [one.rows for one in strategy.seen] == [[("chat", 1), ("chat", 2)]] * 2
        assert [one.query for one in strategy.seen] == [stored("Which parcel?")] * 2
        turn.finish("That one.")
    assert len(seen(session).rows) == 6
    assert len(seen(session, question=None).rows) == 2  # the log's own last question is the live one


def test_a_session_that_does_not_exist_yet_has_nothing_to_recall(session: Session) -> None:
    found = seen(session, "parcel")
    assert (found.rows, found.postings, found.vectors) == ([], {}, None)
    assert found.query == stored("And what was it?")
    assert seen(session, scope="owner").rows == []


def test_what_was_read_before_gives_what_is_read_anew(memory: Memory, session: Session, url: str) -> None:
    rng = np.random.default_rng(7)
    words = "train ticket order window garden letter market river zebra".split()
    expected: dict[int, Counter[str]] = {}
    for batch in (1, 700, 1, 3, 2000, 5):
        texts = [" ".join(rng.choice(words, 4, p=[0.4, *[0.075] * 8])) for _ in range(batch)]
        expected |= {entry.seq: terms_of(text) for entry, text in zip(session.append(*texts), texts, strict=True)}
        asked = ("train", "river", "zebra", "nowhere")[: 2 + batch % 3]
        warm = seen(session, *asked)
        with opened(url, HashedEmbedder()) as another:
            assert seen(another.session("chat", owner="ada"), *asked) == warm
        for term in asked:
            stands = {("chat", seq): found[term] for seq, found in expected.items() if term in found}
            everywhere = len(expected) > 1000 and len(stands) > 0.3 * len(expected)
            assert warm.postings.get(term) == ({} if everywhere else stands or None)
    assert warm.postings["train"] == {}
    assert len(warm.postings["river"]) > 500


def test_vectors_that_upkeep_makes_are_found(session: Session) -> None:
    session.append("a parcel", Message.assistant("in the shed"), "")
    assert seen(session).vectors is None
    session.chat("Where is it?")
    assert (found := seen(session).vectors) is not None
    assert [any(vector) for vector in found] == [False, False, False, True, False]
    session.upkeep()
    found = seen(session).vectors
    nothing = bytes(4 * 256)
    assert found == [stored("a parcel"), stored("in the shed"), nothing, stored("Where is it?"), stored("reply to Where is it?")]
    session.append("the last")
    session.upkeep()
    assert seen(session).vectors == [*found, stored("the last")]


CALL = Message.assistant(None, tool_calls=[ToolCall("a", "look", "{}")])


def in_turn(memory: Memory, turn: Turn, scope: Scope = "session") -> Seen:
    """What the index holds for a turn at this moment, which may be in another process."""
    with memory.store.history_of(turn.held.session, model=HashedEmbedder().name) as history:
        return Seen.of(history.index(scope), ())


def test_a_vector_that_upkeep_makes_during_a_turn_counts_from_the_next_turn_on(memory: Memory, session: Session, url: str) -> None:
    session.chat("Where is the parcel?")
    with session.turn("And now?") as turn:
        before = in_turn(memory, turn)
        assert [any(vector) for vector in before.vectors or ()] == [True, False]
        session.upkeep()
        assert in_turn(memory, turn) == before, "a turn changed its mind half way"
        assert all(map(any, seen(session).vectors or [b""])), "for a question that comes next it is there"
        turn.append(CALL, Message.tool("in the shed", tool_call_id="a"))
        assert in_turn(memory, turn) == before
        with opened(url, HashedEmbedder()) as another:
            assert in_turn(another, turn) == before, "another process sees more"
        turn.finish("In the shed.")
    with session.turn("Thanks.") as turn:
        found = in_turn(memory, turn).vectors
        assert found is not None
        assert found[:3] == [stored("Where is the parcel?"), stored("reply to Where is the parcel?"), stored("And now?")]


def test_a_first_vector_that_comes_too_late_is_as_none(memory: Memory, session: Session, url: str) -> None:
    session.append(*(f"parcel {number}" for number in range(600)))
    with opened(url) as plain, plain.session("chat", owner="ada").turn("And now?") as turn:
        assert in_turn(memory, turn).vectors is None
        session.upkeep()
        assert all(map(any, seen(session).vectors or [b""]))
        found = in_turn(memory, turn)
        assert (found.vectors, found.query) == (None, None), "its own vector too was made after it was said"
        with opened(url, HashedEmbedder()) as another:
            assert in_turn(another, turn) == found
        turn.finish("There.")
    found = seen(session)
    assert (len(found.vectors or ()), found.query) == (602, stored("And what was it?"))


def test_what_is_too_late_for_a_sessions_own_turn_counts_for_the_owners_other_sessions(memory: Memory, session: Session) -> None:
    other = memory.session("other", owner="ada")
    other.append("Good morning.")
    session.chat("Where is the parcel?")
    with session.turn("And now?") as turn:
        session.upkeep()
        for _ in range(2):
            found = in_turn(memory, turn, "owner")
            assert found.rows[1:] == [("chat", 1), ("chat", 2)]
            assert [any(vector) for vector in found.vectors or ()] == [False, True, False]
            found = seen(other, scope="owner")
            assert found.rows == [("chat", 1), ("chat", 2), ("chat", 3), ("other", 1)]
            assert [any(vector) for vector in found.vectors or ()] == [True, True, True, False]
        turn.finish("In the shed.")


def test_turns_see_the_same_warm_and_cold_whenever_vectors_are_made(memory: Memory, url: str) -> None:
    rng = np.random.default_rng(5)
    talks = [memory.session(f"talk {number}", owner="ada") for number in range(3)]
    for talk in talks:
        talk.append("Good morning.")
    with opened(url) as plain:
        for step in range(6):
            talk = talks[rng.integers(3)]
            talk.append(*(f"parcel {step}" for _ in range(600 if step == 2 else rng.integers(1, 6))))
            first: dict[str, list[bytes] | None] = {}
            asker = (memory if rng.integers(2) else plain).session(talk.name, owner="ada")
            with asker.turn(f"Where is parcel {step}?") as turn:
                for _ in range(3):
                    for scope in ("session", "owner"):
                        found = in_turn(memory, turn, scope)
                        with opened(url, HashedEmbedder()) as another:
                            assert in_turn(another, turn, scope) == found
                        own = sum(name == talk.name for name, _ in found.rows)
                        vectors_of_its_own = found.vectors and found.vectors[-own:]
                        if any(map(any, vectors_of_its_own or ())):
                            assert first.setdefault(scope, vectors_of_its_own) == vectors_of_its_own
                        seen(talk, scope=scope)  # a question that comes next
                    talks[rng.integers(3)].upkeep()
                    turn.append(CALL, Message.tool("there", tool_call_id="a"))
                turn.finish("There.")


def test_many_late_vectors_are_found_and_blank_messages_are_not_asked_for_again(memory: Memory, session: Session) -> None:
    session.append(*(f"number {number}" if number % 3 else "" for number in range(1800)))
    session.chat("Begin.")
    before = seen(session).vectors
    assert before is not None
    assert sum(map(any, before)) == 1
    session.upkeep()
    after = seen(session).vectors
    assert after is not None
    assert [any(vector) for vector in after] == [*(number % 3 > 0 for number in range(1800)), True, True]
    with statements(memory) as made:
        assert seen(session).vectors == after
    assert not any("threadkeep_vectors.vector" in sql for sql, _ in made)


def test_an_index_that_is_in_use_stays_as_it_is(memory: Memory, session: Session) -> None:
    session.chat("Where is it?")
    session.chat("And now?")
    with memory.store.history("ada", "chat", model=HashedEmbedder().name) as (history, _, _):
        index = history.index()
        assert index.vectors is not None
        before = index.vectors.copy()
        session.append("more")
        session.upkeep()
        assert all(map(any, seen(session).vectors or ()))
        assert np.array_equal(index.vectors, before)
        assert [vector.any() for vector in before] == [True, False]
        for column in (index.seqs, index.vectors):
            with pytest.raises(ValueError, match="read-only"):
                column[0] = 1


def test_an_index_is_let_go_of_with_its_history(memory: Memory, session: Session) -> None:
    session.chat("Where is it?")
    gc.disable()
    try:
        with memory.store.history_of(memory.store.session("ada", "chat"), model=HashedEmbedder().name) as history:  # type: ignore[arg-type]
            known = weakref.ref(history.index())
            assert known() is history.index()
        assert known() is None, "its arrays would stay until somebody looks for circles"
    finally:
        gc.enable()


def test_vectors_are_widened_exactly_and_cosines_are_those_of_the_widened() -> None:
    numbers = np.arange(2**16, dtype=np.uint16).view(np.float16)
    every = numbers[np.isfinite(numbers)].reshape(-1, 32)
    rng = np.random.default_rng(2)
    query = rng.standard_normal(32).astype(np.float32)
    query /= np.linalg.norm(query)
    none = np.zeros(len(every), np.int64)
    index = Index(("chat",), none, none, none, none, none, none, every, query, lookup=None)  # type: ignore[arg-type]
    assert index.vectors is not None
    assert index.vectors.tobytes() == every.astype(np.float32).tobytes()
    products = index.cosines()
    assert products is not None
    assert products.tobytes() == np.einsum("ij,j->i", every.astype(np.float32), query).tobytes()
    assert replace(index, query=None).cosines() is None
    assert (replace(index, halves=None).cosines(), replace(index, halves=None).vectors) == (None, None)


class Other(HashedEmbedder):
    @property
    def name(self) -> str:
        return "other"

    def embed(self, texts: Sequence[str]) -> Any:
        return np.eye(len(texts), 64, dtype=np.float32)


def test_vectors_of_another_embedder_are_not_mixed_in(url: str, session: Session) -> None:
    session.chat("Where is it?")
    with opened(url, Other()) as another:
        assert seen(another.session("chat", owner="ada")).vectors is None
        another.session("chat", owner="ada").chat("And now?")
        found = seen(another.session("chat", owner="ada")).vectors
        assert found is not None
        assert [len(vector) // 4 for vector in found] == [64] * 4
        assert [any(vector) for vector in found] == [False, False, True, False]
    assert [any(vector) for vector in seen(session).vectors or ()] == [True, False, False, False]
    with opened(url) as without:
        assert seen(without.session("chat", owner="ada")).vectors is None


class Failing:
    """An embedder that does what it is told."""

    name = "failing"

    def __init__(self) -> None:
        self.does: object = None

    def embed(self, texts: Sequence[str]) -> Any:
        if isinstance(self.does, Exception):
            raise self.does
        return HashedEmbedder().embed(texts) if self.does is None else self.does


@pytest.mark.parametrize(
    "does",
    [
        EmbedderError("no"),
        ValueError("no"),
        np.zeros((1, 256)),
        np.full((1, 256), np.nan),
        np.ones(256) / 16,
        np.ones((2, 256)) / 16,
        "words",
        np.ones((1, 0)),
    ],
    ids=str,
)
def test_a_turn_goes_on_without_its_vector(url: str, does: object, caplog: pytest.LogCaptureFixture) -> None:
    embedder = Failing()
    with opened(url, embedder) as memory:
        session = memory.session("chat", owner="ada")
        embedder.does = does
        session.chat("Where is the parcel?")
        found = seen(session, "parcel")
        assert (found.query, found.vectors) == (None, None)
        assert found.postings == {"parcel": {("chat", 1): 1, ("chat", 2): 1}}
        assert [record.name for record in caplog.records if "embedder" in record.getMessage()] == ["threadkeep"]
        embedder.does = None
        session.upkeep()
        found = seen(session)
        assert found.query == stored("And what was it?")
        assert found.vectors == [stored("Where is the parcel?"), stored("reply to Where is the parcel?")]


def test_a_retried_turn_finds_its_vector(url: str) -> None:
    embedder = Failing()
    with opened(url, embedder) as memory:
        session = memory.session("chat", owner="ada")
        with session.turn("Where is it?", key="k") as turn:
            assert turn.request
        embedder.does = EmbedderError("no")
        strategy = Looking()
        with session.turn("Where is it?", key="k", strategy=strategy) as turn:
            assert turn.request
        assert strategy.seen[-1].query == stored("Where is it?")


@pytest.mark.parametrize("wrong", ["hashed", 7, object()])
def test_what_is_no_embedder_is_refused(url: str, wrong: object) -> None:
    with pytest.raises(InvalidSetting, match="embedder"):
        opened(url, wrong)


def test_an_index_is_of_a_session_or_of_its_owner(session: Session) -> None:
    with pytest.raises(InvalidSetting, match="'session' or 'owner'"):
        seen(session, scope="all")  # type: ignore[arg-type]


def test_an_owner_recalls_from_all_sessions_and_from_nobody_elses(memory: Memory, session: Session) -> None:
    memory.session("chat", owner="eve").append("a secret parcel")
    memory.session("first", owner="ada").append("one parcel", Message.assistant("noted"), created_at=LONG_AGO)
    session.append("two parcels", created_at=LONG_AGO + timedelta(days=1))
    later = memory.session("last", owner="ada")
    later.append("three parcels", created_at=LONG_AGO + timedelta(days=2))
    later.append("not said yet", created_at=datetime.now(UTC) + timedelta(days=1))
    found = seen(session, "parcel", scope="owner")
    assert found.rows == [("first", 1), ("first", 2), ("last", 1), ("chat", 1)]
    assert found.texts == ["one parcel", "noted", "three parcels", "two parcels"]
    assert found.postings["parcel"].keys() == {("first", 1), ("last", 1), ("chat", 1)}
    assert seen(later, "parcel", scope="owner").rows == [("first", 1), ("first", 2), ("chat", 1), ("last", 1), ("last", 2)]
    assert seen(memory.session("new", owner="ada"), scope="owner").rows[-1] == ("last", 1)
    assert seen(memory.session("new", owner="eve"), "parcel", scope="owner").postings == {"parcel": {("chat", 1): 1}}


def test_an_owners_sessions_are_read_on_wherever_something_was_added(memory: Memory, url: str) -> None:
    rng = np.random.default_rng(3)
    talks = [memory.session(f"talk {number}", owner="ada") for number in range(6)]
    for step in range(25):
        talk = talks[rng.integers(6)]
        talk.append(*(f"step {step} of the river" if rng.integers(2) else f"a train in {step}" for _ in range(rng.integers(1, 90))))
        if step % 5 == 2:
            talk.upkeep()
        if step == 15:
            talks[2].delete()
        asked = talks[rng.integers(6)]
        warm = seen(asked, "river", "train", f"{step}", scope="owner")
        with opened(url, HashedEmbedder()) as another:
            assert seen(another.session(asked.name, owner="ada"), "river", "train", f"{step}", scope="owner") == warm
    assert len(warm.rows) > 500


def test_an_owner_with_many_sessions_is_read_with_few_statements(memory: Memory) -> None:
    for number in range(120):
        memory.session(f"talk {number}", owner="ada").append("a parcel", Message.assistant("noted"))
    for _ in range(2):
        with statements(memory) as made:
            assert len(seen(memory.session("talk 60", owner="ada"), "parcel", scope="owner").rows) == 240
    assert len([sql for sql, _ in made if sql.startswith("SELECT")]) < 12


class OfOthers:
    """Says what other sessions said, and things that it should not."""

    scope = "owner"

    def pick(self, history: History, budget: Budget) -> Sequence[Pick]:
        index = history.index("owner")
        assert history.shown == frozenset(range(1, history.head.seq + 1))
        others = [entry.message.text for entry in index.lookup.entries(np.flatnonzero(index.session > 0).tolist())]
        said = [Pick((), 10, "said elsewhere", kind="excerpt", text=text) for text in others]
        return [Pick((1,), 10, "here", kind="excerpt", text="said here"), Pick((), 9, "told", kind="summary", text="a summary"), *said]


def test_beside_a_log_that_fits_whole_stands_what_other_sessions_said(memory: Memory, session: Session) -> None:
    memory.session("first", owner="ada").append("one parcel", "two parcels", "three parcels")
    session.append("Good morning.", Message.assistant("Good morning, Ada."))
    alone = session.context("And now?")
    context = session.context("And now?", strategy=OfOthers())
    assert [message for message in context.messages if message in alone.messages] == alone.messages
    (added,) = (message["content"] for message in context.messages if message not in alone.messages)
    assert all(f"{number} parcel" in str(added) for number in ("one", "two", "three"))
    assert "said here" not in str(context.messages)
    assert "a summary" not in str(context.messages)
    assert sum(pick.tokens for pick in context.picks) + context.overhead == context.tokens

    tight = Budget(context.tokens - 1)
    less = session.context("And now?", strategy=OfOthers(), budget=tight)
    assert less.tokens <= tight.ceiling
    assert "two parcels" in str(less.messages)
    assert "three parcels" not in str(less.messages)
    assert session.context("And now?", strategy=OfOthers(), budget=Budget(alone.tokens)).messages == alone.messages


def fork(memory: Memory, of: Session, at: int, name: str) -> Session:
    """A session whose branch begins at a point of another's."""
    with memory.store.engine.begin() as connection:
        found = connection.execute(
            select(sessions, branches.c.lineage).join(branches, branches.c.id == sessions.c.active_branch).where(sessions.c.name == of.name)
        ).one()
        values = {**found._mapping, "id": found.id + 1, "name": name, "active_branch": found.active_branch + 1}
        connection.execute(insert(sessions), {key: value for key, value in values.items() if key != "lineage"})
        parent = connection.execute(select(branches).where(branches.c.id == found.active_branch)).one()
        there = connection.execute(
            select(messages.c.cum_shown, messages.c.cum_tokens).where(messages.c.branch_id == parent.id, messages.c.seq == at)
        ).one()
        branch = {**parent._mapping, "id": parent.id + 1, "session_id": found.id + 1, "head_seq": at, "head_turn": at, "head_group": at}
        branch |= {
            "lineage": json.dumps([[parent.id, at, there.cum_shown]]),
            "head_tokens": there.cum_tokens,
            "head_shown": there.cum_shown,
        }
        connection.execute(insert(branches), branch)
    return memory.session(name, owner=of.owner)


def test_a_fork_sees_its_parent_up_to_the_fork(memory: Memory, session: Session) -> None:
    session.append(*(f"parcel {number}" for number in range(1, 11)))
    session.upkeep()
    forked = fork(memory, session, 4, "other way")
    forked.append("another parcel", "and one more")
    session.append("unknown to the other")
    forked.upkeep()
    found = seen(forked, "parcel")
    assert found.texts == [*(f"parcel {number}" for number in range(1, 5)), "another parcel", "and one more"]
    assert found.vectors == [stored(text) for text in found.texts]
    assert found.postings["parcel"].keys() == {("other way", seq) for seq in range(1, 6)}
    assert seen(session, "parcel").postings["parcel"].keys() == {("chat", seq) for seq in range(1, 11)}
    together = seen(forked, "parcel", scope="owner")
    assert together.rows == [*(("chat", seq) for seq in range(5, 12)), *(("other way", seq) for seq in range(1, 7))]
    assert len(together.postings["parcel"]) == 11
    assert seen(session, scope="owner").rows == [("other way", 5), ("other way", 6), *(("chat", seq) for seq in range(1, 12))]


def test_a_fork_and_its_parent_make_each_others_vectors(memory: Memory, session: Session) -> None:
    session.append(*(f"parcel {number}" for number in range(1, 5)))
    forked = fork(memory, session, 2, "other way")
    forked.append(*(f"another {number}" for number in range(20)))
    forked.upkeep()
    found = seen(session)
    assert found.vectors is not None
    assert [any(vector) for vector in found.vectors] == [True, True, False, False], "it need not grow as long as its fork"
    second = memory.session("second", owner="ada")
    second.append(*(f"parcel {number}" for number in range(100)))
    later = fork(memory, second, 3, "third way")
    second.upkeep()
    assert seen(later).vectors == [stored(f"parcel {number}") for number in range(3)]


def test_what_is_erased_is_forgotten_here_too(memory: Memory, session: Session) -> None:
    session.append("a parcel", "a secret parcel")
    session.upkeep()
    assert len(seen(session, "parcel", scope="owner").postings["parcel"]) == len(seen(session, "secret").rows) == 2
    with memory.store.engine.begin() as connection:
        connection.execute(update(messages).where(messages.c.seq == 2).values(status="erased"))
        connection.execute(update(sessions).values(revision=1))
        for table in (terms, vectors):
            connection.execute(delete(table).where(table.c.seq == 2))
    for scope in ("session", "owner"):
        found = seen(session, "parcel", "secret", scope=scope)
        assert found.rows == [("chat", 1)]
        assert found.postings == {"parcel": {("chat", 1): 1}}
        assert found.vectors == [stored("a parcel")]


def test_a_session_of_the_same_name_begins_anew(session: Session) -> None:
    session.append("a parcel", "and another parcel")
    assert len(seen(session, "parcel").rows) == 2
    session.delete()
    session.append("a letter")
    found = seen(session, "parcel")
    assert (found.texts, found.postings) == (["a letter"], {})


def test_no_more_is_kept_than_allowed(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    talks = [memory.session(f"talk {number}", owner="ada") for number in range(8)]
    for talk in talks:
        talk.append(*(f"parcel {number} of {talk.name}" for number in range(200)))
        talk.upkeep()
    cache = held_here.Cache(2_000_000)
    monkeypatch.setattr(held_here, "cache", cache)
    first = [seen(talk, "parcel") for talk in talks]
    assert 1_000_000 < cache.nbytes <= 2_000_000
    assert [seen(talk, "parcel") for talk in talks] == first
    cache.most = 1
    assert seen(talks[0], "parcel") == first[0]
    assert cache.nbytes > 1  # the last one used stays
    memory.store.close()
    assert cache.nbytes == 0


def looked_at(url: str) -> Seen:
    with opened(url, HashedEmbedder()) as memory:
        return seen(memory.session("chat", owner="ada"), "parcel", "shed", scope="owner")


def test_another_process_has_the_same_index(memory: Memory, session: Session, url: str) -> None:
    memory.session("before", owner="ada").append("a parcel in the shed")
    for number in range(5):
        session.append(f"parcel {number}")
        here = seen(session, "parcel", "shed", scope="owner")
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(looked_at, (url,)) == here


@pytest.mark.skipif(sys.platform != "linux", reason="fork() is for Linux")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_reads_on(memory: Memory, session: Session) -> None:
    session.append("a parcel", "two parcels")
    before = seen(session, "parcel")
    held = next(iter(held_here.cache._held.values()))
    with held.lock:  # as if another thread were reading
        child = os.fork()
        if child == 0:
            try:
                assert seen(session, "parcel") == before
                session.append("three parcels")
                assert len(seen(session, "parcel").rows) == 3
            finally:
                os._exit(int(sys.exc_info()[0] is not None))
    assert os.waitpid(child, 0)[1] == 0
    assert len(seen(session, "parcel").rows) == 3


RANGE = "(owner_id=? AND branch_id=? AND seq>? AND seq<?)"
ALLOWED = (
    f"SEARCH threadkeep_messages USING INDEX sqlite_autoindex_threadkeep_messages_1 {RANGE}",
    "SEARCH threadkeep_messages USING INDEX sqlite_autoindex_threadkeep_messages_1 (owner_id=? AND branch_id=? AND seq=?)",
    f"SEARCH threadkeep_vectors USING INDEX sqlite_autoindex_threadkeep_vectors_1 {RANGE}",
    f"SEARCH threadkeep_vectors USING COVERING INDEX sqlite_autoindex_threadkeep_vectors_1 {RANGE}",
    "SEARCH threadkeep_vectors USING INDEX sqlite_autoindex_threadkeep_vectors_1 (owner_id=? AND branch_id=? AND seq=? AND model=?)",
    "SEARCH threadkeep_terms USING PRIMARY KEY (owner_id=? AND branch_id=? AND term=? AND seq>? AND seq<?)",
    "SEARCH threadkeep_sessions USING INDEX sqlite_autoindex_threadkeep_sessions_1 (owner_id=?)",
    "SEARCH threadkeep_branches USING INDEX sqlite_autoindex_threadkeep_branches_1 (owner_id=? AND id=?)",
)
NEW = r"threadkeep_vectors|threadkeep_terms|branch_id IN \(|threadkeep_sessions.owner_id = \?\s+ORDER BY threadkeep_sessions.updated_us"


@pytest.mark.parametrize("analysed", [False, True], ids=["before ANALYZE", "after ANALYZE"])
def test_every_statement_of_an_index_finds_its_rows_by_the_key_it_should(memory: Memory, session: Session, analysed: bool) -> None:
    for number in range(30):
        memory.session(f"session {number}", owner=f"owner {number // 10}").append("a parcel", Message.assistant("noted"))
    session.append(*(f"parcel {number}" if number % 2 else "" for number in range(1500)))
    memory.session("beside", owner="ada").append("a parcel")
    if analysed:
        with memory.store.engine.begin() as connection:
            connection.exec_driver_sql("ANALYZE")
        memory.store.engine.dispose()  # a connection reads the statistics when it opens
    strategies = [Looking(("parcel", "noted"), "session"), Looking(("parcel", "noted"), "owner")]
    with statements(memory) as made:
        for _ in range(2):
            for strategy in strategies:
                with session.turn("Where is the parcel?", strategy=strategy) as turn:
                    assert turn.request
                    turn.finish("There.")
        seen(memory.session("beside", owner="ada"), "parcel")
    reached: set[str] = set()
    with memory.store.engine.connect() as connection:
        for sql, parameters in dict(made).items():
            if sql.startswith("SELECT") and re.search(NEW, sql):
                reached.update(plan(connection, sql, parameters))
    found = {step.replace("ix_threadkeep_sessions_updated", "sqlite_autoindex_threadkeep_sessions_1") for step in reached}
    assert found - {"USE TEMP B-TREE FOR GROUP BY"} == set(ALLOWED)
