"""Embeds with a model of sentence-transformers on this machine."""

import hashlib
import importlib.util
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from threadkeep.embedders.sentence_model import SentenceModel, model_in
from threadkeep.memory.errors import EmbedderError, InvalidSetting, MissingExtra, ModelUnavailable
from threadkeep.memory.money import FREE, Price
from threadkeep.models.fetch import check_name, locate
from threadkeep.models.registry import MODELS

if TYPE_CHECKING:
    from threadkeep.memory.index import Matrix

_MAKES_VECTORS = {".json", ".txt", ".model", ".safetensors", ".bin"}
"""Endings of the files in a model's folder that its vectors depend on."""


class SentenceTransformerEmbedder:
    """Embeds with a model on this machine, by the registry's name or the folder of a sentence-transformers model.

    The model is fetched and loaded when it is first needed; embedders of one model share it. On CPUs that multiply bfloat16 it does.
    A text's beginning is read, as far as the model was made for: 256 tokens for all-minilm-l6-v2, about 190 English words.

    Args:
        model: a name (`threadkeep models list`) or a folder's path.
        batch: texts that the model reads at once. Between two batches other threads' texts are read.
        cache: the folder of fetched models; None: the user's.

    Raises:
        InvalidSetting: an argument out of range, or the registered model is not for embeddings.
        MissingExtra: sentence-transformers is not installed.
        ModelUnavailable: no such name and no such folder.
    """

    price: Price | None = FREE

    def __init__(self, model: str | os.PathLike[str] = "all-minilm-l6-v2", *, batch: int = 32, cache: Path | None = None) -> None:
        if isinstance(batch, bool) or not isinstance(batch, int) or batch < 1:
            raise InvalidSetting(f"SentenceTransformerEmbedder(batch={batch!r}): a whole number from 1")
        check_name(model)
        self._model, self._batch, self._cache = os.fspath(model), batch, cache
        known = MODELS.get(self._model)
        if known is not None and known.kind != "embedding":
            raise InvalidSetting(f"SentenceTransformerEmbedder({self._model!r}): that is a model for {known.kind}, not for embeddings")
        if known is None and not Path(self._model).expanduser().is_dir():
            raise InvalidSetting(f"SentenceTransformerEmbedder({self._model!r}): a file, where the folder of a model is wanted")
        if importlib.util.find_spec("sentence_transformers") is None:
            raise MissingExtra("sentence-transformers", "embeddings")
        self._loaded: SentenceModel | None = None

    @cached_property
    def name(self) -> str:
        """The registry's name; or the folder's, with a hash of the files that make the vectors, which are read for it."""
        if self._model in MODELS:
            return self._model
        folder = Path(self._model).expanduser().resolve()
        try:
            return f"{folder.name[:200]}@{_digest(folder)}"
        except OSError as error:
            raise EmbedderError(f"{folder} could not be read: {error}") from error

    def embed(self, texts: Sequence[str]) -> "Matrix":
        """The texts' vectors, shape (texts, dimensions), float32, each of length 1; of no texts, shape (0, 0).

        Raises:
            EmbedderError: the model could not be fetched or loaded, or failed; with what it said.
        """
        import numpy as np

        if not texts:
            return np.zeros((0, 0), dtype=np.float32)
        model = self._ready()
        order = sorted(range(len(texts)), key=lambda at: -len(texts[at]))  # a batch takes as long as its longest text
        batches = [order[at : at + self._batch] for at in range(0, len(order), self._batch)]
        found = np.concatenate([model.embed([texts[at] for at in batch]) for batch in batches])
        lengths = np.linalg.norm(found, axis=1, keepdims=True)
        if not np.isfinite(lengths).all() or not lengths.all():
            raise EmbedderError(f"{self.name} gave vectors that are zero or no numbers, among those of {len(texts)} texts")
        made = np.empty_like(found)
        made[order] = found / lengths
        return made

    def _ready(self) -> SentenceModel:
        """The model; after a fork, this process's own."""
        loaded = self._loaded
        if loaded is None or loaded.pid != os.getpid():
            try:
                loaded = self._loaded = model_in(locate(self._model, cache=self._cache).resolve())
            except ModelUnavailable as error:
                raise EmbedderError(str(error)) from error
        return loaded


def _digest(folder: Path) -> str:
    """16 hexadecimal digits that stand for a model's files."""
    made = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.suffix in _MAKES_VECTORS and path.is_file()):
        made.update(f"{path.relative_to(folder).as_posix()}\0".encode("utf-8", "surrogateescape"))
        with path.open("rb") as file:
            made.update(hashlib.file_digest(file, "sha256").digest())
    return made.hexdigest()[:16]
