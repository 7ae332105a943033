"""A summariser over any backend: what it is told fits the model's window, and what it answers is bounded."""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import closing

from threadkeep.backends.base import Backend
from threadkeep.memory.budget import Budget
from threadkeep.memory.context import Context
from threadkeep.memory.errors import InvalidSetting, SummariserError, ThreadkeepError
from threadkeep.memory.message import Message
from threadkeep.memory.metering import metered
from threadkeep.strategies.summariser import FAR_TOO_LONG, Said, SummaryRequest
from threadkeep.strategies.summariser_extractive import ExtractiveSummariser

INSTRUCTIONS = (
    "You keep notes of a conversation, for somebody who goes on with it without having read it. "
    "Write one short line for each fact, beginning with '- '. "
    "Keep names, numbers, dates, times, prices, codes and places exactly, who wants or decided what, and what is still open. "
    "Leave out greetings, small talk and advice. "
    "Do not copy the conversation, and do not repeat what the notes hold already, unless it changed."
)
"""What the model is told."""
VERSION = 1
"""Part of the name: other instructions make other summaries."""
PIECE = 2048
"""Tokens that are read at once: small models lose facts of more."""
SLACK = 32
"""Tokens kept free beside what is counted: headings of the prompt."""
_END = re.compile(r"[.!?…。！？][\"'”’)\]]*(?=\s|$)|\n|(?<=[。！？])")


