"""LoCoMo: two people's chats over months, and questions about what either said.

Source: Maharana et al., Evaluating Very Long-Term Conversational Memory of LLM Agents (ACL 2024),
https://github.com/snap-research/locomo. The first speaker stands as the user, the second as the assistant; each message begins with its
speaker's name, as in the paper's prompts.
"""

import re
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

from threadkeep.experiments.base import Conversation, Dataset, Question, Said
from threadkeep.experiments.tasks.clock import Clock
from threadkeep.experiments.tasks.reading import Node, given, notes, read_records

CATEGORIES = {1: "multi-hop", 2: "temporal", 3: "open-domain", 4: "single-hop", 5: "adversarial"}
_ID = re.compile(r"D:?(\d+):(\d+)")  # one of the published ids is written D:11:26


class LoCoMo:
    """Reads `locomo10.json`."""

    name = "locomo"
    about = "what two people told each other in some 19 or more sittings over months (locomo10.json)"

    def load(self, path: Path | str | None) -> Dataset:
        conversations: dict[str, Conversation] = {}
        questions: list[Question] = []
        odd: Counter[str] = Counter()
        for record in read_records(given(path, self.name, "locomo10.json")):
            name = record["sample_id"].name
            record = record.named(name)  # noqa: PLW2901  # the same record, called by its id from here on
            if name in conversations:
                raise record.wrong("is there twice")
            conversations[name], places = _conversation(name, record["conversation"], odd)
            for number, asked in enumerate(record["qa"].each()):
                questions.append(_question(f"{name}/{number}", asked, conversations[name], places, odd))
        return Dataset(conversations, questions, notes(odd))


def _conversation(name: str, record: Node, odd: Counter[str]) -> tuple[Conversation, dict[tuple[int, int], int]]:
    """The sittings in order, and where each numbered turn stands."""
    roles = {record["speaker_a"].text: "user", record["speaker_b"].text: "assistant"}
    clock, said, places = Clock(), list[Said](), dict[tuple[int, int], int]()
    for number in sorted(int(key[8:]) for key in record.keys() if re.fullmatch(r"session_\d{1,9}", key)):  # noqa: SIM118  # no mapping
        clock.sitting(_date(record[f"session_{number}_date_time"]))
        for turn in record[f"session_{number}"].each():
            speaker = turn["speaker"].text
            if speaker not in roles:
                raise turn.wrong(f"is said by {speaker!r:.60}, who is not one of the two speakers")
            ids = _ids(turn["dia_id"].text)
            if len(ids) != 1:
                raise turn["dia_id"].wrong(f"is an id such as D1:3, not {turn['dia_id'].text[:40]!r}")
            caption = turn.maybe("blip_caption")
            picture = f" [shares a picture: {caption.text}]" if caption else ""
            places[ids[0]] = len(said)
            said.append(Said(turn.message(roles[speaker], f"{speaker}: {turn['text'].text}{picture}"), clock.message()))
    odd["sittings dated before the one ahead of them had ended, taken to begin half an hour after it"] += clock.moved
    return Conversation(name, tuple(said)), places


def _question(name: str, record: Node, conversation: Conversation, places: dict[tuple[int, int], int], odd: Counter[str]) -> Question:
    category = record["category"].whole
    if category not in CATEGORIES:
        raise record["category"].wrong(f"is a number from 1 to {len(CATEGORIES)}, not {category}")
    gold: set[int] = set()
    for written in record["evidence"].each():
        ids = _ids(written.text)
        odd["evidence strings that hold several ids, each of which counts"] += len(ids) > 1
        odd["evidence strings that hold no id, left out"] += not ids
        odd["evidence ids of turns that are not there, left out"] += sum(one not in places for one in ids)
        gold.update(places[one] for one in ids if one in places)
    odd["questions without evidence"] += not gold
    adversarial = CATEGORIES[category] == "adversarial"
    odd["adversarial questions, which have no right answer, kept with their evidence alone"] += adversarial
    return Question(
        name=name,
        conversation=conversation.name,
        text=record["question"].text,
        after=len(conversation.said),
        gold=tuple(sorted(gold)),
        answers=() if adversarial else (record["answer"].written,),
        category=CATEGORIES[category],
    )


def _ids(text: str) -> list[tuple[int, int]]:
    return [(int(session[:9]), int(turn[:9])) for session, turn in _ID.findall(text)]


def _date(node: Node) -> datetime:
    """`1:56 pm on 8 May, 2023`."""
    found = re.fullmatch(r"\s*(\d{1,2}):(\d\d) ([ap]m) on (\d{1,2}) (\w+),? (\d{4})\s*", node.text)
    months = "January February March April May June July August September October November December".split()
    if found is not None and found[5] in months:
        hour = int(found[1]) % 12 + (12 if found[3] == "pm" else 0)
        try:
            return datetime(int(found[6]), months.index(found[5]) + 1, int(found[4]), hour, int(found[2]), tzinfo=UTC)
        except ValueError:
            pass
    raise node.wrong(f"is a date such as 1:56 pm on 8 May, 2023, not {node.text[:40]!r}")
