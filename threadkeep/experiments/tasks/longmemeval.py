"""LongMemEval: questions about a user's many chats with an assistant, each question with a history of its own.

Source: Wu et al., LongMemEval (ICLR 2025), https://github.com/xiaowu0162/LongMemEval. Ids of the chats that hold the evidence are
marked upstream, so no id of a chat reaches a conversation.
"""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from threadkeep import Message
from threadkeep.experiments.base import Conversation, Dataset, Question, Said
from threadkeep.experiments.tasks.clock import Clock
from threadkeep.experiments.tasks.reading import Node, given, notes, read_lines, read_records

ABSTENTION = "_abs"
"""Ends the id of a question that the history does not answer."""


@dataclass(frozen=True, slots=True)
class Chat:
    """One chat of a history."""

    messages: tuple[Message, ...]
    marked: frozenset[int]
    """Turns marked as evidence, from 0."""


class LongMemEval:
    """Reads the published JSON (S, M or oracle), or a folder with `questions.json` and `sessions.jsonl.gz`."""

    name = "longmemeval"
    about = "facts, updates, preferences and dates out of dozens of chats (LongMemEval's JSON, or questions.json + sessions.jsonl.gz)"

    def load(self, path: Path | str | None) -> Dataset:
        path = given(path, self.name, "longmemeval_s.json, longmemeval_oracle.json, or a folder with questions.json and sessions.jsonl.gz")
        split = path.is_dir()
        shared = _shared_chats(path / "sessions.jsonl.gz") if split else {}
        conversations: dict[str, Conversation] = {}
        questions = []
        odd: Counter[str] = Counter()
        for record in read_records(path / "questions.json" if split else path):
            name = record["question_id"].name
            record = record.named(name)  # noqa: PLW2901  # the same record, called by its id from here on
            if name in conversations:
                raise record.wrong("is there twice")
            conversations[name], gold = _conversation(name, record, shared, odd)
            questions.append(_question(name, record, conversations[name], gold, odd))
        return Dataset(conversations, questions, notes(odd))


def _shared_chats(path: Path) -> Mapping[str, Chat]:
    return {record["session_id"].text: _chat(record["turns"]) for record in read_lines(path)}


def _chat(turns: Node) -> Chat:
    messages, marked = [], set()
    for at, turn in enumerate(turns.each()):
        messages.append(turn.message(turn["role"].text, turn["content"].text))
        if "has_answer" in turn.keys() and turn["has_answer"].value:  # noqa: SIM118  # a Node is no mapping
            marked.add(at)
    return Chat(tuple(messages), frozenset(marked))


def _conversation(name: str, record: Node, shared: Mapping[str, Chat], odd: Counter[str]) -> tuple[Conversation, list[int]]:
    """A question's history by date, and the positions of its evidence."""
    inline = record.maybe("haystack_sessions")
    chats = [_chat(turns) for turns in inline.each()] if inline else _looked_up(record["haystack_session_ids"], shared)
    dates = [_date(date) for date in record["haystack_dates"].each()]
    if len(dates) != len(chats):
        raise record.wrong(f"has {len(chats)} sessions and {len(dates)} dates")
    evidence = {(at, turn) for at, chat in enumerate(chats) for turn in chat.marked} if inline else _evidence(record, chats)
    clock, said, gold = Clock(), list[Said](), list[int]()
    for at in sorted(range(len(chats)), key=dates.__getitem__):
        clock.sitting(dates[at])
        for turn, message in enumerate(chats[at].messages):
            if (at, turn) in evidence:
                gold.append(len(said))
            said.append(Said(message, clock.message()))
    odd["sessions dated before the one ahead of them had ended, taken to begin half an hour after it"] += clock.moved
    odd["questions dated before their last session, asked after all of them as published"] += bool(
        dates and _date(record["question_date"]) < max(dates)
    )
    return Conversation(name, tuple(said)), gold


def _looked_up(ids: Node, shared: Mapping[str, Chat]) -> list[Chat]:
    for one in ids.each():
        if one.text not in shared:
            raise one.wrong(f"names session {one.text!r:.80}, which sessions.jsonl.gz does not hold")
    return [shared[one.text] for one in ids.each()]


def _evidence(record: Node, chats: list[Chat]) -> set[tuple[int, int]]:
    """Pairs of a chat's position in the haystack and a turn of it."""
    found = set()
    for pair in record["evidence_turns"].each():
        numbers = [number.whole for number in pair.each()]
        if len(numbers) != 2 or not (0 <= numbers[0] < len(chats) and 0 <= numbers[1] < len(chats[numbers[0]].messages)):
            raise pair.wrong(f"is {numbers}: a session's position, from 0 to {len(chats) - 1}, and one of its turns")
        found.add((numbers[0], numbers[1]))
    return found


def _question(name: str, record: Node, conversation: Conversation, gold: list[int], odd: Counter[str]) -> Question:
    abstains = name.endswith(ABSTENTION)
    odd["questions that the history does not answer, kept without evidence and answer"] += abstains
    odd["questions whose evidence is not marked"] += not abstains and not gold
    return Question(
        name=name,
        conversation=name,
        text=record["question"].text,
        after=len(conversation.said),
        gold=() if abstains else tuple(gold),
        answers=() if abstains else (record["answer"].written,),
        category=record["question_type"].text + (", abstention" if abstains else ""),
    )


def _date(node: Node) -> datetime:
    """`2023/05/20 (Sat) 02:21`."""
    try:
        return datetime.strptime(re.sub(r"\(\w+\) ", "", node.text), "%Y/%m/%d %H:%M").replace(tzinfo=UTC)
    except ValueError:
        raise node.wrong(f"is a date such as 2023/05/20 (Sat) 02:21, not {node.text[:40]!r}") from None
