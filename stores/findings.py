"""What looking over a database comes to."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be, and what to do."""

    said: str
    grave: bool
    """Whether something is wrong; else it is worth knowing."""


@dataclass(frozen=True, slots=True)
class Check:
    """What was looked at, and what was found."""

    name: str
    looked_at: int
    unit: str
    findings: tuple[Finding, ...]


def fault(said: str) -> Finding:
    return Finding(said, grave=True)


def warning(said: str) -> Finding:
    return Finding(said, grave=False)
