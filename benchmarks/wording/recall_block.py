"""Which wording of the recalled block a model answers from best: made-up excerpts, one of which answers, are shown in several ways.

    python benchmarks/wording/recall_block.py qwen2.5-coder-0.5b --blocks 10

Every variant is asked the same questions; a reply counts when it holds the answer. Replies are kept in a file, so that a run that was
stopped goes on, and one of more blocks asks only the new questions. It stands apart from the other benchmarks because it takes a quarter of
an hour on two idle cores.
"""

import argparse
import json
import random
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from threadkeep import Budget, Context, LlamaCpp, Message
from threadkeep.experiments.answers import INSTRUCTIONS, answered_by, contains_answer
from threadkeep.memory.quotation import RECALLED

MOST_TOKENS = 24
RECENT = (
    Message.user("I am tidying my desk today."),
    Message.assistant("That sounds like a good start to the week. Is there anything I can help you with?"),
)
HEADINGS = {
    "said earlier": "Said earlier in this conversation:",
    "notes": "What you remember of this conversation. Answer from it if it helps:",
    "ignore": "Earlier messages that may matter for the user's next message. Use what is relevant and ignore the rest:",
    "quotes": RECALLED,
}
PLACES = {
    "system": "late system message",
    "fenced": "late system message, fenced",
    "user": "fenced, at the head of the user message",
    "head": "right after the instructions",
}
NAMES = ("Ada", "Bo", "Carla", "Dev", "Elif", "Finn", "Greta", "Hugo", "Iris", "Jonas", "Kira", "Luca")
PLACE_NAMES = ("Nonna's", "the Blue Door", "Kestrel", "Old Mill", "Saffron", "the Anchor", "Marigold", "Tern Bay", "Ostrich", "the Lantern")
THINGS = ("locker", "garage door", "bicycle lock", "alarm", "suitcase", "garden shed", "mailbox", "server room")
ANIMALS = ("hen", "dog", "cat", "goldfish", "parrot", "pony", "rabbit", "tortoise")
DEEDS = ("sold the piano", "moved house", "adopted a dog", "started the pottery course", "repaired the roof", "planted the apple trees")
KINDS = ("bookshop", "restaurant", "campsite", "bakery", "dentist", "hotel")


@dataclass(frozen=True)
class Excerpt:
    role: str
    at: datetime
    text: str


@dataclass(frozen=True)
class Block:
    """Excerpts, and questions each of which one of them answers."""

    excerpts: tuple[Excerpt, ...]
    questions: tuple[tuple[str, str, tuple[str, ...]], ...]
    """What kind it is of, its text, and strings any of which answers it."""


@dataclass(frozen=True)
class Variant:
    place: str
    heading: str
    line: str

    def __str__(self) -> str:
        return f"{self.place} | {self.heading} | {self.line}"

    def context(self, excerpts: Sequence[Excerpt], question: str) -> Context:
        block = "\n".join([HEADINGS[self.heading], *(LINES[self.line](excerpt) for excerpt in excerpts)])
        first, late = Message.system(INSTRUCTIONS), Message.system(block)
        messages = {
            "system": (first, *RECENT, late, Message.user(question)),
            "fenced": (first, *RECENT, Message.system(f"<recalled>\n{block}\n</recalled>"), Message.user(question)),
            "user": (first, *RECENT, Message.user(f"<recalled>\n{block}\n</recalled>\n\n{question}")),
            "head": (first, late, *RECENT, Message.user(question)),
        }[self.place]
        written = [message.to_dict() for message in messages]
        return Context(written, Budget(2000, reply=0), 0, True, "none", "none", (), ())


LINES = {
    "[date time, role]": lambda one: f"[{one.at:%Y-%m-%d %H:%M}, {one.role}] {one.text}",
    "role (date)": lambda one: f"{one.role} ({one.at:%Y-%m-%d}): {one.text}",
    "bare": lambda one: f"- {one.text}",
    "On …, the user said": lambda one: f"On {one.at.day} {one.at:%B %Y}, the {one.role} said: {one.text}",
}
BASE = Variant("system", "said earlier", "[date time, role]")
VARIANTS = (
    BASE,
    *(Variant(place, BASE.heading, BASE.line) for place in PLACES if place != BASE.place),
    *(Variant(BASE.place, heading, BASE.line) for heading in HEADINGS if heading != BASE.heading),
    *(Variant(BASE.place, BASE.heading, line) for line in LINES if line != BASE.line),
    Variant("fenced", "ignore", BASE.line),
    Variant("fenced", "quotes", BASE.line),
)


