"""Text to the terms it is found by: Unicode words, stemmed, and pairs of characters where a script has no blanks."""

import re
import threading
import unicodedata
from collections import Counter
from functools import lru_cache

import snowballstemmer

ANALYSER = 1
"""Stored with each branch: terms made by another version are made anew before they are searched."""
TERM_LENGTH = 64
"""Characters that are kept of a term."""

_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
_PIECE = re.compile(rf"[{_UNSPACED}]+|[^\W_{_UNSPACED}]+")
_IS_UNSPACED = re.compile(rf"[{_UNSPACED}]")
_STOP = frozenset(
    (
        "a about after all also am an and any are as at be because been but by can could did do does for from had has "
        "have he her him his how i if in into is it its just me my no not of on or our out she so some than that the "
        "their them then there these they this to up us was we were what when where which who will with would you your"
    ).split()
)
_stemmer = threading.local()


@lru_cache(maxsize=50_000)
def _stem(word: str) -> str:
    """Porter2; a stemmer object is not safe to share between threads."""
    if not hasattr(_stemmer, "english"):
        _stemmer.english = snowballstemmer.stemmer("english")
    return str(_stemmer.english.stemWord(word))


def terms(text: str) -> Counter[str]:
    """The terms of a text and how often each stands in it.

    Words are folded (NFKC, case) and stemmed (Snowball's English stemmer, which leaves other languages' words mostly alone), stop
    words left out; a run of Chinese, Japanese or Korean gives its overlapping pairs of characters, as Lucene's CJK analyser does.
    """
    found: Counter[str] = Counter()
    for piece in _PIECE.findall(unicodedata.normalize("NFKC", text).casefold()):
        if not _IS_UNSPACED.match(piece):
            if piece not in _STOP:
                found[_stem(piece)[:TERM_LENGTH]] += 1
        elif len(piece) == 1:
            found[piece] += 1
        else:
            found.update(piece[at : at + 2] for at in range(len(piece) - 1))
    return found
