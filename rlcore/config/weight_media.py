"""The media that bring the learner's weights to the engines: what each can do, and where its ends are.

This table is the only list of them. The configuration's checks, the plan of a run, both ends of a push and
their errors read these records. Nothing here moves a byte, and no end is imported: the records name them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from rlcore.config.checks import check, one_of
from rlcore.config.targets import load_named

VLLM_BACKEND = "rlcore"
"""vLLM's name for the weight transfer backend that receives all media whose buckets rlcore moves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Medium:
    """A medium of weight synchronisation: what a medium can do, and where its two ends are implemented."""

    name: str
    """Name in messages; for the media of rlcore also the value of `weight_sync.backend`."""
    sender: str
    """`module:Class` of the learner's end, a `rlcore.weight_sync.MediumOut`. Where vLLM receives:
    `module:function`, a `rlcore.weight_sync.vllm_native.TrainerInfo` that sets up vLLM's own sender."""
    receiver: str | None = None
    """`module:Class` of the engine's end, a `rlcore.weight_sync.MediumIn`. `None`: vLLM receives, by the
    weight transfer backend of its own that is called `name`."""
    gpus: Literal["none", "separate", "shared"] = "none"
    """GPUs that the medium needs: `none`; `separate` for learner and engines; or `shared` by both, which is
    `cluster.colocate`."""
    one_machine: bool = False
    """Learner and all engines must be on one machine: the learner listens there alone."""
    gb_per_s: float | None = None
    """GB per second, as measured; `None`: as fast as the GPUs' memory (`shared`) or links allow."""

    def __post_init__(self) -> None:
        for key, value in (("sender", self.sender), ("receiver", self.receiver)):
            is_name = isinstance(value, str) and ":" in value
            allowed = "a string, `package.module:Class`"
            check(is_name or (key == "receiver" and value is None), f"Medium.{key}", value, allowed)
        one_of(self, "gpus", "none", "separate", "shared")
        check(self.gb_per_s is None or self.gb_per_s > 0, "Medium.gb_per_s", self.gb_per_s, "above 0")
        fits = self.receiver is None or self.gpus == "none"
        check(fits, "Medium.gpus", self.gpus, "none with a receiver: rlcore packs buckets in main memory")

    @property
    def carries_adapters(self) -> bool:
        """Says whether adapters can travel alone: rlcore's receivers add them to a checkpoint, vLLM's do
        not."""
        return self.receiver is not None

    @property
    def every_rank_sends(self) -> bool:
        """Says whether every rank of the learner sends, each to the engine on its GPU; else rank 0 alone."""
        return self.gpus == "shared"

    @property
    def vllm_backend(self) -> str:
        """The name of vLLM's weight transfer backend that receives."""
        return self.name if self.receiver is None else VLLM_BACKEND


MEDIA = {
    medium.name: medium
    for medium in (
        Medium(
            name="shared_memory",
            sender="rlcore.weight_sync.shared_memory:SharedMemoryOut",
            receiver="rlcore.weight_sync.shared_memory:SharedMemoryIn",
            one_machine=True,
            # Measured on two cores between processes of one machine (docs/explanation/rollout.md), as that of
            # gloo is; a network may be slower.
            gb_per_s=3.2,
        ),
        Medium(
            name="gloo",
            sender="rlcore.weight_sync.gloo:GlooOut",
            receiver="rlcore.weight_sync.gloo:GlooIn",
            gb_per_s=1.1,
        ),
        Medium(name="nccl", sender="rlcore.weight_sync.nccl:trainer_info", gpus="separate"),
        Medium(name="ipc", sender="rlcore.weight_sync.ipc:trainer_info", gpus="shared"),
    )
}
"""The media of rlcore, by the value of `weight_sync.backend`."""


def medium_of(backend: str, *, key: str = "weight_sync.backend") -> Medium:
    """Returns the medium that a value of `weight_sync.backend` names: one of `MEDIA`, or by `module:NAME` one
    of your own.

    Args:
        key: configuration path of the value, for errors.

    Raises:
        ConfigError: no medium has this name, the module does not import, or what it holds is no `Medium`.
    """
    if backend in MEDIA:
        return MEDIA[backend]
    allowed = f"one of {', '.join(MEDIA)}, or `package.module:NAME` of a medium of your own"
    check(":" in backend, key, backend, allowed)
    medium = load_named(backend, key=key)
    allowed = f"the name of a rlcore.config.weight_media.Medium, and names a {type(medium).__name__}"
    check(isinstance(medium, Medium), key, backend, allowed)
    return medium


def check_gpus(backend: str, *, on_gpus: bool, colocate: bool, may_share: bool) -> None:
    """Checks the GPUs that a medium needs against those that a run has.

    Args:
        on_gpus: learner and engines have GPUs.
        colocate: they share them, and take turns.
        may_share: their parts of GPUs may be of the same one.

    Raises:
        ConfigError: the medium needs GPUs, or shared ones, or separate ones, that the run has not.
    """
    gpus, key = medium_of(backend).gpus, "weight_sync.backend"
    none = names_of(lambda medium: medium.gpus == "none")
    allowed = f"{none}, unless learner.num_gpus and rollout.num_gpus are above 0"
    check(on_gpus or gpus == "none", key, backend, allowed)
    fitting = names_of(lambda medium: medium.gpus in ("none", "shared" if colocate else "separate"))
    allowed = f"{fitting}: with cluster.colocate learner and engines share GPUs, else each has its own"
    check(gpus in ("none", "shared" if colocate else "separate"), key, backend, allowed)
    allowed = f"{none}: learner.num_gpus and rollout.num_gpus may be parts of one GPU, and it joins two"
    check(gpus == "none" or colocate or not may_share, key, backend, allowed)


def names_of(fits: Callable[[Medium], bool]) -> str:
    """Returns the names of rlcore's media that fit, as `this or that`."""
    return " or ".join(name for name, medium in MEDIA.items() if fits(medium))
