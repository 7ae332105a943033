"""A strategy to compare with that ranks by meaning: the messages whose embeddings are nearest to the question's."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from threadkeep import Budget, History, Pick, SentenceTransformerEmbedder
from threadkeep.experiments.baselines import fill, log

if TYPE_CHECKING:
    from threadkeep.experiments.embeddings import CachedEmbedder


@dataclass(frozen=True)
class DenseTurns:
    """The messages nearest to the question by the cosine of their embeddings (Reimers and Gurevych, 2019), as many as fit.

    Embeddings are kept in a file, without the texts: a second run computes none. A conversation's first question computes them all,
    and its milliseconds show it.

    Args:
        model: a registered embedding model's name, or the folder of a sentence-transformers model.
        cache: the file of embeddings; None: `experiments/embeddings.db` in the user's cache folder.

    Raises:
        InvalidSetting: the model is registered, and not for embeddings.
        MissingExtra: sentence-transformers is not installed.
        ModelUnavailable: there is no such model.
    """

    model: str = "all-minilm-l6-v2"
    cache: str | None = None

    def __post_init__(self) -> None:
        SentenceTransformerEmbedder(self.model)

    def pick(self, history: History, budget: Budget) -> Sequence[Pick]:
        live, entries = history.live, log(history)
        if live is None or not entries:
            return []
        found = self._embedder.embed([live.message.text, *(entry.message.text for entry in entries)])
        scores = [round(float(product), 6) for product in found[1:] @ found[0]]
        order = sorted(range(len(entries)), key=lambda at: (-scores[at], at))
        return fill([[entries[at]] for at in order], budget, [scores[at] for at in order], "near the question")

    @cached_property
    def _embedder(self) -> "CachedEmbedder":
        from threadkeep.experiments.embeddings import CachedEmbedder, default_path  # numpy is slow to import

        return CachedEmbedder(SentenceTransformerEmbedder(self.model), Path(self.cache) if self.cache else default_path())
