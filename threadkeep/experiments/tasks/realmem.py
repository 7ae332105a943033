"""RealMem: a persona's projects with an assistant over months; the questions stand inside the dialogue.

Source: Bian et al., RealMem (2026), https://github.com/AvatarMemory/RealMemBench. A question is a user's turn marked `is_query`. Its
evidence: the reply names the memories it used, and each was drawn from a turn of its session, numbered from 1. A memory numbered below 1
names no turn.
"""

import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

from threadkeep.experiments.base import Conversation, Dataset, DatasetError, Question, Said
from threadkeep.experiments.tasks.clock import Clock
from threadkeep.experiments.tasks.reading import Node, given, notes, read_json

FILES = "*_dialogues_256k.json"
MORNING = timedelta(hours=9)
"""Sessions are dated by day: each is taken to begin in the morning, or after the one before."""
ROLES = {"User": "user", "Assistant": "assistant"}


class RealMem:
    """Reads one persona's file, or all of a folder."""

    name = "realmem"
    about = f"questions inside a persona's long-running projects (a folder of {FILES}, or one of them)"

    def load(self, path: Path | str | None) -> Dataset:
        path = given(path, self.name, f"a folder of {FILES}, or one of them")
        files = sorted(path.glob(FILES)) if path.is_dir() else [path]
        if not files:
            raise DatasetError(path, "the folder", f"holds no {FILES}")
        conversations: dict[str, Conversation] = {}
        questions: list[Question] = []
        odd: Counter[str] = Counter()
        for file in files:
            whole = read_json(file)
            persona = whole["_metadata"]["person_name"].name
            if persona in conversations:
                raise whole.wrong(f"persona {persona!r} is in another file too")
            conversations[persona] = _Persona(persona, odd).read(whole["dialogues"], questions)
        return Dataset(conversations, questions, notes(odd))


class _Persona:
    """Reads one persona's dialogues, in the order of the file: a reply uses memories of sessions before it in that order."""

    def __init__(self, name: str, odd: Counter[str]) -> None:
        self.name = name
        self.odd = odd
        self.said: list[Said] = []
        self.sources: dict[tuple[str, str], list[int | None]] = {}
        """By session and wording of a memory: the positions of the turns that it was drawn from, None where it names none."""

    def read(self, dialogues: Node, questions: list[Question]) -> Conversation:
        clock = Clock()
        for session in dialogues.each():
            uuid = session["session_uuid"].text
            session = session.named(uuid)  # noqa: PLW2901  # the same record, called by its id from here on
            clock.sitting(_date(session["current_time"]) + MORNING)
            turns, first = session["dialogue_turns"].each(), len(self.said)
            self._remember(uuid, session["extracted_memory"], first, len(turns))
            for at, turn in enumerate(turns):
                speaker = turn["speaker"].text
                if speaker not in ROLES:
                    raise turn["speaker"].wrong(f"is one of {', '.join(ROLES)}, not {speaker[:60]!r}")
                if turn["is_query"].value is True:
                    questions.append(self._question(turn, turns[at + 1] if at + 1 < len(turns) else None))
                self.said.append(Said(turn.message(ROLES[speaker], turn["content"].text), clock.message()))
        self.odd["sessions dated no later than the one ahead of them in the file, taken to follow it"] += clock.moved
        return Conversation(self.name, tuple(self.said))

    def _remember(self, uuid: str, memories: Node, first: int, turns: int) -> None:
        for memory in memories.each():
            turn = memory["source_turn"].whole
            if turn > turns:
                raise memory["source_turn"].wrong(f"is {turn}, and the session has {turns} turns")
            self.sources.setdefault((uuid, memory["content"].text), []).append(first + turn - 1 if turn >= 1 else None)

    def _question(self, turn: Node, reply: Node | None) -> Question:
        used = reply.maybe("memory_used") if reply else None
        gold: set[int] = set()
        for memory in used.each() if used else []:
            places = self.sources.get((memory["session_uuid"].text, memory["content"].text), [])
            self.odd["memories in use that no earlier session holds, left out"] += not places
            self.odd["memories in use that name no turn (source_turn below 1), left out"] += None in places
            known = {place for place in places if place is not None}
            gold |= {place for place in known if place < len(self.said)}
            self.odd["memories in use from turns said after the question, left out"] += not known <= gold
        self.odd["questions without evidence"] += not gold
        category = turn.maybe("category_name")
        return Question(
            name=f"{self.name}/{turn['query_id'].name}",
            conversation=self.name,
            text=turn["content"].text,
            after=len(self.said),
            gold=tuple(sorted(gold)),
            category=category.text if category else "",
        )


def _date(node: Node) -> datetime:
    """`2025-12-15 (Monday)`."""
    try:
        return datetime.strptime(re.sub(r"\s*\(\w+\)", "", node.text), "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        raise node.wrong(f"is a date such as 2025-12-15 (Monday), not {node.text[:40]!r}") from None
