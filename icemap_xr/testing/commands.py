"""What a command line in this process ended with."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Result:
    """Exit code and what was printed."""

    code: int
    out: str
    err: str