class BackendSummariser:
    """Asks a backend's model.

    What does not fit into one request is worked off in pieces, a long message in several. Each request holds the notes so far, and the
    model adds what is new: a small one that writes all of them anew loses more than it keeps. Notes that have become too long lose the
    lines that say least. An answer is cut behind its last whole sentence where the model went on.

    Args:
        backend: whose model; it is left open.
        piece: tokens of a conversation that are read at once; less where the window is small.
        seconds: how long one answer may take.

    Raises:
        InvalidSetting: an argument is out of range.
    """

    def __init__(self, backend: Backend, *, piece: int = PIECE, seconds: float = 240.0) -> None:
        if not callable(getattr(backend, "stream", None)):  # isinstance would look at each property, and load a local model
            raise InvalidSetting(f"BackendSummariser({backend!r:.80}): a backend, such as LlamaCpp()")
        if type(piece) is not int or piece < 1:
            raise InvalidSetting(f"BackendSummariser(piece={piece!r}): a number of tokens from 1")
        if not seconds > 0:
            raise InvalidSetting(f"BackendSummariser(seconds={seconds!r}): a number above 0")
        self._backend = backend
        self._piece = piece
        self._seconds = seconds

    def __repr__(self) -> str:
        return f"BackendSummariser({self._backend.name!r}, piece={self._piece})"

    @property
    def name(self) -> str:
        return f"{self._backend.name}-{VERSION}-{self._piece}"

    def summarise(self, request: SummaryRequest) -> str:
        """The summary.

        Raises:
            SummariserError: the model failed, took too long, said nothing or would not stop; or its window is too small.
        """
        notes = request.before or ""
        for part in self._parts(request):
            lines = [*notes.splitlines(), *self._ask(notes, part, request.tokens).splitlines()]
            notes = self._shortened("\n".join(dict.fromkeys(filter(str.strip, lines))), request.tokens)
        return notes

    def _shortened(self, notes: str, tokens: int) -> str:
        """Notes that have become too long, without the lines that say least."""
        room = tokens
        while (spent := self._tokens(notes)) > tokens and room > 0:
            notes = ExtractiveSummariser().summarise(SummaryRequest([Said(notes, tokens=spent)], room))
            room = room * 7 // 8
        return notes

    def _parts(self, request: SummaryRequest) -> Iterator[str]:
        """What was said, in parts that fit into one request beside the summary so far and its answer."""
        # The summary so far may take as much as was asked for, and an answer is asked for no more than that.
        fixed = self._count(_messages("", "", request.tokens)) + SLACK
        longest_before = max(request.tokens, self._tokens(request.before or ""))
        room = min(self._piece, self._backend.window - fixed - longest_before - request.tokens)
        if room < 1:
            raise SummariserError(
                f"a window of {self._backend.window} tokens is too small to summarise in: the request takes {fixed}, the summary so far "
                f"{longest_before} and the new one {request.tokens}. Ask for a shorter summary, or give a larger window"
            )
        part, spent = "", 0
        for one in request.said:
            for piece in self._cut(_line(one), room):
                tokens = self._tokens(piece + "\n")
                if part and spent + tokens > room:
                    yield part
                    part, spent = "", 0
                part, spent = f"{part}\n{piece}" if part else piece, spent + tokens
        if part:
            yield part

    def _cut(self, line: str, room: int) -> Iterator[str]:
        """A line in pieces of so many tokens."""
        while self._tokens(line + "\n") > room and len(line) > 1:
            at = max(1, len(line) * room // (self._tokens(line) + 1))
            while at > 1 and self._tokens(line[:at] + "\n") > room:
                at = at * 3 // 4
            blank = line.rfind(" ", at // 2, at)
            at = blank + 1 if blank > 0 else at
            yield line[:at].rstrip()
            line = line[at:]
        yield line

    def _ask(self, before: str, said: str, tokens: int) -> str:
        messages = _messages(before, said, tokens)
        context = Context(
            messages=[message.to_dict() for message in messages],
            budget=Budget(self._backend.window, reply=tokens),
            tokens=self._count(messages),
            exact=False,
            counter=self._backend.counter.name,
            strategy="summary",
            picks=(),
            decisions=(),
        )
        text, finish, end = "", None, time.monotonic() + self._seconds
        try:
            with closing(metered(self._backend, context, "summary")) as events:
                for event in events:
                    text += event.text
                    finish = event.finish
                    if "\n" in event.text and (line := _said_again(text)) is not None:
                        text = text[:line]  # small models go round in circles: what they say twice is the last of it
                        break
                    if time.monotonic() > end:
                        raise SummariserError(f"{self.name} took longer than {self._seconds:g} s, and was stopped")
                    if len(text) > FAR_TOO_LONG * 8 * tokens or (finish and self._tokens(text) > FAR_TOO_LONG * tokens):
                        raise SummariserError(f"{self.name} was asked for {tokens} tokens and gave {self._tokens(text)} or more")
        except ThreadkeepError as error:
            raise error if isinstance(error, SummariserError) else SummariserError(f"{self.name}: {error}") from error
        text = text.strip()
        if finish == "length" or self._tokens(text) > tokens:
            text = _whole_sentences(text, lambda part: self._tokens(part) <= tokens)
        if not text:
            raise SummariserError(f"{self.name} said nothing")
        return text

    def _count(self, messages: list[Message]) -> int:
        return self._backend.counter.count_request(messages).tokens

    def _tokens(self, text: str) -> int:
        """What a text costs without a message around it."""
        counter = self._backend.counter
        return max(0, counter.count(Message.user(text)).tokens - counter.count(Message.user("")).tokens)


def _messages(before: str, said: str, tokens: int) -> list[Message]:
    """The request: what to do, the notes so far, and what was said since."""
    parts = [f"Notes so far:\n{before}" if before else "", f"Conversation:\n{said}"]
    wish = f"List the {'new ' if before else ''}facts of this conversation, in at most {max(1, tokens * 3 // 4)} words."
    return [Message.system(INSTRUCTIONS), Message.user("\n\n".join([*filter(None, parts), wish]))]


def _said_again(text: str) -> int | None:
    """Where the last whole line begins, if it stands there before; None: it does not."""
    lines = text[: text.rindex("\n")].split("\n")
    last = next((at for at in reversed(range(len(lines))) if lines[at].strip()), None)
    if last is None or lines[last] not in lines[:last]:
        return None
    return sum(len(line) + 1 for line in lines[:last])


def _line(one: Said) -> str:
    """A message with its day and speaker, or a summary as it is."""
    day = f" ({one.at:%Y-%m-%d})" if one.at else ""
    return f"{one.speaker}{day}: {one.text}" if one.speaker else one.text


def _whole_sentences(text: str, fits: Callable[[str], bool]) -> str:
    """The longest beginning that fits and ends as a sentence does; where there is none, as a word does."""
    for pattern in (_END, re.compile(r"(?=\s)")):
        for end in sorted((found.end() for found in pattern.finditer(text)), reverse=True):
            if end and fits(text[:end]):
                return text[:end].strip()
    return ""
