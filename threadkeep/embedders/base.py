"""What is asked of an embedder: texts in, vectors of length 1 out."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from threadkeep.memory.index import Matrix


@runtime_checkable
class Embedder(Protocol):
    """Embeds texts. It may be called from any thread."""

    @property
    def name(self) -> str:
        """Names the model: vectors of different names are never compared. At most 255 characters."""

    def embed(self, texts: Sequence[str]) -> "Matrix":
        """The texts' vectors, shape (texts, dimensions), float32, each of length 1.

        Raises:
            EmbedderError: it failed; nothing is lost, and upkeep tries again.
        """
