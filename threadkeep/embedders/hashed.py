"""An embedder without a model, for tests and examples: texts that share words are near."""

import re
from collections.abc import Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING

from threadkeep.memory.money import FREE, Price

if TYPE_CHECKING:
    from threadkeep.memory.index import Matrix

DIMENSIONS = 256
_WORD = re.compile(r"\w+")


class HashedEmbedder:
    """For tests and examples: texts that share words are near; no model.

    Each word adds its number of letters to one of 256 places, or takes it away (feature hashing: Weinberger et al., 2009). The same
    text has the same vector in any process, whatever stands beside it.
    """

    price: Price | None = FREE

    @property
    def name(self) -> str:
        return "hashed-words-256"

    def embed(self, texts: Sequence[str]) -> "Matrix":
        """The texts' vectors, shape (texts, 256), float32, each of length 1; texts without a word share one."""
        import numpy as np  # importing threadkeep does not

        made = np.zeros((len(texts), DIMENSIONS), dtype=np.float32)
        for at, text in enumerate(texts):
            for word in sorted(set(_WORD.findall(text.casefold()))):
                place, weight = _hashed(word)
                made[at, place] += weight
        lengths = np.linalg.norm(made, axis=1, keepdims=True)
        made[lengths[:, 0] == 0, 0] = lengths[lengths == 0] = 1  # without words, or where two words take each other away
        made /= lengths
        return made


def _hashed(word: str) -> tuple[int, int]:
    """A word's place in the vector, and what it adds there."""
    digest = blake2b(word.encode("utf-8", "surrogatepass"), digest_size=4).digest()
    return int.from_bytes(digest[:2], "big") % DIMENSIONS, len(word) if digest[2] % 2 else -len(word)
