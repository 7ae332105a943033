"""Embeddings on disk, by model and text, so that a second run computes none of them again."""

import hashlib
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TypeAlias

import numpy as np

from threadkeep import Embedder, InvalidSetting, StoreBusy, StoreError

Vectors: TypeAlias = "np.ndarray[tuple[int, int], np.dtype[np.float32]]"
Compute: TypeAlias = Callable[[list[str]], Vectors]
"""Texts to their embeddings, shape (texts, dimensions)."""

BATCH = 256
"""Texts computed at a time; each batch is kept before the next begins."""
WAIT_SECONDS = 60
"""How long another process's write is waited for."""
_LOOKED_UP = 500
"""Keys in one statement: SQLite before 3.32 takes no more than 999 parameters."""


class EmbeddingCache:
    """A file of embeddings, kept as float16 under the model's name and the sha256 of the text. The texts are not in it.

    Several processes and threads may use one file. Where two compute the same text at once, the first that writes is believed by both.

    Args:
        path: the file; made with its folder where it is missing.
        model: which model computes; names that differ share nothing.
    """

    def __init__(self, path: Path | str, model: str) -> None:
        if not model:
            raise InvalidSetting("an embedding cache takes the name of the model that computes")
        self._path = Path(path).expanduser()
        self._model = model

    def embed(self, texts: Sequence[str], compute: Compute) -> Vectors:
        """The texts' embeddings, shape (texts, dimensions), float32 of float16's precision; the unknown are computed, each text once.

        What is returned is always what the file holds: the first run gets the very numbers that the second gets. Of no texts the
        dimensions are 0.

        Raises:
            InvalidSetting: `compute` gave another shape than it was asked for, or other dimensions than the file holds for this model.
            StoreBusy: another process held the file for longer than a minute.
            StoreError: the file is damaged, no cache of embeddings, or cannot be written.
        """
        if not texts:
            return np.zeros((0, 0), dtype=np.float32)
        keys = [hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest() for text in texts]
        wanted = dict(zip(keys, texts, strict=True))
        with self._opened() as connection:
            found = self._read(connection, list(wanted))
        for batch in _batches([key for key in wanted if key not in found], BATCH):
            vectors = self._checked(compute([wanted[key] for key in batch]), len(batch))
            with self._opened() as connection:
                self._write(connection, batch, vectors)
                found |= self._read(connection, batch)
        sizes = sorted({len(vector) for vector in found.values()})
        if len(sizes) > 1 or sizes[0] % 2:
            listed = ", ".join(f"{size:,}" for size in sizes)
            raise InvalidSetting(
                f"{self._path} holds embeddings of {listed} bytes for the model {self._model!r}, and a model has one size: "
                "name this model otherwise, or delete the file"
            )
        rows = b"".join(found[key] for key in keys)
        return np.frombuffer(rows, dtype="<f2").reshape(len(keys), -1).astype(np.float32)

    def _checked(self, given: Vectors, texts: int) -> "np.ndarray[tuple[int, ...], np.dtype[np.float16]]":
        """What `compute` gave, as it is kept."""
        made = np.asarray(given)
        if made.ndim != 2 or made.shape[0] != texts or made.shape[1] == 0:
            raise InvalidSetting(
                f"the model {self._model!r} gave embeddings of shape {made.shape} for {texts} texts, not ({texts}, dimensions)"
            )
        with np.errstate(over="ignore"):
            halves = made.astype("<f2")
        if not np.isfinite(halves).all():
            raise InvalidSetting(f"the model {self._model!r} gave a number that float16 cannot hold (over 65,504, infinite, or none)")
        return halves

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self._path, timeout=WAIT_SECONDS, isolation_level=None)) as connection:
                if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'embeddings'").fetchone():
                    connection.execute(
                        "CREATE TABLE IF NOT EXISTS embeddings "
                        "(model TEXT, text BLOB, vector BLOB NOT NULL, PRIMARY KEY (model, text)) WITHOUT ROWID"
                    )
                yield connection
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise StoreBusy(f"{self._path} was written by another process for over {WAIT_SECONDS} seconds: try again") from error
            raise StoreError(f"{self._path} cannot be used as a cache of embeddings ({error}): choose another file") from error
        except sqlite3.DatabaseError as error:
            raise StoreError(f"{self._path} is damaged or no cache of embeddings ({error}): delete it, and it is made anew") from error
        except OSError as error:
            raise StoreError(f"{self._path} cannot be made ({error}): choose another file") from error

    def _read(self, connection: sqlite3.Connection, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        found: dict[bytes, bytes] = {}
        for some in _batches(keys, _LOOKED_UP):
            statement = f"SELECT text, vector FROM embeddings WHERE model = ? AND text IN ({', '.join('?' * len(some))})"  # noqa: S608
            found.update(connection.execute(statement, (self._model, *some)).fetchall())
        return found

    def _write(
        self, connection: sqlite3.Connection, keys: Sequence[bytes], vectors: "np.ndarray[tuple[int, ...], np.dtype[np.float16]]"
    ) -> None:
        connection.execute("BEGIN IMMEDIATE")
        try:
            rows = [(self._model, key, vector.tobytes()) for key, vector in zip(keys, vectors, strict=True)]
            connection.executemany("INSERT OR IGNORE INTO embeddings VALUES (?, ?, ?)", rows)
            connection.execute("COMMIT")
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")


class CachedEmbedder:
    """An embedder whose vectors are kept in a file, so that a second run computes none; of float16's precision, each of length 1.

    Raises, beside what `inner` does, what `EmbeddingCache.embed` raises.
    """

    def __init__(self, inner: Embedder, path: Path | str) -> None:
        self._inner = inner
        self._path = path

    @property
    def name(self) -> str:
        return self._inner.name

    def embed(self, texts: Sequence[str]) -> Vectors:
        """The texts' vectors, shape (texts, dimensions), float32; of no texts, shape (0, 0)."""
        found = EmbeddingCache(self._path, self.name).embed(texts, self._inner.embed)
        found /= np.linalg.norm(found, axis=1, keepdims=True)
        return found


def default_path() -> Path:
    """Where embeddings are kept if nothing else is said: `experiments/embeddings.db` in the user's cache folder."""
    from platformdirs import user_cache_dir

    return Path(user_cache_dir("threadkeep")) / "experiments" / "embeddings.db"


def _batches(keys: Sequence[bytes], size: int) -> Iterator[Sequence[bytes]]:
    for at in range(0, len(keys), size):
        yield keys[at : at + size]
