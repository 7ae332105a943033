"""What a `Memory` was given, resolved to what a turn needs: store, backend, counting, budget, strategy, instructions."""

import json
import logging
import threading
import time
from dataclasses import replace
from datetime import datetime

from threadkeep.backends.base import Backend
from threadkeep.backends.llama_cpp import LlamaCpp
from threadkeep.embedders.base import Embedder
from threadkeep.memory.assemble import Request
from threadkeep.memory.budget import Budget
from threadkeep.memory.counting import Counting
from threadkeep.memory.embedding import embed
from threadkeep.memory.errors import CannotFit, EmbedderError, InvalidSetting, NoBackend
from threadkeep.memory.fitting import Profile
from threadkeep.memory.history import Status
from threadkeep.memory.manifest import Manifest
from threadkeep.memory.message import JSON, Message
from threadkeep.memory.spending import Account, SpendCap, embedding_call
from threadkeep.memory.tokens import TokenCounter
from threadkeep.memory.upkeep import Upkeep
from threadkeep.stores.ledger import NewCall
from threadkeep.stores.queries import SessionRow
from threadkeep.stores.rows import Prepared, Vector, prepare
from threadkeep.stores.sql import SQLStore, check_name
from threadkeep.stores.turn_queries import TurnRow
from threadkeep.strategies.base import Strategy
from threadkeep.strategies.default import default_strategy

MOST_REPLY = 1024
"""Tokens kept free for the reply where no budget is given: a quarter of the window, and at most this."""
_log = logging.getLogger("threadkeep")


