"""A sentence-transformers model in this process: loaded once, asked for one batch at a time, and loaded anew after a fork."""

import os
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from threadkeep.memory.errors import EmbedderError, MissingExtra

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from threadkeep.memory.index import Matrix

LETTERS = 100
"""A word of more characters is an unknown one to WordPiece: so many times the tokens that a model reads are all that it can see."""


class SentenceModel:
    """A loaded model. Any thread may ask; batches are read one after the other, in the order they came.

    It lives in a thread of its own: a thread of OpenMP's waits for each thread that ever asked, and in a forked child, where they are
    missing, only a new thread does not hang.
    """

    def __init__(self, folder: Path) -> None:
        self.pid = os.getpid()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="threadkeep-embedder")
        self._model = self._thread.submit(_load, folder).result()
        self._most = (self._model.max_seq_length or 2**20) * LETTERS
        self._halves = self._model.device.type == "cpu" and _has_bfloat16()

    def embed(self, texts: list[str]) -> "Matrix":
        """The texts' embeddings, read as one batch, of any length; shape (texts, dimensions), float32.

        Raises:
            EmbedderError: with the library's words.
        """
        readable = [text[: self._most].encode("utf-16", "surrogatepass").decode("utf-16", "replace") for text in texts]
        try:
            return self._thread.submit(_read, self._model, readable, self._halves).result()
        except Exception as error:
            raise EmbedderError(f"the model could not read {len(texts)} texts: {type(error).__name__}: {error}") from error


def _read(model: "SentenceTransformer", texts: list[str], halves: bool) -> "Matrix":
    import torch

    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=halves):
        found = model.encode(texts, batch_size=len(texts), convert_to_numpy=True, show_progress_bar=False)
    made: Matrix = found.astype("float32")
    return made


_loaded: "weakref.WeakValueDictionary[Path, SentenceModel]" = weakref.WeakValueDictionary()
_loading = threading.Lock()


def model_in(folder: Path) -> SentenceModel:
    """The model of this folder, loaded if none in this process holds it.

    Raises:
        EmbedderError: it could not be loaded; with the library's words.
        MissingExtra: sentence-transformers is not installed.
    """
    with _loading:
        model = _loaded.get(folder)
        if model is None:
            model = _loaded[folder] = SentenceModel(folder)
        return model


def _load(folder: Path) -> "SentenceTransformer":
    try:
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging
    except ImportError as error:
        raise MissingExtra("sentence-transformers", "embeddings") from error
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        return SentenceTransformer(str(folder), local_files_only=True)
    except Exception as error:
        raise EmbedderError(f"{folder} could not be loaded: {type(error).__name__}: {error}") from error
    finally:
        if bars:
            logging.enable_progress_bar()


def _has_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16: 2.2 times as fast as float32, and the vectors' cosine with float32's is over 0.9999."""
    import torch

    known: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()  # not in older releases
    return bool(known.get("avx512_bf16") or known.get("amx_bf16"))


def _forget() -> None:
    """In a forked child: the models' threads stayed with the parent, and so may have who held the lock."""
    global _loaded, _loading
    _loaded, _loading = weakref.WeakValueDictionary(), threading.Lock()
    if "tokenizers" in sys.modules:
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # its threads stayed behind too; unset, it says so on stderr


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
