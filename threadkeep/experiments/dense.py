"""A strategy to compare with that ranks by meaning: the messages whose embeddings are nearest to the question's."""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from threadkeep import Budget, History, InvalidSetting, MissingExtra, Pick
from threadkeep.experiments.baselines import fill, log
from threadkeep.models.fetch import check_name, locate
from threadkeep.models.registry import MODELS

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from threadkeep.experiments.embeddings import Vectors

AT_A_TIME = 32
"""Texts the model reads at once."""


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
        check_name(self.model)
        if self.model in MODELS and MODELS[self.model].kind != "embedding":
            raise InvalidSetting(f"DenseTurns({self.model!r}): that is a model for {MODELS[self.model].kind}, not for embeddings")
        if importlib.util.find_spec("sentence_transformers") is None:
            raise MissingExtra("sentence-transformers", "embeddings")

    def pick(self, history: History, budget: Budget) -> Sequence[Pick]:
        from threadkeep.experiments.embeddings import EmbeddingCache  # numpy is of an extra

        live, entries = history.live, log(history)
        if live is None or not entries:
            return []
        name = self.model if self.model in MODELS else str(Path(self.model).expanduser().resolve())
        texts = [live.message.text, *(entry.message.text for entry in entries)]
        found = EmbeddingCache(self.cache or _default_cache(), name).embed(texts, partial(_embedded, name))
        scores = [round(float(product), 6) for product in found[1:] @ found[0]]
        order = sorted(range(len(entries)), key=lambda at: (-scores[at], at))
        return fill([[entries[at]] for at in order], budget, [scores[at] for at in order], "near the question")


def _default_cache() -> Path:
    from platformdirs import user_cache_dir

    return Path(user_cache_dir("threadkeep")) / "experiments" / "embeddings.db"


def _embedded(name: str, texts: list[str]) -> "Vectors":
    """Embeddings of length 1, so that their product is the cosine; shape (texts, dimensions)."""
    made: Vectors = _model(name).encode(
        texts, batch_size=AT_A_TIME, normalize_embeddings=True, convert_to_numpy=True, show_progress_bar=False
    )
    return made


@lru_cache(maxsize=1)
def _model(name: str) -> "SentenceTransformer":
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(locate(name)))
