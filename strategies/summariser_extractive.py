"""Summaries without a model: the sentences that say most, whole and in their order, each with its speaker and day.

Sentences are chosen by budgeted maximum coverage (Lin and Bilmes, A Class of Submodular Functions for Document Summarization, 2011):
each step takes the sentence that brings most per token, where a term counts by its weight and counts less the more often it was taken.
So a sentence that repeats what stands there already brings nothing, and a dense one is worth more than a long one.
"""

import heapq
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from threadkeep.memory.analysis import terms
from threadkeep.memory.index import ROLES
from threadkeep.memory.quotation import spelled
from threadkeep.strategies.sentences import sentences
from threadkeep.strategies.summariser import Said, SummaryRequest, length

NAMED = 3.0
"""How much more a name or a number weighs than another word: facts hang on them."""
COMMON = 0.4
"""What the commonest words of talk weigh."""
ASKED = 0.5
"""What a question is worth beside a statement."""
AGAIN = 0.25
"""What a term is worth the second time; then that of that, and so on."""
SPEAKER_LENGTH = 12
"""About what the speaker before a line costs, as a length of text."""
DAY_LENGTH = length("[2026-01-31]\n")
"""What a day's heading costs."""

_COMMON = frozenset(
    terms(
        """yeah yes no oh okay ok well right like know think mean see say tell talk ask go come get got make take give put let keep
        want need try use find look feel seem thank thanks please sorry sure hi hey hello bye wow great good nice cool lovely
        awesome amazing bad big little lot bit thing things stuff way time day people really actually maybe probably quite
        pretty very too still even always never ever much many more most again back here now soon today one two first last next
        new old other same own something anything nothing everything someone anyone everyone happy glad hope love enjoy agree
        believe guess wonder wonderful fantastic exciting excited interesting fun definitely absolutely totally exactly course
        kind sort best better long every each such only going doing being having been done said went came took made gave guys
        guy man work works around off over down why yet ago might must shall should may gonna wanna congrats congratulations
        help start"""
    )
)
"""The commonest words of talk in English, stemmed, beside the stop words: a sentence of these alone says little."""
_OPENING = re.compile(r"([^\W\d_][\w.' -]{0,38}[\w.]): +")
_HEADING = re.compile(r"\[(\d{4}-\d\d-\d\d)\]")
_NAME_OR_NUMBER = re.compile(r"(?<=[^.!?…]\s)[\"'“‘(]?([^\W\d_a-z]\w+)|(\w*\d\w*)")


@dataclass(frozen=True, slots=True)
class Sentence:
    """One sentence of what was said, and where it stood."""

    place: int
    day: str
    speaker: str
    text: str
    terms: Mapping[str, int] = field(repr=False)

    @property
    def length(self) -> int:
        return length(self.text) + SPEAKER_LENGTH


@dataclass(frozen=True)
class ExtractiveSummariser:
    """The sentences that say most. It needs no model, takes milliseconds, and gives the same for the same."""

    @property
    def name(self) -> str:
        return "extractive-1"

    def summarise(self, request: SummaryRequest) -> str:
        earlier = [Said(request.before)] if request.before else []
        found = list(_sentences([*earlier, *request.said]))
        return _told(_chosen(found, request.tokens / request.tokens_per_length))


def _sentences(said: Iterable[Said]) -> Iterator[Sentence]:
    place = 0
    for day, speaker, text in _lines(said):
        for sentence in sentences(text):
            yield Sentence(place, day, speaker, sentence, terms(sentence))
            place += 1


def _lines(said: Iterable[Said]) -> Iterator[tuple[str, str, str]]:
    """Day, speaker and words of each message; a summary's are read from its lines."""
    for one in said:
        if one.speaker:
            opening = _OPENING.match(one.text)  # chats of several people are stored with their names in front
            named = opening is not None and spelled(opening[1]) not in ROLES  # nobody speaks for another role by writing its name
            speaker, text = (opening[1], one.text[opening.end() :]) if opening and named else (one.speaker, one.text)
            yield one.at.date().isoformat() if one.at else "", speaker, text
            continue
        day = ""
        for line in one.text.splitlines():
            if heading := _HEADING.fullmatch(line.strip()):
                day = heading[1]
            elif line.strip():
                opening = _OPENING.match(line)
                yield day, opening[1] if opening else "", line[opening.end() :] if opening else line


def _chosen(found: Sequence[Sentence], room: float) -> list[Sentence]:
    """The sentences that together say most of so great a length, in their order."""
    weights = _weights(found)
    taken: Counter[str] = Counter()
    chosen: list[Sentence] = []

    days: set[str] = {""}

    def cost(sentence: Sentence) -> int:
        return sentence.length + (0 if sentence.day in days else DAY_LENGTH)

    def worth(sentence: Sentence) -> float:
        gain = sum(weights[term] * AGAIN ** taken[term] for term in sentence.terms)
        return round(gain * (ASKED if sentence.text.endswith(("?", "？")) else 1) / (len(sentence.text) + SPEAKER_LENGTH), 9)

    waiting = [(-worth(sentence), sentence.place) for sentence in found]
    heapq.heapify(waiting)
    while waiting and room > 0:
        stale, place = heapq.heappop(waiting)
        sentence = found[place]
        now = -worth(sentence)
        if now >= 0 or cost(sentence) > room:
            continue
        if now > stale:  # others have taken its words since; what it brings only falls
            heapq.heappush(waiting, (now, place))
            continue
        chosen.append(sentence)
        room -= cost(sentence)
        days.add(sentence.day)
        taken.update(sentence.terms.keys())
    if not chosen and found:  # not even one fits: the beginning of the best
        best = min(found, key=lambda sentence: (-worth(sentence), sentence.place))
        text = best.text
        while (opening := _OPENING.match(text)) and spelled(opening[1]) in ROLES:
            text = text[opening.end() :]
        fitting = int(len(text) * room / length(text)) * 3 // 4
        return [Sentence(best.place, "", "", text[: max(1, fitting)], best.terms)]
    return sorted(chosen, key=lambda sentence: sentence.place)


def _weights(found: Sequence[Sentence]) -> dict[str, float]:
    """What each term is worth: more if it is a name or a number, less if everybody always says it, nothing if it names a speaker."""
    named = {term for sentence in found for match in _NAME_OR_NUMBER.finditer(sentence.text) for term in terms(match[1] or match[2])}
    speakers = {term for speaker in {sentence.speaker for sentence in found} for term in terms(speaker)}
    return {
        term: 0.0 if term in speakers else (NAMED if term in named else 1) * (COMMON if term in _COMMON else 1)
        for sentence in found
        for term in sentence.terms
    }


def _told(chosen: Sequence[Sentence]) -> str:
    """The sentences as text: a heading for each day, a line for as long as one speaks, or for each sentence that nobody is named for."""
    lines: list[str] = []
    day, speaker = "", ""
    for sentence in chosen:
        if sentence.day != day:
            day, speaker = sentence.day, ""
            lines.append(f"[{day}]")
        if speaker and sentence.speaker == speaker:
            lines[-1] += f" {sentence.text}"
        else:
            speaker = sentence.speaker
            lines.append(f"{speaker}: {sentence.text}" if speaker else sentence.text)
    return "\n".join(lines)
