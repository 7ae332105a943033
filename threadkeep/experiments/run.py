"""Strategies x budgets x tasks through the real path: a database file, appends, and a context for every question."""

import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from threadkeep import (
    Backend,
    Budget,
    CannotFit,
    Context,
    Embedder,
    EmbedderError,
    Entry,
    History,
    InvalidSetting,
    Memory,
    Message,
    Pick,
    Session,
    Strategy,
    StrategyError,
    TiktokenCounter,
)
from threadkeep.experiments.answers import INSTRUCTIONS, MOST_TOKENS, Scores, answered_by, scored
from threadkeep.experiments.base import ORACLE, Conversation, Dataset, DatasetError, Question, Task
from threadkeep.experiments.cells import Cell, Cells, fingerprint
from threadkeep.experiments.metrics import Outcome, answer_stands, evidence, gold_ranks
from threadkeep.experiments.named import Named, code_of

REPLAYED = 60
"""How many user messages of a task's first conversation are replayed, turn by turn, for prefix reuse."""


@dataclass(frozen=True)
class Plan:
    """What to run."""

    tasks: Sequence[tuple[Task, Path | str | None]]
    strategies: Sequence[Named]
    budgets: Sequence[int]
    """Tokens that a context may take."""
    folder: Path
    """Where finished cells are kept."""
    seed: int = 0
    oracle: bool = True
    answers: Backend | None = None
    """Answers each question that has known answers, from each context; it is left open. None: no model is asked."""
    embedder: Embedder | None = None
    """Gives messages and questions vectors, for strategies that recall by them; a `CachedEmbedder` computes each text once. None: none
    have any."""

    def __post_init__(self) -> None:
        if not (self.tasks and self.strategies and self.budgets):
            raise InvalidSetting("an experiment takes at least one task, one strategy and one budget")
        if any(not isinstance(budget, int) or budget < 1 for budget in self.budgets):
            raise InvalidSetting(f"budgets are numbers of tokens from 1, not {list(self.budgets)}")
        if len(set(self.budgets)) < len(self.budgets) or len({task.name for task, _ in self.tasks}) < len(self.tasks):
            raise InvalidSetting("each task and each budget stands once")
        if not isinstance(self.seed, int) or self.seed < 0:
            raise InvalidSetting(f"a seed is a whole number from 0, not {self.seed!r}")
        if self.answers is not None and max(self.budgets) + MOST_TOKENS > self.answers.window:
            raise InvalidSetting(
                f"{self.answers.name} has a window of {self.answers.window} tokens: too small for a context of {max(self.budgets)} "
                f"and an answer of {MOST_TOKENS}; leave that budget out, or give it a larger window"
            )
        names = [each.name for each in self.strategies]
        if len(set(names)) < len(names) or ORACLE in names:
            raise InvalidSetting(f"each strategy stands once, and none is called {ORACLE!r}: {names}")


@dataclass(frozen=True)
class Ran:
    """A task's data and its finished cells."""

    task: Task
    dataset: Dataset
    cells: Cells


Progress = Callable[[str, int, int], None]
"""Told of a task, the conversations done, and those there are."""


def run(plan: Plan, progress: Progress) -> list[Ran]:
    """Finish every cell that is not finished yet.

    Raises:
        DatasetError: a task's files are not as published, or a question does not fit its conversation.
        EmbedderError: the plan's embedder failed.
        InvalidSetting: the folder holds another run.
    """
    done = []
    asked = f" {plan.answers.name} {MOST_TOKENS} {INSTRUCTIONS}" if plan.answers else ""
    asked += f" {plan.embedder.name}" if plan.embedder else ""
    code = {ORACLE: asked, **{row.name: code_of(row.strategy) + asked for row in plan.strategies}}
    for task, path in plan.tasks:
        dataset = task.load(path)
        _check(task.name, dataset)
        cells = Cells(plan.folder / f"{task.name}.jsonl", fingerprint(dataset, plan.seed), code)
        for at, conversation in enumerate(dataset.conversations.values()):
            progress(task.name, at, len(dataset.conversations))
            questions = [question for question in dataset.questions if question.conversation == conversation.name]
            _Conversation(plan, task.name, conversation, questions, cells).run(replay=at == 0)
        progress(task.name, len(dataset.conversations), len(dataset.conversations))
        done.append(Ran(task, dataset, cells))
    return done


