"""How much of which cluster a job uses; checked before anything of Ray is loaded."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.core.errors import InvalidOption

STALL_MINUTES = 120.0
"""Minutes an actor may finish no image: the largest that ``--pixel-limit`` lets in take less, floors included."""


@dataclass(frozen=True, kw_only=True)
class PoolOptions:
    """How much of which cluster a job uses; None lets the pool fill what is there.

    ``may_grow`` says that nodes are still to come: they are waited for, and an autoscaler sees how many are wanted.
    """

    address: str | None = None
    actors: int | None = None
    cpus_per_actor: float | None = None
    gpus_per_actor: float | None = None
    window: int = 2
    attempts: int = 3
    may_grow: bool = False
    stall_minutes: float = STALL_MINUTES

    def __post_init__(self) -> None:
        for option, value in (("--actors", self.actors), ("--window", self.window), ("--attempts", self.attempts)):
            if value is not None and value < 1:
                raise InvalidOption(option, str(value), "give a number from 1.")
        if not self.stall_minutes > 0:
            raise InvalidOption("--stall-minutes", str(self.stall_minutes), "give minutes above 0, or inf.")
        for option, amount in (("--cpus-per-actor", self.cpus_per_actor), ("--gpus-per-actor", self.gpus_per_actor)):
            if amount is not None and not 0 <= amount < 1e6:
                raise InvalidOption(option, str(amount), "give a number from 0.")
            if amount is not None and amount > 1 and amount % 1:  # Ray shares out whole devices, or parts of one
                raise InvalidOption(option, str(amount), "give a whole number, or a share of one below 1.")
