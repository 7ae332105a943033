"""Facts told at the beginning, and whether they still stand in the summary after some rounds.

python benchmarks/summary_facts.py [rolling|tree] [extractive|MODEL] [--seed N]

The conversation is one of the task `planted`, the exchanges that tell eight of its facts first. After each round those are looked for in
what the summary says, by the words of their answers.
"""

import argparse
import tempfile
import time

from threadkeep import (
    BackendSummariser,
    Budget,
    ExtractiveSummariser,
    LlamaCpp,
    Memory,
    Message,
    RollingSummary,
    SummaryTree,
    TiktokenCounter,
)
from threadkeep.experiments.metrics import words
from threadkeep.experiments.tasks.planted import Planted

ROUNDS, SPAN, TOKENS, FACTS = 5, 700, 384, 8


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("strategy", nargs="?", default="tree", choices=["rolling", "tree"])
    arguments.add_argument("model", nargs="?", default="extractive")
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--show", action="store_true")
    given = arguments.parse_args()
    data = Planted(tokens=10_000, seed=given.seed).load(None)
    (conversation,) = data.conversations.values()
    facts = sorted((question for question in data.questions if question.category == "fact"), key=lambda question: question.gold)[:FACTS]
    backend = None if given.model == "extractive" else LlamaCpp(given.model, window=4096, temperature=0.0)
    summariser = BackendSummariser(backend, piece=256, seconds=290) if backend else ExtractiveSummariser()
    strategy = (
        RollingSummary(summariser, span=SPAN, tokens=TOKENS, recent=0)
        if given.strategy == "rolling"
        else SummaryTree(summariser, span=SPAN, tokens=TOKENS // 2, recent=0, fan=2, share=0.9)
    )
    counter = TiktokenCounter("o200k_base")
    with (
        tempfile.TemporaryDirectory() as folder,
        Memory(f"sqlite:///{folder}/facts.db", counter=counter, strategy=strategy, budget=Budget(2 * TOKENS), upkeep=False) as memory,
    ):
        session = memory.session("facts")
        spent, rounds = 0, 0
        positions = [at for fact in facts for at in (fact.gold[0], fact.gold[0] + 1)]
        others = [at for at in range(len(conversation.said)) if at not in positions]
        for said in (conversation.said[at] for at in [*positions, *others]):
            session.append(said.message, created_at=said.at)
            spent += counter.count(said.message).tokens
            if spent < SPAN * (rounds + 1) + 100:
                continue
            began = time.perf_counter()
            done = session.upkeep()
            rounds += 1
            context = session.context("What do you know of me?")
            told = "\n".join(pick.text or "" for pick in context.picks if pick.kind == "summary")
            there = f" {' '.join(words(told))} "
            kept = [fact for fact in facts if f" {' '.join(words(fact.answers[0]))} " in there]
            print(
                f"round {rounds}: {len(kept)} of {len(facts)} facts, {counter.count(Message.system(told)).tokens} tokens "
                f"in the summary, {time.perf_counter() - began:.1f} s, {[one.made for one in done]} written",
                *[one.error for one in done if one.error],
            )
            if given.show:
                print(told, "\n---")
            if rounds == ROUNDS:
                break
    if backend:
        backend.close()


if __name__ == "__main__":
    main()
