"""Which runs of a log a summary stands for, and what a summariser is told of them: the same for every strategy that summarises."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from math import ceil

from threadkeep.memory.context import Pick
from threadkeep.memory.errors import InvalidSetting, SummariserError
from threadkeep.memory.fitting import Profile, fit
from threadkeep.memory.history import Entry, History, Summary
from threadkeep.memory.index import ROLES
from threadkeep.memory.message import ImagePart, Message
from threadkeep.memory.quotation import label, spelled
from threadkeep.strategies.summariser import Said, Summariser, SummaryRequest, checked, length

LONGEST_NAME = 255
"""Characters that a recipe's name may take."""
PAGE = 64
"""Entries read at a time while the end of a run is looked for."""
TEMPLATE_TOKENS = 4
"""About what a template puts around a message."""
NOTHING = "…"
"""A summary of entries that say nothing any more."""
_AS_TEXT = Profile(tools=False, images=False)


def checked_summariser(summariser: Summariser, place: str) -> Summariser:
    """The summariser, if it is one.

    Raises:
        InvalidSetting: it is none, or has no name.
    """
    if not isinstance(summariser, Summariser) or not isinstance(summariser.name, str) or not summariser.name:
        raise InvalidSetting(f"{place}(summariser={summariser!r:.80}): a summariser has a name and a method summarise(request)")
    return summariser


def check_numbers(place: str, least: int, **numbers: int) -> None:
    """Refuse what is no whole number from `least`."""
    for name, number in numbers.items():
        if type(number) is not int or number < least:
            raise InvalidSetting(f"{place}({name}={number!r}): a whole number from {least}")


def check_share(place: str, name: str, share: float) -> None:
    """Refuse what is no share."""
    if not 0 < share <= 1:
        raise InvalidSetting(f"{place}({name}={share!r}): a share above 0 and at most 1")


def recipe_name(*parts: object) -> str:
    """A recipe's name; one that is too long ends in a hash of the whole."""
    name = "/".join(map(str, parts))
    if len(name) <= LONGEST_NAME:
        return name
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    return f"{name[: LONGEST_NAME - 1 - len(digest)]}/{digest}"


def run_from(history: History, first: int, *, tokens: int, recent: int, last: int | None = None) -> Sequence[Entry] | None:
    """The next run to summarise: whole turns from entry `first` on, of at least so many shown tokens; None: it is not complete yet.

    A run is complete when at least `recent` tokens of the log follow it, the live turn always among them. One that ends before a
    summary which is there already, at `last`, is complete there, however short.
    """
    head = history.head
    run: list[Entry] = []
    spent = 0
    for entry in _from(history, first, head.seq if last is None else last):
        if run and spent >= tokens and entry.turn_seq != run[-1].turn_seq:
            break
        if entry.turn_seq >= head.turn_seq:
            return None
        run.append(entry)
        spent += 0 if entry.status == "late" else entry.shown_tokens
    else:
        return run if run and last is not None else None
    return run if head.shown_tokens - run[-1].cum_shown >= recent else None


def behind(history: History, pick: Pick, seq: int) -> Pick:
    """A pick of entries without those up to a seq."""
    return Pick.of(history.entries(one for one in pick.seqs if one > seq), pick.reason, step=pick.step)


def told(summary: Summary, reason: str) -> Pick:
    """A summary as it is shown."""
    return Pick(tuple(range(summary.first, summary.last + 1)), summary.tokens, reason, kind="summary", text=summary.text)


def _from(history: History, first: int, last: int) -> Iterator[Entry]:
    """The entries of a run of seqs, read page by page."""
    for low in range(first, last + 1, PAGE):
        yield from history.between(low, min(low + PAGE - 1, last))


def said_in(entries: Sequence[Entry]) -> list[Said]:
    """What a summariser is told of entries: tool calls, their results and pictures as text, nothing of late or erased ones."""
    said = []
    for entry in entries:
        message = entry.message
        text = fit(message, _AS_TEXT).text.strip() if entry.status not in ("late", "erased") else ""
        if text:
            pictures = any(isinstance(part, ImagePart) for part in message.parts)
            said.append(Said(text, _speaker(message), entry.created_at, 0 if pictures else entry.tokens))
    return said


def _speaker(message: Message) -> str:
    """Who said it: the name it was stored with, where that is not another role's, else the role."""
    name = label(message.name or "")
    return message.role if spelled(name).partition(":")[0] in ("", *ROLES) else name


def said_by(summaries: Sequence[Summary]) -> list[Said]:
    """What a summariser is told of summaries."""
    return [Said(one.text, tokens=one.tokens) for one in summaries if one.text != NOTHING]


def writing(summariser: Summariser, request: SummaryRequest, *, level: int, first: int, last: int) -> Callable[[], Summary]:
    """What makes a summary of these entries, away from the history.

    Its tokens are an estimate in the log's own tokens. Where nothing was said, or all was erased, no summariser is asked.
    """

    def write() -> Summary:
        if not request.said:
            text = request.before or NOTHING
            return Summary(level, first, last, text, _estimate(text, request), "nothing was said")
        try:
            text = summariser.summarise(request)
        except SummariserError:
            raise
        except Exception as error:  # a stranger's code may raise anything: upkeep has to know what failed
            raise SummariserError(f"{summariser.name} failed on entries {first} to {last}: {type(error).__name__}: {error}") from error
        text = checked(text, request, summariser.name)
        return Summary(level, first, last, text, _estimate(text, request), summariser.name)

    return write


def _estimate(text: str, request: SummaryRequest) -> int:
    return ceil(length(text) * request.tokens_per_length) + TEMPLATE_TOKENS
