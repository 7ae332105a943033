"""Finds OpenAI's vocabularies: in tiktoken's cache, on OpenAI's server, or in the models' registry."""

import hashlib
import os
import shutil
import tempfile
import threading
from contextlib import suppress
from functools import cache
from pathlib import Path
from uuid import uuid4

import tiktoken
from tiktoken.model import MODEL_PREFIX_TO_ENCODING, MODEL_TO_ENCODING, encoding_name_for_model

from threadkeep.memory.errors import InvalidSetting, ModelUnavailable

VOCABULARIES = {name: f"https://openaipublic.blob.core.windows.net/encodings/{name}.tiktoken" for name in ("o200k_base", "cl100k_base")}
"""Where tiktoken fetches them from; it keeps each in its cache under the sha1 of this."""
CHAT = ("gpt", "chatgpt", "o")
"""What the names of chat models begin with, among all that tiktoken knows."""

_loading = threading.Lock()


def encoding_name(model: str) -> str:
    """The encoding of a chat model, or of itself.

    Raises:
        InvalidSetting: tiktoken knows no chat model of this name; lists those it knows.
    """
    if model in VOCABULARIES:
        return model
    try:
        name = encoding_name_for_model(model)
    except KeyError:
        name = ""
    if name not in VOCABULARIES:
        known = (MODEL_TO_ENCODING | MODEL_PREFIX_TO_ENCODING).items()
        chat = sorted({name.strip("-") for name, encoding in known if encoding in VOCABULARIES and name.startswith(CHAT)})
        raise InvalidSetting(
            f"no chat model of OpenAI is called {model!r}. Give one of {', '.join(chat)}, a dated name of one of these, "
            f"or an encoding: {', '.join(VOCABULARIES)}"
        )
    return name


@cache
def vocabulary(name: str) -> tiktoken.Encoding:
    """One vocabulary, loaded once a process; about 0.25 s.

    Raises:
        ModelUnavailable: it is not here and could not be fetched.
    """
    import requests  # what tiktoken fetches with

    with _loading:  # `cache` alone lets two threads begin to fetch at once
        kept = _kept_path(name)
        if kept.exists() or _answers(VOCABULARIES[name]):
            try:
                return tiktoken.get_encoding(name)
            except requests.RequestException:  # the kept file was broken, or the line failed half way
                kept.unlink(missing_ok=True)
        _keep(_from_registry(name, kept), kept)
        return tiktoken.get_encoding(name)


def _kept_path(name: str) -> Path:
    """Where tiktoken keeps a vocabulary: its own rule, environment included."""
    folder = os.environ.get("TIKTOKEN_CACHE_DIR", os.environ.get("DATA_GYM_CACHE_DIR"))
    if folder is None:
        folder = str(Path(tempfile.gettempdir(), "data-gym-cache"))
    if not folder:
        raise ModelUnavailable("TIKTOKEN_CACHE_DIR is empty, which turns tiktoken's cache off: unset it, or name a folder")
    return Path(folder, hashlib.sha1(VOCABULARIES[name].encode(), usedforsecurity=False).hexdigest())


def _answers(url: str) -> bool:
    """Whether the vocabulary's server is there: tiktoken itself would wait for it without end."""
    import requests  # what tiktoken fetches with

    try:
        return bool(requests.head(url, timeout=3).ok)
    except requests.RequestException:
        return False


def _from_registry(name: str, kept: Path) -> Path:
    from threadkeep.models.fetch import locate
    from threadkeep.models.registry import MODELS

    if name not in MODELS:
        raise ModelUnavailable(f"{VOCABULARIES[name]} cannot be reached: connect once, or put the file to {kept}")
    return locate(name)


def _keep(found: Path, kept: Path) -> None:
    """Copy a vocabulary into tiktoken's cache, whole or not at all; tiktoken checks its hash."""
    part = kept.with_name(f"{kept.name}.{uuid4()}.tmp")
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(found, part)
        part.replace(kept)
    except OSError as error:
        with suppress(OSError):  # where the folder itself could not be made
            part.unlink(missing_ok=True)
        raise ModelUnavailable(f"{kept} cannot be written ({error}): set TIKTOKEN_CACHE_DIR to a folder that can") from error
