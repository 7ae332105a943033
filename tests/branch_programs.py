"""Random programs on a session with branches, and a model of it in plain lists: what each branch says, what is pinned, what keys name."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count

import pytest
from hypothesis import strategies as st

from threadkeep import (
    Budget,
    CannotFit,
    Compose,
    Conflict,
    InvalidSetting,
    KeyReused,
    Memory,
    Message,
    NotFound,
    Recall,
    ScriptedBackend,
    Session,
    SummaryTree,
    TiktokenCounter,
    ToolCall,
)
from threadkeep.embedders.hashed import HashedEmbedder
from threadkeep.memory.index import Scope
from threadkeep.promises import Asked, Log, smallest, violations
from threadkeep.stores.doctor import examine
from threadkeep.stores.index_cache import cache

COUNTER = TiktokenCounter("o200k_base")
BUDGET = Budget(260, reply=40)
STRATEGY = Compose(SummaryTree(span=40, fan=2, tokens=30, recent=20, share=0.5), Recall(), shares=(0.7, 0.3))
WORDS = ("parcel", "letter", "stamp")
SCOPES: tuple[Scope, ...] = ("session", "owner")
texts = st.builds(lambda word, times: f"{word} " * times + "goes out.", st.sampled_from(WORDS), st.sampled_from((1, 2, 12)))
ids = st.sampled_from(("a", "b"))
messages = st.one_of(
    texts.map(Message.user),
    texts.map(Message.assistant),
    texts.map(Message.system),
    st.builds(lambda text, of: Message.tool(text, tool_call_id=of), texts, ids),
    st.lists(ids, min_size=1, max_size=2).map(
        lambda made: Message.assistant(None, tool_calls=[ToolCall(one, "look", "{}") for one in made])
    ),
)
places = st.integers(0, 1000)
"""Each stands for a seq of whatever log there is then, for 0, or for the one behind the last."""
keys = st.sampled_from((None, None, "1", "2"))
steps = st.one_of(
    st.tuples(st.just("append"), st.lists(messages, min_size=1, max_size=3), keys),
    st.tuples(st.just("append"), st.lists(messages, min_size=1, max_size=3), keys),
    st.tuples(st.just("fork"), st.one_of(st.none(), places)),
    st.tuples(st.just("edit"), places, messages),
    st.tuples(st.just("switch"), places),
    st.tuples(st.just("pin"), places),
    st.tuples(st.just("turn"), texts, keys, st.sampled_from(("whole", "whole", "left"))),
    st.tuples(st.just("turn"), texts, keys, st.sampled_from(("whole", "whole", "left"))),
    st.tuples(st.just("turn"), st.none(), st.none(), st.just("whole")),
    st.tuples(st.just("upkeep")),
)
programs = st.lists(steps, min_size=6, max_size=18)


@dataclass
class Model:
    """One branch."""

    messages: list[Message] = field(default_factory=list)
    pins: set[int] = field(default_factory=set)
    keys: dict[str, tuple[int, list[Message]]] = field(default_factory=dict)
    """First seq and content of what was stored under a key."""
    replies: dict[int, int] = field(default_factory=dict)
    """By a user message's seq, that of the reply that a turn gave to it."""

    def forked(self, at: int) -> "Model":
        return Model(
            self.messages[:at],
            {seq for seq in self.pins if seq <= at},
            {key: named for key, named in self.keys.items() if named[0] <= at},
            {user: reply for user, reply in self.replies.items() if reply <= at},
        )

    @property
    def log(self) -> Log:
        return Log(tuple(self.messages), frozenset(self.pins))

    @property
    def last_user(self) -> int:
        return max((seq for seq, message in enumerate(self.messages, 1) if message.role == "user"), default=0)


