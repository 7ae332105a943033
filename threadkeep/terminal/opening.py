"""What a command opens: a database by URL or path, and the local model."""

from pathlib import Path

from rich.console import Console
from sqlalchemy import make_url
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError

from threadkeep.backends.base import Backend
from threadkeep.backends.llama_cpp import LlamaCpp
from threadkeep.embedders.base import Embedder
from threadkeep.memory.errors import InvalidSetting, NotFound
from threadkeep.memory.memory import Memory
from threadkeep.stores.engine import masked
from threadkeep.stores.sql import SQLStore


def open_backend(console: Console, model: str, window: int, cache: Path | None, *, temperature: float = 0.7) -> Backend:
    """The local model, fetched and loaded now rather than in the first turn. Whoever opens it closes it."""
    backend = LlamaCpp(model, window=window, parallel=1, temperature=temperature, cache=cache)
    _ = backend.counter  # fetches the model, with a bar of its own, where it is not here yet
    with console.status(f"[dim]loading {backend.name} …"):
        _ = backend.profile
    return backend


def open_stored(database: str, embedder: Embedder | None = None) -> Memory:
    """A memory that only looks at what is stored: it loads no model that answers, and makes no database."""
    return Memory(open_store(database), embedder=embedder, upkeep=False)


def open_store(database: str) -> SQLStore:
    """A database that is there."""
    url = database_url(database)
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").is_file():
        place = url.database or "in memory"
        raise NotFound(f"there is no database {place}: name another with --database, or begin one with `threadkeep chat`")
    return SQLStore(url)


def database_url(database: str) -> URL:
    """A URL as it is, and a SQLite file's path as one."""
    if "://" not in database:
        return URL.create("sqlite", database=str(Path(database).expanduser()))
    try:
        return make_url(database)
    except (ArgumentError, ValueError):
        raise InvalidSetting(f"{masked(database)!r} is no database URL: write sqlite:///chat.db, for example") from None
