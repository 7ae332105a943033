"""The jobs of upkeep: vectors by an embedder, summaries by a strategy.

A step reads, then asks a model outside of any transaction, then stores what it gave together with how far the job has come.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import NamedTuple, Protocol, TypeAlias

from threadkeep.embedders.base import Embedder
from threadkeep.memory.embedding import embed
from threadkeep.memory.errors import EmbedderError, SummariserError
from threadkeep.memory.history import Summary
from threadkeep.memory.message import Message
from threadkeep.memory.spending import embedding_call, paying
from threadkeep.stores.jobs import Claim, Jobs
from threadkeep.stores.queries import SessionRow
from threadkeep.stores.sql import check_name
from threadkeep.stores.upkeep_queries import JobRow, kind_of
from threadkeep.strategies.base import Summarising

BATCH = 64
"""Texts that are embedded at once."""
SWEPT = 1000
"""Entries whose old vectors are deleted in one transaction."""
SPARE_TOKENS = 64
"""What a summary may cost beyond what it stands for: of a few short words there is none that is shorter."""
PLAIN = "Good morning."
"""A text that every embedder which works can embed."""
logger = logging.getLogger("threadkeep")


class Made(NamedTuple):
    """What a model gave."""

    save: Callable[[Claim], Claim | None]
    """Stores it in one transaction, if the claim still holds; None: it does not."""
    number: int
    """Vectors or summaries."""


Step: TypeAlias = Callable[[], Made]
"""A part of a job: asks the model, away from the database; may take minutes, or for ever."""


class Job(Protocol):
    """One kind of work on one session."""

    kind: str

    def next(self, session: SessionRow, done_seq: int) -> Step | None:
        """The next step; None: nothing is due."""


class Embedding:
    """Vectors of the entries that have none of this embedder; once all have one, those of other embedders are deleted."""

    def __init__(self, jobs: Jobs, embedder: Embedder, known: Mapping[str, JobRow]) -> None:
        self.kind = kind_of("embed", embedder.name)
        self._jobs, self._embedder, self._model = jobs, embedder, embedder.name
        others = any(kind != self.kind and kind.startswith("embed:") for kind in known)
        self._swept: int | None = 0 if others or self.kind not in known else None

    def next(self, session: SessionRow, done_seq: int) -> Step | None:
        entries = self._jobs.unembedded(session, self._model, done_seq, BATCH)
        if not entries:
            return self._sweep(session)
        texts = {entry.seq: text for entry in entries if (text := entry.message.text).strip()}
        tokens = sum(entry.tokens for entry in entries if entry.seq in texts)

        def make() -> Made:
            began = time.perf_counter()
            rows = self._vectors(texts)
            if rows and (account := paying()) is not None:
                account.note(embedding_call(self._embedder, tokens, began))
            return Made(lambda claim: self._jobs.save_vectors(claim, self._model, rows, entries[-1].seq), len(rows))

        return make

    def _vectors(self, texts: Mapping[int, str]) -> list[tuple[int, bytes]]:
        """Vectors by seq. A text that the embedder refuses while it takes others goes without, so that it stops nothing behind it."""
        try:
            return list(zip(texts, embed(self._embedder, list(texts.values())), strict=True))
        except EmbedderError:
            embed(self._embedder, [PLAIN])  # raises where it is not for the texts that it fails
        rows = []
        for seq, text in texts.items():
            try:
                rows += [(seq, vector) for vector in embed(self._embedder, [text])]
            except EmbedderError as error:
                embed(self._embedder, [PLAIN])
                logger.warning("entry %d of a session gets no vector: %s", seq, error)
        return rows

    def _sweep(self, session: SessionRow) -> Step | None:
        if self._swept is None or self._swept >= session.head.seq:
            return None
        first, last = self._swept + 1, self._swept + SWEPT

        def save(claim: Claim) -> Claim | None:
            self._swept = last
            return self._jobs.forget_other_vectors(claim, self._model, first, last, "embed:" if last >= session.head.seq else None)

        return lambda: Made(save, 0)


class Summaries:
    """A strategy's summaries of one recipe."""

    def __init__(self, jobs: Jobs, strategy: Summarising, recipe: str, tokens_of: Callable[[Message], int]) -> None:
        self.kind = kind_of("summaries", check_name(recipe, "a recipe of summaries"))
        self._jobs, self._strategy, self._recipe, self._tokens_of = jobs, strategy, recipe, tokens_of

    def next(self, session: SessionRow, done_seq: int) -> Step | None:
        with self._jobs.history(session) as history:
            summarise = self._strategy.due(history, self._recipe)
        if summarise is None:
            return None

        def make() -> Made:
            checked = self._checked(session, summarise())
            return Made(lambda claim: self._jobs.save_summary(claim, self._recipe, checked), 1)

        return make

    def _checked(self, session: SessionRow, summary: object) -> Summary:
        """The summary with what it costs, if it is one; it may be empty where nothing is said."""
        if not isinstance(summary, Summary):
            raise SummariserError(f"recipe {self._recipe!r} gave {summary!r:.80}: it gives a Summary")
        if summary.level < 1 or not 1 <= summary.first <= summary.last <= session.head.seq:
            raise SummariserError(
                f"recipe {self._recipe!r} gave a summary of level {summary.level} of entries {summary.first} to {summary.last}: "
                f"levels begin with 1, and the log runs from 1 to {session.head.seq}"
            )
        with self._jobs.history(session) as history:
            first, last = history.entries([summary.first])[0], history.entries([summary.last])[0]
            if not summary.text.strip():
                if any(
                    entry.message.text.strip() for entry in history.between(first.seq, last.seq) if entry.status not in ("late", "erased")
                ):
                    raise SummariserError(f"recipe {self._recipe!r} gave an empty summary of entries {summary.first} to {summary.last}")
                return replace(summary, text="", tokens=0)
        spent, stands_for = self._tokens_of(Message.system(summary.text)), last.cum_tokens - first.cum_tokens + first.tokens
        if spent > stands_for + SPARE_TOKENS:
            raise SummariserError(
                f"recipe {self._recipe!r} gave {spent} tokens for entries {summary.first} to {summary.last}, which take {stands_for}"
            )
        return replace(summary, tokens=spent)
