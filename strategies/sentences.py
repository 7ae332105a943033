"""A text in sentences: where one ends, in scripts with blanks and without. None goes on behind the end of a line."""

import re
from collections.abc import Iterator

LONGEST = 400
"""Characters: what goes on longer (a tool's JSON, a log, a text without full stops) is cut at a comma, or at a blank."""

_END = re.compile(
    r"""(?<!\bMr\.)(?<!\bMrs\.)(?<!\bMs\.)(?<!\bDr\.)(?<!\bSt\.)(?<!\bvs\.)(?<!\be\.g\.)(?<!\bi\.e\.)  # abbreviations
    (?:(?<=[.!?…])|(?<=[.!?…]["'”’)\]]))\s+(?![a-z])  # nor does one end before a small letter
    |(?<=[。！？])
    |\s*[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]\s*""",
    re.VERBOSE,
)
_CUT = re.compile(r"[;,，、]\s*|\s+")


def sentences(text: str) -> list[str]:
    """The sentences of a text, in order, without the blanks around them; none is longer than `LONGEST`."""
    return [part for sentence in _END.split(text) if sentence and sentence.strip() for part in _parts(sentence.strip())]


def _parts(sentence: str) -> Iterator[str]:
    start = 0
    while len(sentence) - start > LONGEST:
        places = [found.end() for found in _CUT.finditer(sentence, start + LONGEST // 2, start + LONGEST)]
        end = places[-1] if places else start + LONGEST
        yield sentence[start:end].strip()
        start = end
    if rest := sentence[start:].strip():
        yield rest