class Program:
    """Runs steps on a session and on its model, and compares them after each."""

    _numbers = count(1)

    def __init__(self, memory: Memory) -> None:
        self.session: Session = memory.session(f"session {next(self._numbers)}", owner="ada")
        self.memory = memory
        self.branches = {"main": Model()}
        self.active = "main"
        self.sent: dict[int, list[dict[str, object]]] = {}
        """By turn, the messages of its last context."""
        first = Message.user("parcel goes out.")
        self.session.append(first)
        self.model.messages.append(first)

    @property
    def model(self) -> Model:
        return self.branches[self.active]

    def run(self, program: Sequence[tuple[object, ...]]) -> None:
        for name, *arguments in program:
            getattr(self, f"_{name}")(*arguments)
            self.compare()
            self.indexes()
        for turn_id, sent in self.sent.items():
            assert self.session.context(as_of=turn_id).messages == sent
        warm = self.indexes()
        cache.forget(self.memory.store._database)
        assert self.indexes() == warm, "what is remembered is not what is stored"

    def indexes(self) -> list[object]:
        """What can be recalled of the session, and of all of its owner's, as far as it is this session's."""
        found: list[object] = []
        with self.memory.store.history("ada", self.session.name, model=HashedEmbedder().name) as (history, _, _):
            for scope in SCOPES:
                index = history.index(scope)
                own = index.session == 0
                columns = [getattr(index, name)[own].tolist() for name in ("seqs", "tokens", "created_us", "groups", "roles")]
                vectors = None if index.vectors is None else index.vectors[own].tolist()
                rows = set(own.nonzero()[0].tolist())
                postings = {
                    word: sorted(
                        (int(row), int(often)) for row, often in zip(posting.rows, posting.frequencies, strict=True) if row in rows
                    )
                    for word, posting in index.lookup.postings(WORDS).items()
                }
                found += [columns, vectors if vectors and any(map(any, vectors)) else None, postings]
        return found

    def _append(self, given: list[Message], key: str | None) -> None:
        key = key and f"batch {key}"
        named = self.model.keys.get(key) if key else None
        if named is not None:
            first, before = named
            if before == given and first + len(before) - 1 <= len(self.model.messages) and self._is_whole(first, before):
                assert [entry.seq for entry in self.session.append(*given, key=key)] == list(range(first, first + len(before)))
            else:
                with pytest.raises(KeyReused):
                    self.session.append(*given, key=key)
            return
        self.session.append(*given, key=key)
        if key:
            self.model.keys[key] = (len(self.model.messages) + 1, given)
        self.model.messages += given

    def _is_whole(self, first: int, before: list[Message]) -> bool:
        """Whether a fork cut the batch: what stands there then is another message, which is the same object only if it is the batch's."""
        there = self.model.messages[first - 1 : first - 1 + len(before)]
        return all(one is other for one, other in zip(there, before, strict=True))

    def _place(self, number: int) -> int:
        return number % (len(self.model.messages) + 2)

    def _fork(self, number: int | None) -> None:
        at = None if number is None else self._place(number)
        name = f"fork {len(self.branches)}"
        if at is not None and at > len(self.model.messages):
            with pytest.raises(NotFound):
                self.session.fork(name, at=at)
            return
        with pytest.raises(InvalidSetting):
            self.session.fork(self.active, at=at)
        self.session.fork(name, at=at)
        self._went_over(name, len(self.model.messages) if at is None else at)

    def _went_over(self, name: str, at: int) -> None:
        self.branches[name] = self.model.forked(at)
        self.active = name

    def _edit(self, number: int, message: Message) -> None:
        seq = self._place(number)
        if not 1 <= seq <= len(self.model.messages):
            with pytest.raises(NotFound):
                self.session.edit(seq, message)
            return
        assert self.session.edit(seq, message).seq == seq
        self._went_over(self._name_of_active(), seq - 1)
        self.model.messages.append(message)

    def _name_of_active(self) -> str:
        (name,) = [branch.name for branch in self.session.branches() if branch.active]
        assert name not in self.branches
        return name

    def _switch(self, number: int) -> None:
        self.active = list(self.branches)[number % len(self.branches)]
        assert self.session.switch(self.active).entries == len(self.model.messages)

    def _pin(self, number: int) -> None:
        seq = self._place(number)
        if not 1 <= seq <= len(self.model.messages):
            with pytest.raises(NotFound):
                self.session.pin(seq)
        elif seq > self.model.log.leading and not self._shows(seq):
            with pytest.raises(InvalidSetting):
                self.session.pin(seq)
        else:
            self.session.pin(seq)
            self.model.pins.add(seq)

    def _shows(self, seq: int) -> bool:
        return seq in self.model.log.showable

    def _turn(self, text: str | None, key: str | None, ends: str) -> None:
        key = key and f"turn {key}"
        seq = self.model.last_user if text is None else len(self.model.messages) + 1
        named = self.model.keys.get(key) if key else None
        if text is None:
            if seq == 0:
                with pytest.raises(NotFound):
                    self.session.regenerate()
                return
        elif named is not None:
            seq, (before,) = named
            refusal = KeyReused if before.text != text else Conflict if seq != self.model.last_user else None
            if before.text == text and seq in self.model.replies:
                assert self.session.chat(text, key=key).seq == self.model.replies[seq]
                return
            if refusal is not None:
                with pytest.raises(refusal), self.session.turn(text, key=key):
                    pass
                return
        try:
            with self.session.turn(text, key=key) as turn:
                if text is None and seq < len(self.model.messages):
                    self._went_over(self._name_of_active(), seq)
                elif text is not None and named is None:
                    self.model.messages.append(Message.user(text))
                    if key:
                        self.model.keys[key] = (seq, [self.model.messages[-1]])
                assert turn.user.seq == seq
                assert turn.id is not None
                self.sent.pop(turn.id, None)
                self.sent[turn.id] = turn.messages
                self.session.upkeep()
                turn.choose_tool(None)
                assert turn.messages == self.sent[turn.id], "a turn changed its mind half way"
                if ends == "whole":
                    reply = Message.assistant(f"reply to {seq}")
                    turn.finish(reply)
                    self.model.messages.append(reply)
                    self.model.replies[seq] = len(self.model.messages)
        except CannotFit:
            pass

    def _upkeep(self) -> None:
        assert {done.state for done in self.session.upkeep()} <= {"done"}

    def compare(self) -> None:
        """Every branch, and the contexts and searches of the active one."""
        listed = {branch.name: branch for branch in self.session.branches()}
        assert {name: (branch.entries, branch.active) for name, branch in listed.items()} == {
            name: (len(model.messages), name == self.active) for name, model in self.branches.items()
        }
        for name, model in self.branches.items():
            entries = self.session.entries(limit=1000, branch=name)
            assert [entry.message.to_dict() for entry in entries] == [message.to_dict() for message in model.messages]
            unseen = [entry.seq for entry in entries if entry.status == "late"]
            assert unseen == [seq for seq in range(model.log.leading + 1, model.log.head + 1) if seq not in model.log.showable]
            counted = [entry.tokens for entry in entries if entry.status != "late" and entry.seq > model.log.leading]
            assert listed[name].tokens == sum(counted) == (entries[-1].cum_tokens if entries else 0)
        with self.memory.store.history("ada", self.session.name) as (history, _, _):
            assert [entry.seq for entry in history.pinned()] == sorted(self.model.pins)
        self._compare_context(self.model.log)
        for word in WORDS[:2]:
            found = {(one.entry.seq, one.entry.message.text) for one in self.session.search(word, k=100)}
            there = {(seq, self.model.messages[seq - 1].text) for seq in self.model.log.showable}
            assert {(seq, text) for seq, text in there if word in text} <= found <= there

    def _compare_context(self, log: Log) -> None:
        asked = Asked(COUNTER)
        if smallest(log, asked) > BUDGET.ceiling:
            with pytest.raises(CannotFit):
                self.session.context()
        else:
            assert not (found := violations(self.session.context(), log, asked)), found


def opened(url: str) -> Memory:
    """A memory there, with upkeep when it is asked for."""
    backend = ScriptedBackend(lambda _: "well then", counter=COUNTER)
    return Memory(url, backend=backend, strategy=STRATEGY, budget=BUDGET, embedder=HashedEmbedder(), upkeep=False)


def faults(memory: Memory) -> list[str]:
    """What the doctor finds wrong with a database."""
    return [finding.said for check in examine(memory.store) for finding in check.findings if finding.grave]
