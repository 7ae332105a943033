"""What strategies are measured on: a task a file, by name."""

from threadkeep.experiments.base import Task
from threadkeep.experiments.tasks.bfcl_memory import BFCLMemory
from threadkeep.experiments.tasks.locomo import LoCoMo
from threadkeep.experiments.tasks.longmemeval import LongMemEval
from threadkeep.experiments.tasks.planted import Planted
from threadkeep.experiments.tasks.realmem import RealMem
from threadkeep.experiments.tasks.sessions import Sessions

__all__ = ["TASKS", "BFCLMemory", "LoCoMo", "LongMemEval", "Planted", "RealMem", "Sessions"]

_EACH: tuple[Task, ...] = (LongMemEval(), LoCoMo(), RealMem(), BFCLMemory(), Planted(), Sessions())
TASKS: dict[str, Task] = {task.name: task for task in _EACH}