def block(number: int) -> Block:
    """The same for the same number: two codes, two names, two days, and what each of both said; a question about each."""
    draw = random.Random(number)
    begun = datetime(2023, 1, 1) + timedelta(minutes=draw.randrange(400 * 24 * 60))  # noqa: DTZ001
    times = sorted(begun + timedelta(minutes=draw.randrange(100 * 24 * 60)) for _ in range(8))
    things, codes = draw.sample(THINGS, 2), draw.sample(range(1000, 9999), 2)
    animals, names = draw.sample(ANIMALS, 2), draw.sample(NAMES, 2)
    deeds, kind, places = draw.sample(DEEDS, 2), draw.choice(KINDS), draw.sample(PLACE_NAMES, 2)
    told = [
        *(("user", f"The code of my {thing} is {code}, in case I forget it.") for thing, code in zip(things, codes, strict=True)),
        *(("user", f"My {animal} is called {name}.") for animal, name in zip(animals, names, strict=True)),
        *(("user", f"Today I finally {deed}.") for deed in deeds),
        ("user", f"The {kind} I always go to is {places[0]}."),
        ("assistant", f"A {kind} that I can recommend to you is {places[1]}."),
    ]
    shuffled = draw.sample(told, len(told))
    days = [times[shuffled.index(("user", f"Today I finally {deed}."))] for deed in deeds]
    asked = [
        *(("fact", f"What is the code of my {thing}?", (str(code),)) for thing, code in zip(things, codes, strict=True)),
        *(("fact", f"What is my {animal} called?", (name,)) for animal, name in zip(animals, names, strict=True)),
        *(("date", f"On which date did I tell you that I {deed}?", _written(day)) for deed, day in zip(deeds, days, strict=True)),
        ("who", f"Which {kind} do I always go to?", (places[0],)),
        ("who", f"Which {kind} did you recommend to me?", (places[1],)),
    ]
    return Block(tuple(Excerpt(role, at, text) for (role, text), at in zip(shuffled, times, strict=True)), tuple(asked))


def _written(day: datetime) -> tuple[str, ...]:
    return f"{day:%Y-%m-%d}", f"{day:%B} {day.day}", f"{day.day} {day:%B}", f"{day:%B} {day.day}th", f"{day.day}th of {day:%B}"


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("model", help="a registered model's name, or a GGUF file")
    given.add_argument("--blocks", type=int, default=10, help="8 questions each")
    given.add_argument("--threads", type=int, help="1 is the fastest where others use the cores too")
    given.add_argument("--replies", type=Path, help="the file of replies; made where it is missing")
    chosen = given.parse_args()
    path = chosen.replies or Path(tempfile.gettempdir()) / f"threadkeep-recall-block-{Path(chosen.model).stem}.jsonl"
    known = {(line["variant"], line["block"], line["question"]): line["reply"] for line in _lines(path)}
    with closing(LlamaCpp(chosen.model, window=2048, parallel=1, threads=chosen.threads, temperature=0)) as model, path.open("a") as file:
        for number in range(chosen.blocks):
            asked = block(number)
            for variant in VARIANTS:
                for _, question, _ in asked.questions:  # in a row: the engine reads what they share once
                    if (str(variant), number, question) not in known:
                        reply = answered_by(model, variant.context(asked.excerpts, question), MOST_TOKENS)
                        known[str(variant), number, question] = reply
                        line = {"variant": str(variant), "block": number, "question": question, "reply": reply}
                        file.write(json.dumps(line) + "\n")
                        file.flush()
    show(known, chosen.blocks)
    print(f"replies: {path}")


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    if path.exists():
        yield from map(json.loads, path.read_text().splitlines())


def show(replies: dict[tuple[str, int, str], str], blocks: int) -> None:
    """Percent of replies that hold the answer, and the difference from the first variant with an interval of 95 %, by whole blocks."""
    right = {
        str(variant): [
            [(kind, contains_answer(replies[str(variant), number, text], answers)) for kind, text, answers in block(number).questions]
            for number in range(blocks)
        ]
        for variant in VARIANTS
    }
    print(f"{'where | heading | line':48} {'all':>5} {'fact':>5} {'date':>5} {'who':>5}  against the first, n={8 * blocks}")
    for name, held in right.items():
        replied = [one for each in held for one in each]
        shares = [_percent([good for kind, good in replied if only in (None, kind)]) for only in (None, "fact", "date", "who")]
        more = [_good(one) - _good(base) for one, base in zip(held, right[str(BASE)], strict=True)]
        low, high = _interval(more)
        print(f"{name:48} {' '.join(f'{share:5.0f}' for share in shares)}  {100 * sum(more) / (8 * blocks):+.0f} [{low:+.0f}, {high:+.0f}]")


def _good(held: Sequence[tuple[str, bool]]) -> int:
    return sum(good for _, good in held)


def _percent(held: Sequence[bool]) -> float:
    return 100 * sum(held) / max(1, len(held))


def _interval(more: Sequence[int]) -> tuple[float, float]:
    """Of the mean difference, in percent of the questions, by resampling blocks."""
    draw = random.Random(0)
    means = sorted(100 * sum(draw.choices(more, k=len(more))) / (8 * len(more)) for _ in range(2000))
    return means[49], means[1949]


if __name__ == "__main__":
    main()
