"""The cache of embeddings: nothing twice, in order, for several processes; and the strategy that ranks by them."""

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from conftest import FakeLibrary

from threadkeep import Budget, Embedder, InvalidSetting, Memory, Message, MissingExtra, ModelUnavailable, StoreError
from threadkeep.embedders.hashed import HashedEmbedder
from threadkeep.experiments.dense import DenseTurns
from threadkeep.experiments.embeddings import BATCH, CachedEmbedder, EmbeddingCache, Vectors
from threadkeep.experiments.named import named


class Model:
    """Three numbers a text, and the record of what it was asked."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def __call__(self, texts: list[str]) -> Vectors:
        self.asked.append(texts)
        return np.array([[len(text), text.count("e") / 3, -1.0] for text in texts], dtype=np.float32)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "embeddings.db"


def test_embeddings_come_in_the_order_of_the_texts(path: Path) -> None:
    made = EmbeddingCache(path, "m").embed(["three", "to", "three", ""], Model())
    assert made.shape == (4, 3)
    assert made.dtype == np.float32
    assert made[:, 0].tolist() == [5, 2, 5, 0]


def test_only_unknown_texts_are_computed_and_each_once(path: Path) -> None:
    model = Model()
    EmbeddingCache(path, "m").embed(["a", "b", "a"], model)
    EmbeddingCache(path, "m").embed(["b", "c", "a"], model)
    EmbeddingCache(path, "m").embed(["c", "a"], model)
    assert model.asked == [["a", "b"], ["c"]]


def test_the_first_run_gets_the_numbers_of_the_second(path: Path) -> None:
    first = EmbeddingCache(path, "m").embed(["one", "eleven"], Model())
    second = EmbeddingCache(path, "m").embed(["one", "eleven"], Model())
    assert first.tobytes() == second.tobytes()
    assert first[0, 1] == np.float32(np.float16(1 / 3))


def test_models_share_nothing(path: Path) -> None:
    model = Model()
    EmbeddingCache(path, "m").embed(["a"], model)
    EmbeddingCache(path, "n").embed(["a"], model)
    assert model.asked == [["a"], ["a"]]


def test_many_texts_are_computed_in_batches_that_are_kept_one_by_one(path: Path) -> None:
    texts = [f"text {number}" for number in range(2 * BATCH + 1)]
    broken = Model()

    def breaks(given: list[str]) -> Vectors:
        if broken.asked:
            raise KeyboardInterrupt
        return broken(given)

    with pytest.raises(KeyboardInterrupt):
        EmbeddingCache(path, "m").embed(texts, breaks)
    model = Model()
    assert EmbeddingCache(path, "m").embed(texts, model)[:, 0].tolist() == [len(text) for text in texts]
    assert [len(asked) for asked in model.asked] == [BATCH, 1]


def test_a_text_that_is_no_unicode_has_an_embedding(path: Path) -> None:
    assert EmbeddingCache(path, "m").embed(["\ud83d", "\0"], Model()).shape == (2, 3)


def test_no_texts_have_no_embeddings(path: Path) -> None:
    assert EmbeddingCache(path, "m").embed([], Model()).shape == (0, 0)
    assert not path.exists()


def test_an_error_of_the_model_goes_through(path: Path) -> None:
    def fails(texts: list[str]) -> Vectors:
        raise OSError("the model's file is gone")

    with pytest.raises(OSError, match=r"^the model's file is gone$"):
        EmbeddingCache(path, "m").embed(["a"], fails)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (np.ones((1, 3)), r"shape \(1, 3\) for 2 texts"),
        (np.ones(2), r"shape \(2,\)"),
        (np.full((2, 3), np.nan), "float16 cannot hold"),
        (np.full((2, 3), 1e6), "float16 cannot hold"),
    ],
)
def test_what_is_no_embedding_is_refused_and_not_kept(path: Path, given: Vectors, problem: str) -> None:
    with pytest.raises(InvalidSetting, match=problem):
        EmbeddingCache(path, "m").embed(["a", "b"], lambda texts: given)
    model = Model()
    EmbeddingCache(path, "m").embed(["a", "b"], model)
    assert model.asked == [["a", "b"]]


def test_another_model_under_the_same_name_is_noticed(path: Path) -> None:
    EmbeddingCache(path, "m").embed(["a"], Model())
    with pytest.raises(InvalidSetting, match=r"holds embeddings of 4, 6 bytes for the model 'm'"):
        EmbeddingCache(path, "m").embed(["a", "b"], lambda texts: np.ones((len(texts), 2), dtype=np.float32))


def test_a_model_has_a_name(path: Path) -> None:
    with pytest.raises(InvalidSetting, match="the name of the model"):
        EmbeddingCache(path, "")


def test_a_damaged_file_is_named(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("no database " * 100)
    with pytest.raises(StoreError, match=r"embeddings\.db is damaged or no cache of embeddings .*delete it"):
        EmbeddingCache(path, "m").embed(["a"], Model())


def test_a_file_damaged_in_the_middle_is_named(path: Path) -> None:
    texts = [f"text {number}" for number in range(2000)]
    EmbeddingCache(path, "m").embed(texts, Model())
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + b"\xff" * (len(whole) - 4096))
    with pytest.raises(StoreError, match=r"embeddings\.db is damaged"):
        EmbeddingCache(path, "m").embed(texts, Model())


def test_a_place_that_cannot_hold_a_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="choose another file"):
        EmbeddingCache(tmp_path, "m").embed(["a"], Model())
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="choose another file"):
        EmbeddingCache(tmp_path / "file" / "cache.db", "m").embed(["a"], Model())


def test_two_who_compute_the_same_text_at_once_get_the_same(path: Path) -> None:
    both = threading.Barrier(2)
    made: list[Vectors] = []

    def embed(value: float) -> None:
        def compute(texts: list[str]) -> Vectors:
            both.wait(timeout=30)  # both have looked and found nothing
            return np.full((len(texts), 4), value, dtype=np.float32)

        made.append(EmbeddingCache(path, "m").embed(["a", "b"], compute))

    threads = [threading.Thread(target=embed, args=(value,)) for value in (1.0, 2.0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 2
    assert made[0].tobytes() == made[1].tobytes()


PROCESS = """
import sys
import numpy as np
from threadkeep.experiments.embeddings import EmbeddingCache
for at in range(25):
    texts = [f"text {at} {number}" for number in range(20)]
    made = EmbeddingCache(sys.argv[1], "m").embed(texts, lambda given: np.array([[float(text.split()[2]), 1] for text in given]))
    assert made[:, 0].tolist() == list(range(20))
