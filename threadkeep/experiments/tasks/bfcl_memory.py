"""BFCL v4's memory questions: what a user told in short sessions on five topics, asked with short answers.

Source: Berkeley Function Calling Leaderboard v4, https://github.com/ShishirPatil/gorilla. The sessions are the user's side alone. Upstream
names the source of an answer by a quote; the turn that holds it is the evidence.
"""

import re
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from threadkeep.experiments.base import Conversation, Dataset, DatasetError, Question, Said
from threadkeep.experiments.tasks.clock import Clock
from threadkeep.experiments.tasks.reading import Node, given, notes, read_lines

QUESTIONS = "BFCL_v4_memory.json"
SESSIONS = "memory_prereq_conversation"
FOLDER = f"upstream's data folder, with {QUESTIONS}, possible_answer/{QUESTIONS} and {SESSIONS}/"
FIRST_DAY = datetime(2025, 1, 1, 9, tzinfo=UTC)
"""Sessions have no dates: they are taken to be a day apart."""


class BFCLMemory:
    """Reads the folder as published."""

    name = "bfcl_memory"
    about = f"short answers out of a user's short sessions on five topics ({FOLDER})"

    def load(self, path: Path | str | None) -> Dataset:
        path = given(path, self.name, FOLDER)
        conversations = _conversations(path / SESSIONS)
        odd: Counter[str] = Counter()
        questions = [_question(name, parts, conversations, odd) for name, parts in _parts(path).items()]
        odd["conversations without dates, their sessions taken to be a day apart"] = len(conversations)
        return Dataset(conversations, questions, notes(odd))


def _parts(folder: Path) -> Mapping[str, Mapping[str, Node]]:
    """By question: `question`, `ground_truth` and `source`, in whichever of the two files each stands."""
    found: dict[str, dict[str, Node]] = {}
    files = [file for file in (folder / QUESTIONS, folder / "possible_answer" / QUESTIONS) if file.exists()]
    if not files:
        raise DatasetError(folder, "the folder", f"holds no {QUESTIONS}: give {FOLDER}")
    for file in files:
        for record in read_lines(file):
            name = record["id"].name
            record = record.named(name)  # noqa: PLW2901  # the same record, called by its id from here on
            parts = found.setdefault(name, {})
            for key in ("question", "ground_truth", "source"):
                if record.maybe(key) is not None:
                    if key in parts:
                        raise record.wrong(f"has a {key} in {parts[key].path}, {parts[key].place} already")
                    parts[key] = record[key]
    for name, parts in found.items():
        for key in ("question", "ground_truth", "source"):
            if key not in parts:
                raise DatasetError(folder, name, f"has no {key!r} in {' or '.join(map(str, files))}: give {FOLDER}")
    return found


def _conversations(folder: Path) -> dict[str, Conversation]:
    """By scenario: its sessions in the order of the file."""
    files = sorted(folder.glob("*.json"))
    if not files:
        raise DatasetError(folder, "the folder", f"holds no sessions: give {FOLDER}")
    said: dict[str, list[Said]] = {}
    clocks: dict[str, Clock] = {}
    days: Counter[str] = Counter()
    for file in files:
        for session in read_lines(file):
            scenario = session["scenario"].name
            clock = clocks.setdefault(scenario, Clock())
            clock.sitting(FIRST_DAY + timedelta(days=days[scenario]))
            days[scenario] += 1
            for step in session["question"].each():
                for turn in step.each():
                    message = turn.message(turn["role"].text, turn["content"].text)
                    said.setdefault(scenario, []).append(Said(message, clock.message()))
    return {scenario: Conversation(scenario, tuple(messages)) for scenario, messages in said.items()}


def _question(name: str, parts: Mapping[str, Node], conversations: Mapping[str, Conversation], odd: Counter[str]) -> Question:
    scenario = name.split("-")[1] if name.count("-") == 2 else ""
    if scenario not in conversations:
        raise parts["ground_truth"].wrong(f"is of question {name!r}: ids are memory_<n>-<scenario>-<n>, with a scenario that has sessions")
    texts = [turn["content"].text for step in parts["question"].each() for turn in step.each()]
    answers = tuple(answer.written for answer in parts["ground_truth"].each())
    said = conversations[scenario].said
    return Question(
        name=name,
        conversation=scenario,
        text="\n".join(texts),
        after=len(said),
        gold=_evidence(parts["source"].text, answers, [one.message.text for one in said], odd),
        answers=answers,
        category=scenario,
    )


def _evidence(quote: str, answers: tuple[str, ...], turns: list[str], odd: Counter[str]) -> tuple[int, ...]:
    """The turns that hold every piece of the quote; else, of those with an answer in them, the one with most of the quote's words."""
    pieces = [words for words in map(_words, re.split(r"\.\.\.|…|:\s", quote)) if words.strip()]
    spoken = [_words(turn) for turn in turns]
    holding = tuple(at for at, words in enumerate(spoken) if pieces and all(piece in words for piece in pieces))
    if holding:
        return holding
    quoted = set(_words(quote).split())
    shared = {
        at: len(quoted & set(words.split()))
        for at, words in enumerate(spoken)
        if any(_words(answer) in words for answer in answers if _words(answer).strip())
    }
    odd["quotes that stand in no turn, the turn with an answer and most of the quote's words taken instead"] += bool(shared)
    odd["quotes that stand in no turn, nor does an answer, left without evidence"] += not shared
    return (max(shared, key=lambda at: (shared[at], -at)),) if shared else ()


def _words(text: str) -> str:
    """Its words alone, one blank around each."""
    words = " ".join(re.findall(r"[^\W_]+", text.lower()))
    return f" {words} "
