"""What a cluster cannot do for a job; see the tree in :mod:`pipeline.core.errors`."""

from __future__ import annotations

from pipeline.core.errors import PipelineError


class PoolError(PipelineError):
    """Ray cannot run the job."""


class ClusterUnavailable(PoolError):
    """There is no Ray cluster at an address, or none could be started here."""

    def __init__(self, address: str, detail: str) -> None:
        super().__init__(address, detail)
        self.address, self.detail = address, detail

    def __str__(self) -> str:
        advice = "Give the address of a running cluster, or leave out --address to use this machine."
        if self.address == "local":
            check = "Check that HOME and TMPDIR can be written and that memory is left, or give --address."
            return f"Ray could not be started here ({self.detail}). {check}"
        if self.address.startswith("http"):
            advice = "Give the URL of the head's dashboard, and the token where it asks for one (RAY_AUTH_TOKEN)."
        return f"The Ray cluster at {self.address} cannot be joined ({self.detail}). {advice}"


class TokenWanted(PoolError):
    """A Ray cluster takes nobody without its token, and this process has none, or another."""

    def __init__(self, address: str, detail: str) -> None:
        super().__init__(address, detail)
        self.address, self.detail = address, detail

    def __str__(self) -> str:
        return (
            f"The Ray cluster at {self.address} wants its token ({self.detail}). Set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN "
            "to the token that the cluster was started with, or RAY_AUTH_TOKEN_PATH to a file of it."
        )


class ResourcesUnavailable(PoolError):
    """The cluster can never give what was asked for."""

    def __init__(self, wanted: str, available: str) -> None:
        super().__init__(wanted, available)
        self.wanted, self.available = wanted, available

    def __str__(self) -> str:
        advice = "Ask for less, add nodes, or wait for them (--may-grow)."
        return f"The job asks for {self.wanted}, the cluster has {self.available}. {advice}"


class WorkerNotStarted(PoolError):
    """No worker comes up."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail

    def __str__(self) -> str:
        return f"A worker could not be started ({self.detail}). Its log lies below Ray's temporary folder, /tmp/ray."


class WorkerLost(PoolError):
    """An actor died under its shard."""

    def __init__(self, shard_id: str, detail: str) -> None:
        super().__init__(shard_id, detail)
        self.shard_id, self.detail = shard_id, detail

    def __str__(self) -> str:
        return f"The worker of shard {self.shard_id} died ({self.detail})."


class GroupLost(PoolError):
    """Workers that share their gradients failed more often than they are started again."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail

    def __str__(self) -> str:
        return f"The workers of the training failed ({self.detail}). The same command goes on from the last checkpoint."