def _check(task: str, dataset: Dataset) -> None:
    """Refuse what would be passed over in silence."""
    names = set()
    for question in dataset.questions:
        conversation, after = dataset.conversations.get(question.conversation), question.after
        if conversation is None or not 0 <= after <= len(conversation.said):
            problem = f"is asked after {after} messages of {question.conversation!r}, which are not there"
        elif not all(0 <= at < after for at in question.gold) or len(set(question.gold)) < len(question.gold):
            problem = f"has the evidence {question.gold}: positions below {after}, each once"
        elif question.name in names:
            problem = "is there twice"
        else:
            names.add(question.name)
            continue
        raise DatasetError(f"task {task}", f"question {question.name}", problem)


class _Conversation:
    """One conversation, appended message by message; questions are asked as their moment comes."""

    def __init__(self, plan: Plan, task: str, conversation: Conversation, questions: Sequence[Question], cells: Cells) -> None:
        self._conversation = conversation
        self._questions = sorted(questions, key=lambda question: (question.after, question.name))
        self._cells = cells
        self._answers, self._embedder = plan.answers, plan.embedder
        rows = [*plan.strategies, *([Named(ORACLE, _Gold(()))] if plan.oracle else [])]
        wanted = [(row, Cell(task, conversation.name, row.name, budget)) for row in rows for budget in plan.budgets]
        self._wanted = [(row, cell) for row, cell in wanted if cell not in cells]
        self._outcomes: dict[Cell, list[Outcome]] = {cell: [] for _, cell in self._wanted}
        self._failed: set[Cell] = set()
        self._warm_at: dict[str, int] = {}
        self._kept_up_at = 0
        self._not_kept_up: dict[str, str] = {}
        self._replays: dict[Cell, _Replay] = {}

    def run(self, *, replay: bool) -> None:
        if not self._wanted:
            return
        said = self._conversation.said
        users = [at for at, one in enumerate(said) if one.message.role == "user"]
        replayed = set(users[-REPLAYED:]) if replay else set()
        with tempfile.TemporaryDirectory() as folder:
            counter = TiktokenCounter("o200k_base")
            url = f"sqlite:///{folder}/conversation.db"
            with Memory(
                url, counter=counter, backend=self._answers, embedder=self._embedder, budget=Budget(1_000_000), upkeep=False
            ) as memory:
                session = memory.session(self._conversation.name[:255], instructions=INSTRUCTIONS if self._answers else None)
                waiting = list(self._questions)
                for at in range(len(said) + 1):
                    while waiting and waiting[0].after == at:
                        self._keep_up(memory, session, counter, at)
                        self._ask(session, waiting.pop(0))
                    if at < len(said):
                        if at in replayed:
                            self._replay(session, said[at].message, counter)
                        session.append(said[at].message, created_at=said[at].at)
        for _, cell in self._wanted:
            seen = self._replays.get(cell)
            self._cells.add(cell, self._outcomes[cell], None if seen is None else (seen.shared, seen.total))

    def _keep_up(self, memory: Memory, session: Session, counter: TiktokenCounter, at: int) -> None:
        """Make the vectors and the summaries that are due of what was said so far, as the time between two turns would."""
        if self._kept_up_at == at:
            return
        self._kept_up_at = at
        for done in session.upkeep() if self._embedder else ():
            if done.error:
                raise EmbedderError(done.error)
        strategies = {row.name: row.strategy for row, cell in self._wanted if cell not in self._failed}
        for name, strategy in strategies.items():
            if hasattr(strategy, "recipes"):
                own = Memory(memory.store, strategy=strategy, counter=counter, budget=Budget(1_000_000), upkeep=False)
                for done in own.session(session.name).upkeep():
                    if done.error:
                        self._not_kept_up[name] = f"upkeep of {done.kind} failed: {done.error}"

    def _ask(self, session: Session, question: Question) -> None:
        """One question, with every strategy at every budget that is still wanted."""
        gold = [(at + 1, self._conversation.said[at].message.text) for at in question.gold]
        seqs = tuple(seq for seq, _ in gold)
        ages = tuple(at / max(1, question.after - 1) for at in question.gold)
        for row, cell in self._wanted:
            if cell in self._failed:
                continue
            strategy = _Gold(seqs) if row.name == ORACLE else row.strategy
            self._warm(session, question, row.name, strategy, Budget(cell.budget))
            rows = _Rows(strategy)
            begun = time.perf_counter()
            context, error, cannot_fit = None, None, False
            try:
                if row.name in self._not_kept_up:
                    raise StrategyError(self._not_kept_up[row.name])
                context = session.context(question.text, strategy=rows, budget=Budget(cell.budget))
            except CannotFit:
                cannot_fit = True
            except Exception as problem:  # noqa: BLE001  # a stranger's strategy may raise anything: the other cells go on
                error = f"strategy {row.name} failed at question {question.name}: {type(problem).__name__}: {problem}"
                self._failed.add(cell)
            took = (time.perf_counter() - begun) * 1000
            scores = None
            if self._answers is not None and question.answers and error is None:
                try:
                    scores = scored(question, answered_by(self._answers, context, MOST_TOKENS)) if context else Scores(0.0, 0.0, 0.0)
                except Exception as problem:  # noqa: BLE001  # as above: it may be a stranger's backend
                    failed = f"{self._answers.name} failed with {row.name} at question {question.name}"
                    error = f"{failed}: {type(problem).__name__}: {problem}"
                    self._failed.add(cell)
            self._outcomes[cell].append(
                Outcome(
                    question=question.name,
                    category=question.category,
                    kept=evidence(context, question.text, gold, question.answers) if context else (False,) * len(seqs),
                    ages=ages,
                    answered=answer_stands(context, question.text, question.answers),
                    ranks=gold_ranks(context, seqs) if context else None,
                    tokens=context.tokens if context else 0,
                    ceiling=cell.budget,
                    milliseconds=round(took, 3),
                    rows=len(rows.seen.union(*(pick.seqs for pick in context.picks if pick.kind == "entries"))) if context else 0,
                    cannot_fit=cannot_fit,
                    error=error,
                    answer_f1=scores.f1 if scores else None,
                    answer_em=scores.exact if scores else None,
                    answer_contains=scores.contains if scores else None,
                )
            )

    def _warm(self, session: Session, question: Question, name: str, strategy: Strategy, budget: Budget) -> None:
        """Ask once untimed where the log has grown: pages of the database and words of new messages are read once for all budgets."""
        if self._warm_at.get(name) != question.after:
            self._warm_at[name] = question.after
            with suppress(Exception):  # the timed call meets it again
                session.context(question.text, strategy=strategy, budget=budget)

    def _replay(self, session: Session, message: Message, counter: TiktokenCounter) -> None:
        """The context that this user message would have got, compared with that of the user message before."""
        for row, cell in self._wanted:
            if row.name == ORACLE or cell in self._failed:
                continue
            with suppress(Exception):  # it is reported where a question meets it
                context = session.context(message, strategy=row.strategy, budget=Budget(cell.budget))
                self._replays.setdefault(cell, _Replay(counter)).add(context)


