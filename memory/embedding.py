"""Texts to the vectors that are stored: whatever an embedder does, they are finite, of length 1 and of one width, or it is an error."""

from collections.abc import Sequence

from threadkeep.embedders.base import Embedder
from threadkeep.memory.errors import EmbedderError

LENGTH_TOLERANCE = 1e-2


def embed(embedder: Embedder, texts: Sequence[str]) -> list[bytes]:
    """The texts' vectors as stored: float16, low byte first.

    Raises:
        EmbedderError: the embedder failed, or gave what are no such vectors.
    """
    import numpy as np  # importing threadkeep does not

    if not texts:
        return []
    try:
        given = embedder.embed(texts)
        made = np.asarray(given, dtype=np.float32)
    except EmbedderError:
        raise
    except Exception as error:  # an embedder is anybody's code: whatever it raises, what is stored is safe
        raise EmbedderError(f"the embedder {embedder.name!r} failed on {len(texts)} texts: {type(error).__name__}: {error}") from error
    if made.ndim != 2 or made.shape[0] != len(texts) or not made.shape[1]:
        raise EmbedderError(
            f"the embedder {embedder.name!r} gave an array of shape {made.shape} for {len(texts)} texts: it is (texts, dimensions)"
        )
    lengths = np.linalg.norm(made, axis=1)
    wrong = np.flatnonzero(~(np.abs(lengths - 1) <= LENGTH_TOLERANCE))  # a NaN is wrong too
    if wrong.size:
        raise EmbedderError(
            f"the embedder {embedder.name!r} gave a vector of length {lengths[wrong[0]]:g} for text {wrong[0]}: each has length 1"
        )
    return [row.tobytes() for row in made.astype("<f2")]
