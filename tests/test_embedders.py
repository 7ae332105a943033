"""Embedders: the one of sentence-transformers with the real model, the hashing one, and what both must hold to."""

import importlib.util
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from conftest import FakeLibrary

from threadkeep import Embedder, EmbedderError, InvalidSetting, MissingExtra, ModelUnavailable, SentenceTransformerEmbedder
from threadkeep.embedders.hashed import HashedEmbedder
from threadkeep.models.fetch import locate
from threadkeep.testing import EmbedderContract

MODEL = "all-minilm-l6-v2"
INSTALLED = importlib.util.find_spec("sentence_transformers") is not None
needs_the_library = pytest.mark.skipif(
    not INSTALLED, reason="sentence-transformers is not installed, so its embedder is not tested: `make setup` says how to install it"
)


class TestHashedEmbedder(EmbedderContract):
    @pytest.fixture
    def embedder(self) -> Embedder:
        return HashedEmbedder()

    def test_texts_that_share_words_are_near(self, embedder: Embedder) -> None:
        hen, question, rain = embedder.embed(["My hen is called Ada.", "What is my hen called?", "It rains in Lisbon."])
        assert hen @ question > 0.5 > abs(hen @ rain)


@pytest.fixture(scope="module")
def minilm() -> Embedder:
    """One for all tests: the model stays loaded between them."""
    return SentenceTransformerEmbedder()


@pytest.mark.model
@needs_the_library
class TestSentenceTransformerEmbedder(EmbedderContract):
    @pytest.fixture
    def embedder(self, minilm: Embedder) -> Embedder:
        return minilm

    def test_texts_that_mean_the_same_are_near(self, embedder: Embedder) -> None:
        coast, beach, tax = embedder.embed(["We spent July at the seaside.", "Summer holidays on the beach", "The tax form is late."])
        assert coast @ beach > 0.5 > coast @ tax

    def test_a_text_is_read_as_far_as_the_model_was_made_for(self, embedder: Embedder) -> None:
        told = "My hen is called Ada. " * 100
        cut, longer, short = embedder.embed([told, told + "It rains in Lisbon.", "My hen is called Ada."])
        assert cut @ longer > 0.999 > cut @ short

    def test_the_vectors_are_those_of_the_library_in_full_precision(self, embedder: Embedder) -> None:
        from sentence_transformers import SentenceTransformer

        texts = ["My hen is called Ada.", "It rains in Lisbon.", "so it goes on " * 100]
        wanted = SentenceTransformer(str(locate(MODEL))).encode(texts, normalize_embeddings=True, show_progress_bar=False)
        assert (embedder.embed(texts) * wanted).sum(axis=1).min() > 0.99

    def test_bfloat16_changes_little(self, embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
        from threadkeep.embedders import sentence_model

        texts = ["My hen is called Ada.", "It rains in Lisbon.", "so it goes on " * 20]
        wanted = embedder.embed(texts)
        for halves in (True, False):
            model = sentence_model.model_in(locate(MODEL).resolve())
            monkeypatch.setattr(model, "_halves", halves)
            found = model.embed(texts)
            assert (wanted * found).sum(axis=1) / np.linalg.norm(found, axis=1) == pytest.approx(np.ones(3), abs=1e-3)

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork()")
    def test_a_forked_child_embeds_as_its_parent_does(self) -> None:
        done = subprocess.run([sys.executable, "-c", FORKED], check=False, capture_output=True, text=True, timeout=110)
        assert (done.returncode, done.stdout, done.stderr) == (0, "same\n", "")


FORKED = """
import os
import warnings
from threadkeep import SentenceTransformerEmbedder
embedder = SentenceTransformerEmbedder()
texts = ["My hen is called Ada."] * 64
before = embedder.embed(texts)
warnings.simplefilter("ignore")  # a process with threads is warned of fork()
child = os.fork()
if child == 0:
    os._exit(0 if (embedder.embed(texts) * before).sum(axis=1).min() > 0.999 else 1)
print("same" if os.waitpid(child, 0)[1] == 0 and (embedder.embed(texts) == before).all() else "other")
"""


def test_importing_the_library_loads_nothing_slow() -> None:
    loaded = f"import sys, threadkeep; print([name for name in {['numpy', 'torch', 'sentence_transformers']} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", loaded], check=True, capture_output=True, text=True, timeout=60).stdout == "[]\n"


# ---- around the model: a library stands in for sentence-transformers that embeds by three words ----


@pytest.fixture
def folder(fake_sentence_transformers: object, tmp_path: Path) -> Path:
    """A folder that stands for a model."""
    made = tmp_path / "model"
    (made / "1_Pooling").mkdir(parents=True)
    (made / "config.json").write_text("{}")
    (made / "1_Pooling" / "config.json").write_text("{}")
    (made / "model.safetensors").write_bytes(bytes(1000))
    return made


def test_the_model_is_loaded_when_it_is_first_needed_and_shared(folder: Path, fake_sentence_transformers: FakeLibrary) -> None:
    first, second = SentenceTransformerEmbedder(folder), SentenceTransformerEmbedder(str(folder), batch=1)
    assert first.name == second.name
    assert first.embed([]).shape == (0, 0)
    assert fake_sentence_transformers.loaded == []
    assert first.embed(["a hen"]).shape == second.embed(["a hen"]).shape == (1, 3)
    assert fake_sentence_transformers.loaded == [str(folder)]