class Setup:
    """The parts of one `Memory`. The bundled model is loaded when it is first needed, and only if nothing stands in for it."""

    def __init__(
        self,
        store: SQLStore,
        backend: Backend | None,
        strategy: Strategy | None,
        budget: Budget | None,
        counter: TokenCounter | None,
        embedder: Embedder | None,
        instructions: str | None,
        upkeep: bool,
        spend_cap: SpendCap | None = None,
    ) -> None:
        if strategy is not None and not isinstance(strategy, Strategy):
            raise InvalidSetting(f"strategy={strategy!r}: a strategy is an object with a method pick(history, budget)")
        if budget is not None and not isinstance(budget, Budget):
            raise InvalidSetting(f"budget={budget!r}: write Budget(window, reply=…)")
        if counter is not None and not isinstance(counter, TokenCounter):
            raise InvalidSetting(f"counter={counter!r}: a counter has name, additive, count() and count_request()")
        if embedder is not None and not isinstance(embedder, Embedder):
            raise InvalidSetting(f"embedder={embedder!r:.80}: an embedder has a name and a method embed(texts)")
        if spend_cap is not None and not isinstance(spend_cap, SpendCap):
            raise InvalidSetting(f'spend_cap={spend_cap!r:.80}: write SpendCap(session=Decimal("0.50"), owner=Decimal("20"))')
        if not isinstance(upkeep, bool):
            raise InvalidSetting(f"upkeep={upkeep!r:.80}: True, or False to work only when session.upkeep() or memory.upkeep() is called")
        if instructions is not None and not isinstance(instructions, str):
            raise InvalidSetting(f"instructions={instructions!r:.80}: text, or None")
        if counter is not None and backend is None and budget is None:
            raise InvalidSetting("a counter without a backend leaves the window unknown: give budget=Budget(window, reply=…) too")
        self.store = store
        self.strategy: Strategy = strategy or default_strategy()
        self.embedder = embedder
        self.model = None if embedder is None else check_name(embedder.name, "an embedder's name")
        """The embedder's name: vectors are stored and read under it."""
        self._warned = False
        self.instructions = instructions
        self._backend = backend
        self._closes_backend = backend is None
        self._budget = budget
        self._counter = counter
        self._counting: Counting | None = None
        self._countings: dict[Backend, Counting] = {}
        self.spend_cap = spend_cap
        self._lock = threading.RLock()
        self.upkeep = Upkeep(
            store, self.strategy, embedder, lambda message: self.counting.count(message).tokens, spend_cap, background=upkeep
        )

    @property
    def backend(self) -> Backend:
        """What answers.

        Raises:
            NoBackend: this memory has a counter of its own and no backend.
        """
        with self._lock:
            if self._backend is None:
                if self._counter is not None:
                    raise NoBackend(
                        "this Memory has a counter but no backend, so it can assemble and store but not answer: "
                        "give backend=…, or hold the turn yourself (`with session.turn(text) as turn: … turn.finish(reply)`)"
                    )
                self._backend = LlamaCpp()
            return self._backend

    @property
    def counting(self) -> Counting:
        """Counts as the backend does, or as the given counter."""
        with self._lock:
            if self._counting is None:
                profile = Profile() if self._counter is not None and self._backend is None else self.backend.profile
                self._counting = Counting(self._counter or self.backend.counter, profile)
            return self._counting

    @property
    def has_backend(self) -> bool:
        """Whether anything answers here; otherwise the caller does."""
        return self._backend is not None or self._counter is None

    def counting_of(self, backend: Backend) -> Counting:
        """Counts as one of several candidates does."""
        made = self._countings.get(backend)
        if made is None:  # not under the lock: a candidate's model may take seconds to load, and others go on meanwhile
            made = self._countings.setdefault(backend, Counting(backend.counter, backend.profile))
        return made

    def account(self, session: SessionRow) -> Account:
        """Where the session's model calls are paid."""
        return Account(self.store, session, self.spend_cap)

    @property
    def budget(self) -> Budget:
        return self._budget or _budget_in(self.backend.window)

    def prepare(
        self,
        message: Message,
        *,
        status: Status = "complete",
        created_at: datetime | None = None,
        metadata: JSON | None = None,
        place: str = "message",
    ) -> Prepared:
        """A message ready to be stored."""
        return prepare(message, self.counting, status=status, created_at=created_at, metadata=metadata, place=place)

    def embed(self, prepared: Prepared) -> Prepared:
        """The same with its vector, if its text is not blank; where the embedder fails it goes without, until upkeep embeds it."""
        text = prepared.message.text
        if self.embedder is None or self.model is None or not text.strip():
            return prepared
        try:
            (vector,) = embed(self.embedder, [text])
        except EmbedderError as error:
            if not self._warned:
                self._warned = True
                _log.warning("turns go on without vectors until the embedder works again, and upkeep embeds their messages: %s", error)
            return prepared
        return replace(prepared, vector=Vector(self.model, vector))

    def prepare_user(self, message: Message, metadata: JSON | None) -> tuple[Prepared, NewCall | None]:
        """A user's message ready to be stored, with its vector, and the embedder's call for the ledger, where it was asked."""
        prepared = self.prepare(message, metadata=metadata)
        began = time.perf_counter()
        embedded = self.embed(prepared)
        return embedded, None if embedded.vector is None else embedding_call(self.embedder, prepared.tokens, began)

    def prepare_draft(self, draft: str) -> Prepared:
        """A dead holder's draft as the interrupted entry that it becomes."""
        return self.prepare(Message.from_dict(json.loads(draft)), status="interrupted")

    def request(
        self,
        session: SessionRow | None,
        previous: TurnRow | None,
        *,
        instructions: str | None = None,
        tools: tuple[JSON, ...] = (),
        response_format: JSON | None = None,
        tool_choice: str | JSON | None = None,
        max_tokens: int | None = None,
        strategy: Strategy | None = None,
        budget: Budget | None = None,
        replaced: frozenset[int] = frozenset(),
        backend: Backend | None = None,
    ) -> Request:
        """What a context of this session is assembled from; `backend`: for one of several, as it counts and within its window.

        Raises:
            CannotFit: the reply alone does not fit its window.
        """
        candidate = None if backend is self._backend else backend
        counting = self.counting if candidate is None else self.counting_of(candidate)
        return Request(
            strategy=strategy or self.strategy,
            budget=self._budget_for(budget, max_tokens, candidate),
            counting=counting,
            instructions=self.instructions if instructions is None else instructions,
            tools=tools,
            response_format=response_format,
            tool_choice=tool_choice,
            counted=session is None or session.tokenizer == counting.name,
            replaced=replaced,
            previous=Manifest.from_json(previous.manifest) if previous and previous.manifest else None,
            **({} if session is None else {"clip_tokens": session.clip}),
        )

    def _budget_for(self, budget: Budget | None, max_tokens: int | None, candidate: Backend | None) -> Budget:
        if candidate is None:
            budget = budget or self.budget
            return budget if max_tokens is None else replace(budget, reply=max_tokens)
        whole = budget or self._budget or _budget_in(candidate.window)
        window = min(whole.window, candidate.window)
        reply = whole.reply if max_tokens is None else max_tokens
        if reply >= window:
            raise CannotFit(reply, window, {"reply": reply})
        return Budget(window, reply)

    def close(self) -> None:
        """Stop upkeep; let go of the bundled model, where it was loaded here, and of the store's connections.

        What was handed in stays open.
        """
        self.upkeep.close()
        with self._lock:
            if self._backend is not None and self._closes_backend:
                self._backend.close()
        self.store.close()


def _budget_in(window: int) -> Budget:
    """The budget where none is given."""
    return Budget(window, reply=min(MOST_REPLY, window // 4))
