"""Time expressions of a question, made spans of time: an ISO date, `20 May 2023`, `in May`, `yesterday`, `two weeks ago`, `last Monday`.

English words, and dates in figures. What is relative counts from the moment of the question. "Today" and "this week" are left alone:
who says them speaks of what he intends more often than of what was said.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import NamedTuple

_MONTHS = "january february march april may june july august september october november december".split()
_DAYS = "monday tuesday wednesday thursday friday saturday sunday".split()
_NUMBERS = {word: number for number, word in enumerate("a two three four five six seven eight nine ten eleven twelve".split(), 1)}
_NUMBERS |= {"an": 1, "one": 1, "a couple of": 2, "a few": 3}
_MONTH = rf"(?P<month>{'|'.join(f'{name}|{name[:3]}' if len(name) > 3 else name for name in _MONTHS)}|sept)\b\.?"
_DAY = r"(?P<day>[0-3]?\d)(?:st|nd|rd|th)?"
_YEAR = r"(?P<year>(?:19|20)\d\d)"
_ISO = re.compile(rf"(?<!\d){_YEAR}-(?P<month>[01]\d)(?:-(?P<day>[0-3]\d))?(?!\d)")
_CHINESE = re.compile(rf"{_YEAR}\s*年(?:\s*(?P<month>[01]?\d)\s*月(?:\s*(?P<day>[0-3]?\d)\s*[日号])?)?")
_WRITTEN = re.compile(
    rf"\b(?:{_DAY}\s+(?:of\s+)?{_MONTH}(?:,?\s+{_YEAR})?|{_MONTH.replace('month', 'first')}\s+{_DAY.replace('day', 'second')}\b"
    rf"(?:,?\s+{_YEAR.replace('year', 'third')})?)",
    re.IGNORECASE,
)
_OF_A_YEAR = re.compile(rf"\b{_MONTH},?\s+{_YEAR}", re.IGNORECASE)
_NAMED = re.compile(
    rf"\b(?P<lead>in|since|during|of|from|early|late|mid|last|this)[\s-]+(?P<month>{'|'.join(_MONTHS)})\b(?!,?\s+\d)", re.IGNORECASE
)
_WHOLE_YEAR = re.compile(rf"\b(?:in|during|of|since)\s+{_YEAR}\b", re.IGNORECASE)
_AGO = re.compile(
    rf"\b(?P<number>\d{{1,3}}|{'|'.join(sorted(_NUMBERS, key=len, reverse=True))})\s+(?P<unit>day|week|month|year)s?\s+ago\b", re.IGNORECASE
)
_LAST = re.compile(rf"\b(?:last|past)\s+(?P<unit>week|month|year|{'|'.join(_DAYS)})\b|\b(?P<day>yesterday)\b", re.IGNORECASE)
_LENGTHS = {"day": 1, "week": 7, "month": 30.4, "year": 365.25}


class Span(NamedTuple):
    """From one moment to another, which is no longer in it; UTC."""

    begin: datetime
    end: datetime


def spans_of(text: str, asked: datetime, first: datetime) -> list[Span]:
    """The times that a question names, in no order; none where it names none.

    Args:
        text: the question.
        asked: when it was asked, in UTC.
        first: when the log begins: a month without a year is that month of every year from here to the question.
    """
    found = chain(_dates(text), _months(text, asked, first), _relative(text, asked))
    return list(dict.fromkeys(span for span in found if span is not None))


def _dates(text: str) -> Iterator[Span | None]:
    for pattern in (_ISO, _CHINESE):
        for hit in pattern.finditer(text):
            yield _span(hit["year"], hit["month"], hit["day"])
    for hit in _OF_A_YEAR.finditer(_WRITTEN.sub(" ", text)):
        yield _span(hit["year"], _number(hit["month"]), None)
    for hit in _WHOLE_YEAR.finditer(text):
        yield _span(hit["year"], None, None)


def _months(text: str, asked: datetime, first: datetime) -> Iterator[Span | None]:
    """Days and months, of every year of the log where none is named."""
    years = range(first.year, asked.year + 1)
    for hit in _WRITTEN.finditer(text):
        year, month, day = hit["year"] or hit["third"], hit["month"] or hit["first"], hit["day"] or hit["second"]
        for one in [year] if year else years:
            yield _span(one, _number(month), day)
    for hit in _NAMED.finditer(text):
        for one in years:
            yield _span(one, _number(hit["month"]), None)


def _relative(text: str, asked: datetime) -> Iterator[Span | None]:
    today = asked.replace(hour=0, minute=0, second=0, microsecond=0)
    for hit in _AGO.finditer(text):
        given = hit["number"].casefold()
        length = _LENGTHS[hit["unit"].casefold()]
        middle = today - timedelta(days=length * (int(given) if given.isdigit() else _NUMBERS[given]))
        around = timedelta(days=length * 0.5 if length > 1 else 0)
        yield Span(middle - around, middle + around + timedelta(days=1))
    for hit in _LAST.finditer(text):
        unit = (hit["unit"] or "day").casefold()
        if unit in _DAYS:
            day = today - timedelta(days=(today.weekday() - _DAYS.index(unit)) % 7 or 7)
            yield Span(day, day + timedelta(days=1))
        elif unit == "day":
            yield Span(today - timedelta(days=1), today)
        else:
            yield Span(asked - timedelta(days=_LENGTHS[unit] * 2), asked)


def _number(month: str) -> int:
    return next(at for at, name in enumerate(_MONTHS, 1) if name.startswith(month.casefold()[:3]))


def _span(year: str | int, month: str | int | None, day: str | None) -> Span | None:
    """A day, a month or a year; None where the calendar has none such."""
    try:
        begin = datetime(int(year), int(month or 1), int(day or 1), tzinfo=UTC)
    except ValueError:
        return None
    if day:
        return Span(begin, begin + timedelta(days=1))
    if month:
        return Span(begin, datetime(begin.year + begin.month // 12, begin.month % 12 + 1, 1, tzinfo=UTC))
    return Span(begin, datetime(begin.year + 1, 1, 1, tzinfo=UTC))
