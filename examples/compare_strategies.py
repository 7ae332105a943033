"""Two strategies measured on a conversation made up here: which keeps the facts that its questions ask for?"""

from pathlib import Path
from tempfile import TemporaryDirectory

from threadkeep.experiments.named import named
from threadkeep.experiments.report_shape import results_from
from threadkeep.experiments.run import Plan, run
from threadkeep.experiments.summary import summarise
from threadkeep.experiments.tasks import Planted

if __name__ == "__main__":
    with TemporaryDirectory() as folder:  # name a folder of yours, and an interrupted run goes on where it was
        strategies = [named("SlidingWindow"), named("BM25Turns(neighbours=1)")]
        plan = Plan([(Planted(tokens=10_000), None)], strategies, budgets=[1024, 4096], folder=Path(folder))
        results = results_from(summarise(plan, run(plan, lambda task, done, total: print(f"{task}: {done} of {total}"))))
    for cell in results.cells:
        print(f"{cell.budget:>5} {cell.strategy:<24} evidence recall {cell.evidence_recall:.2f}, {cell.tokens:,.0f} tokens")
    for one in results.comparisons:
        print(f"at {one.budget}: {one.a} − {one.b} = {one.difference:+.2f}, 95% interval {one.low:+.2f} to {one.high:+.2f}")