class _Replay:
    """Tokens that consecutive contexts share from their beginning."""

    def __init__(self, counter: TiktokenCounter) -> None:
        self._counter = counter
        self._before: list[dict[str, object]] | None = None
        self.shared = 0
        self.total = 0

    def add(self, context: Context) -> None:
        if self._before is not None:
            for old, new, message in zip(self._before, context.messages, context.typed_messages(), strict=False):
                if old != new:
                    break
                self.shared += self._counter.count(message).tokens
            self.total += context.tokens
        self._before = context.messages


@dataclass(frozen=True)
class _Gold:
    """Picks the gold; only the harness may."""

    seqs: tuple[int, ...]

    def pick(self, history: History, budget: Budget) -> Sequence[Pick]:
        return [Pick.of([entry], "gold") for entry in history.entries(self.seqs)]


class _Rows:
    """A strategy, and which entries it read."""

    def __init__(self, strategy: Strategy) -> None:
        self._strategy = strategy
        self.seen: set[int] = set()

    def __repr__(self) -> str:
        return repr(self._strategy)

    def pick(self, history: History, budget: Budget) -> Sequence[Pick]:
        return self._strategy.pick(cast(History, _Watched(history, self.seen)), budget)


class _Watched:
    """A history that remembers which entries it gave."""

    def __init__(self, history: History, seen: set[int]) -> None:
        self._history = history
        self._seen = seen

    def __getattr__(self, name: str) -> object:
        given = getattr(self._history, name)
        if not callable(given):
            return given

        def watched(*arguments: object, **by_name: object) -> object:
            found = given(*arguments, **by_name)
            if isinstance(found, Sequence):
                self._seen.update(one.seq for one in found if isinstance(one, Entry))
            return found

        return watched