def test_one_model_is_loaded_however_many_threads_ask_first(folder: Path, fake_sentence_transformers: FakeLibrary) -> None:
    embedders = [SentenceTransformerEmbedder(folder) for _ in range(8)]
    threads = [threading.Thread(target=embedder.embed, args=(["rain"],)) for embedder in embedders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert fake_sentence_transformers.loaded == [str(folder)]


def test_the_model_reads_the_longest_texts_first_a_batch_at_a_time(folder: Path, fake_sentence_transformers: FakeLibrary) -> None:
    texts = ["hen", "boat " * 3, "rain " * 2, "hen " * 5, "boat"]
    found = SentenceTransformerEmbedder(folder, batch=2).embed(texts)
    assert [len(asked) for asked in fake_sentence_transformers.asked] == [2, 2, 1]
    assert fake_sentence_transformers.asked[0] == ["hen " * 5, "boat " * 3]
    assert found.argmax(axis=1).tolist() == [0, 1, 2, 0, 1]


def test_what_no_encoding_can_hold_is_read_as_a_sign_for_it(folder: Path, fake_sentence_transformers: FakeLibrary) -> None:
    SentenceTransformerEmbedder(folder).embed(["lone \ud800 surrogate, \ud83d\ude42, NUL \0"])
    assert fake_sentence_transformers.asked == [["lone \ufffd surrogate, 🙂, NUL \0"]]


def test_a_text_is_handed_over_as_far_as_the_model_can_see(folder: Path, fake_sentence_transformers: FakeLibrary) -> None:
    SentenceTransformerEmbedder(folder).embed(["hen " * 1_000_000])
    assert len(fake_sentence_transformers.asked[0][0]) == 256 * 100


def test_the_name_of_a_folder_follows_what_makes_its_vectors(folder: Path, tmp_path: Path) -> None:
    name = SentenceTransformerEmbedder(folder).name
    elsewhere = shutil.copytree(folder, tmp_path / "elsewhere" / "model")
    (elsewhere / "README.md").write_text("A model.")
    assert SentenceTransformerEmbedder(elsewhere).name == name
    (elsewhere / "model.safetensors").write_bytes(bytes(999) + b"\1")
    assert SentenceTransformerEmbedder(elsewhere).name != name
    assert name.startswith("model@")


def test_a_registered_model_is_named_as_the_registry_does(fake_sentence_transformers: object) -> None:
    assert SentenceTransformerEmbedder().name == MODEL


def test_a_model_that_cannot_be_loaded_is_an_error_with_its_words(folder: Path, fake_sentence_transformers: FakeLibrary) -> None:
    fake_sentence_transformers.fails = "no weights in there"
    with pytest.raises(EmbedderError, match=r"model could not be loaded: OSError: no weights in there$"):
        SentenceTransformerEmbedder(folder).embed(["hen"])


def test_a_model_that_fails_is_an_error_with_its_words(folder: Path, fake_sentence_transformers: FakeLibrary) -> None:
    embedder = SentenceTransformerEmbedder(folder)
    embedder.embed(["hen"])
    fake_sentence_transformers.fails = "out of memory"
    with pytest.raises(EmbedderError, match=r"^the model could not read 2 texts: RuntimeError: out of memory$"):
        embedder.embed(["hen", "boat"])


def test_vectors_that_are_no_numbers_are_an_error(folder: Path, fake_sentence_transformers: FakeLibrary) -> None:
    embedder = SentenceTransformerEmbedder(folder)
    for number in (0.0, float("nan"), float("inf")):
        fake_sentence_transformers.number = number
        with pytest.raises(EmbedderError, match="zero or no numbers"):
            embedder.embed(["hen"])


def test_a_model_that_cannot_be_fetched_is_an_error_of_the_embedder(
    fake_sentence_transformers: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(model: str, cache: Path | None) -> Path:
        raise ModelUnavailable(f"{model} is not here and could not be fetched")

    monkeypatch.setattr("threadkeep.embedders.sentence_transformer.locate", away)
    with pytest.raises(EmbedderError, match=f"^{MODEL} is not here and could not be fetched$"):
        SentenceTransformerEmbedder(cache=tmp_path).embed(["hen"])


def test_what_no_call_can_honour_is_refused(folder: Path) -> None:
    for batch in (0, True, 1.5):
        with pytest.raises(InvalidSetting, match=r"batch=.*a whole number from 1"):
            SentenceTransformerEmbedder(folder, batch=batch)  # type: ignore[arg-type]
    with pytest.raises(InvalidSetting, match="that is a model for chat, not for embeddings"):
        SentenceTransformerEmbedder("smollm2-135m")
    with pytest.raises(ModelUnavailable, match="no model named 'nothing'"):
        SentenceTransformerEmbedder("nothing")
    with pytest.raises(InvalidSetting, match="a file, where the folder of a model is wanted"):
        SentenceTransformerEmbedder(folder / "config.json")


def test_a_missing_library_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"pip install 'threadkeep\[embeddings\]'"):
        SentenceTransformerEmbedder()