"""


def test_two_processes_share_a_file(path: Path) -> None:
    running = [subprocess.Popen([sys.executable, "-c", PROCESS, str(path)]) for _ in range(2)]
    assert [process.wait(timeout=60) for process in running] == [0, 0]


def test_an_embedder_with_a_cache_is_an_embedder(path: Path) -> None:
    cached = CachedEmbedder(HashedEmbedder(), path)
    assert isinstance(cached, Embedder)
    assert cached.name == HashedEmbedder().name
    texts = ["My hen is called Ada.", "What is my hen called?", ""]
    assert np.abs(cached.embed(texts) - HashedEmbedder().embed(texts)).max() < 1e-3
    assert np.linalg.norm(cached.embed(texts), axis=1) == pytest.approx(np.ones(3), abs=1e-6)
    assert cached.embed(texts).tobytes() == CachedEmbedder(HashedEmbedder(), path).embed(texts).tobytes()
    assert cached.embed([]).shape == (0, 0)


@pytest.fixture
def model(fake_sentence_transformers: FakeLibrary, tmp_path: Path) -> Path:
    """A folder that stands for a model."""
    (tmp_path / "model").mkdir()
    return tmp_path / "model"


def test_the_dense_baseline_keeps_what_is_nearest_to_the_question(model: Path, path: Path, memory: Memory) -> None:
    session = memory.session("farm")
    for text in ("My boat is blue.", "The hen is called Ada.", "It will rain.", "Nothing new."):
        session.append(Message.user(text + " So it is." * 20), Message.assistant("I see." * 30))
    strategy = named(f"DenseTurns(model={str(model)!r}, cache={str(path)!r})").strategy
    context = session.context("What is my hen called?", strategy=strategy, budget=Budget(150))
    (pick,) = (pick for pick in context.picks if pick.score is not None)
    assert pick.seqs == (3,)
    assert pick.score == pytest.approx(1, abs=1e-3)
    assert "Ada" in context.typed_messages()[0].text


def test_the_dense_baseline_loads_no_model_where_all_is_known(
    model: Path, fake_sentence_transformers: FakeLibrary, path: Path, memory: Memory
) -> None:
    session = memory.session("farm")
    session.append(Message.user("The hen is called Ada. " * 100), Message.assistant("I see. " * 100))
    first = session.context("And the boat?", strategy=DenseTurns(str(model), str(path)), budget=Budget(600))
    assert fake_sentence_transformers.loaded == [str(model)]
    fake_sentence_transformers.fails = "it is not to be asked"
    again = session.context("And the boat?", strategy=DenseTurns(str(model), str(path)), budget=Budget(600))
    assert again.messages == first.messages


def test_the_dense_baseline_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"pip install 'threadkeep\[embeddings\]'"):
        DenseTurns()


def test_the_dense_baseline_takes_a_model_for_embeddings_alone(model: Path) -> None:
    with pytest.raises(InvalidSetting, match="that is a model for chat, not for embeddings"):
        DenseTurns("smollm2-135m")
    with pytest.raises(ModelUnavailable, match="no model named 'nothing'"):
        DenseTurns("nothing")
