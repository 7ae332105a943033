"""What holds for every embedder: a vector of length 1 for each text, the same for the same text, from any thread."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from threadkeep.embedders.base import Embedder

TEXTS = (
    "My hen is called Ada.",
    "It rains in Lisbon.",
    "",
    " \n",
    "NUL \0 inside, and a lone \ud800 surrogate",
    "👩\u200d👧 emoji 🙂, 日本語",
    "so it goes on " * 2000,
)
NEAR = 0.999
"""The least cosine of two vectors of one text: what else stands in a batch may change the last digits."""


class EmbedderContract:
    """What holds for every embedder: override the fixture `embedder`."""

    @pytest.fixture
    def embedder(self) -> Embedder:
        """The embedder to test."""
        raise NotImplementedError("override the fixture `embedder`")

    def test_it_is_an_embedder(self, embedder: Embedder) -> None:
        assert isinstance(embedder, Embedder)
        assert 0 < len(embedder.name) <= 255
        assert embedder.name == embedder.name

    def test_every_text_has_a_vector_of_length_1(self, embedder: Embedder) -> None:
        made = embedder.embed(TEXTS)
        assert made.dtype == np.float32
        assert made.shape == (len(TEXTS), embedder.embed(TEXTS[:1]).shape[1])
        assert np.linalg.norm(made, axis=1) == pytest.approx(np.ones(len(TEXTS)), abs=1e-5)

    def test_no_texts_have_no_vectors(self, embedder: Embedder) -> None:
        made = embedder.embed([])
        assert made.dtype == np.float32
        assert made.ndim == 2
        assert len(made) == 0

    def test_the_same_text_has_the_same_vector_whatever_stands_beside_it(self, embedder: Embedder) -> None:
        together = embedder.embed([*TEXTS, *reversed(TEXTS)])
        alone = np.concatenate([embedder.embed([text]) for text in TEXTS])
        assert (together[: len(TEXTS)] * alone).sum(axis=1).min() > NEAR
        assert (together[len(TEXTS) :][::-1] * alone).sum(axis=1).min() > NEAR

    def test_other_texts_have_other_vectors(self, embedder: Embedder) -> None:
        hen, rain = embedder.embed(TEXTS[:2])
        assert hen @ rain < NEAR

    def test_it_can_be_asked_from_several_threads_at_once(self, embedder: Embedder) -> None:
        texts = [f"{text} {number}" for number in range(8) for text in TEXTS[:2]]
        wanted = embedder.embed(texts)
        with ThreadPoolExecutor(4) as threads:
            found = np.concatenate(list(threads.map(lambda text: embedder.embed([text]), texts)))
        assert (found * wanted).sum(axis=1).min() > NEAR
