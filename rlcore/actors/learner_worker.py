"""One rank of the learner as an actor, which joins the process group, then passes calls on to DeepSpeed."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import ray

from rlcore.actors.group import ActorGroup
from rlcore.algorithms.aggregation import BatchTotals
from rlcore.config import RunConfig
from rlcore.engines.rendezvous import listen
from rlcore.types import Group, TrainBatch
from rlcore.weight_sync import Push, PushReport, WeightSender


class LearnerWorker:
    """One rank of the learner. `start_learner` builds the engines of all ranks; every later call is
    collective too.
    """

    def __init__(self, config: RunConfig, rank: int):
        self._config, self.rank = config, rank
        self._sender: WeightSender | None = None
        self._listener: socket.socket | None = None  # rank 0's alone

    def address(self) -> tuple[str, int]:
        """Listens on this node for the other ranks, and returns the address and port."""
        host = ray.util.get_node_ip_address()
        self._listener = listen(host)
        return host, self._listener.getsockname()[1]

    def start(self, host: str, port: int) -> None:
        """Joins the group at rank 0's address, loads the model and, on rank 0, makes the weight sender."""
        environment = {
            "RANK": self.rank,
            "WORLD_SIZE": self._config.learner.num_ranks,
            # Ray shows an actor its own accelerators only, so the first is always this rank's.
            "LOCAL_RANK": 0,
            "MASTER_ADDR": host,
            "MASTER_PORT": port,
        }
        os.environ.update({name: str(value) for name, value in environment.items()})
        # Imported here: the process group's settings must be in the environment before DeepSpeed.
        from rlcore.engines.deepspeed_engine import DeepSpeedEngine
        from rlcore.models.checkpoint_names import check_trained
        from rlcore.weight_sync import make_sender

        config = self._config
        self._engine = DeepSpeedEngine(
            config.model.path,
            config.model,
            config.learner,
            num_steps=config.train.num_steps,
            seed=config.seed,
            skipped_log=Path(config.run_dir).resolve() / "skipped.jsonl",
            listener=self._listener,
        )
        self._engine.model.prepare_export(Path(config.run_dir).resolve() / "model")
        # Before anything is generated.
        check_trained(self._engine.model.push_shapes(whole=True), config.model.path)
        self._sender = make_sender(
            config.weight_sync,
            self._engine.model.push_shapes(whole=config.pushes_all),
            # Factors are few, and their products are rounded at the engine.
            dtype="float32" if config.learner.lora.push == "adapters" else config.rollout_dtype,
            rank=self.rank,
            host=ray.util.get_node_ip_address(),
        )

    def update(self, *mini_batches: TrainBatch) -> dict[str, float]:
        """Trains on this rank's groups of a step's mini-batches, and returns metrics of the whole batch."""
        import torch

        from rlcore.engines.shares import PolicyObjective
        from rlcore.models.host_memory import give_back

        config = self._config
        objectives = [
            PolicyObjective(
                totals=BatchTotals(
                    num_tokens=batch.num_tokens,
                    num_sequences=batch.num_sequences,
                    max_tokens=config.rollout.max_tokens,
                ),
                algorithm=config.algorithm,
                temperature=config.rollout.temperature,
                recompute_logprobs=config.learner.recomputes_logprobs,
            )
            for batch in mini_batches
        ]
        groups = [batch.groups for batch in mini_batches]
        metrics = self._engine.update(list(zip(groups, objectives, strict=True)))
        give_back()
        if config.cluster.colocate and config.learner.num_gpus > 0:
            torch.cuda.empty_cache()  # the engine on this GPU is about to wake up
        return metrics

    def reference_logprobs(self, groups: Sequence[Group]) -> list[list[np.ndarray]]:
        """Computes log-probabilities of this rank's groups under the policy without its adapters: [G][K] of
        float32 [T], in the groups' and completions' order."""
        from rlcore.engines.logprobs import TokenGroup
        from rlcore.models.host_memory import give_back

        temperature = self._config.rollout.temperature
        rows = self._engine.reference_logprobs(list(map(TokenGroup.of, groups)), temperature=temperature)
        give_back()
        return rows

    def announce_push(self, version: int, engines: Sequence[int], workers_per_engine: int = 1) -> Push:
        """Makes rank 0's appointment with rollout engines to bring them `version`."""
        assert self._sender is not None, "rank 0 has the sender"
        return self._sender.announce(version, engines, workers_per_engine=workers_per_engine)

    def push_weights(self, push: Push) -> PushReport | None:
        """Brings the weights to the engines that take part in the push at the same time; returns, on rank 0,
        once they all hold them."""
        weights = self._engine.model.iter_push(self._config.rollout_dtype, whole=self._config.pushes_all)
        if self._sender is not None:
            return self._sender.push(push, weights)
        for _ in weights:  # the other ranks only take part in the gathering
            pass
        return None

    def save(self, folder: str) -> None:
        """Writes the learner's part of a checkpoint into `folder`, as `DeepSpeedEngine.save`."""
        self._engine.save(folder)

    def load(self, folder: str) -> None:
        """Goes on from what `save` wrote, as `DeepSpeedEngine.load`."""
        self._engine.load(folder)

    def export(self, folder: str) -> None:
        """Writes the policy as a Hugging Face folder, as `LearnerModel.export`."""
        self._engine.model.export(folder)

    def mix_into(self, before: str, folder: str, weight: float) -> None:
        """Makes the weights that `export` wrote into `folder` a share of what the folder then holds, as
        `rlcore.models.mixing.mix_into`. Rank 0 alone is asked."""
        from rlcore.models.mixing import mix_into

        mix_into(before, folder, weight)

    def close(self) -> None:
        """Frees the shared memory of the weights, which would outlive this process."""
        if self._sender is not None:
            self._sender.close()


def start_learner(group: ActorGroup, *, timeout_s: float) -> None:
    """Brings the learner's ranks together: rank 0 says where, then all start at once."""
    host, port = group.call_one(0, "address", timeout_s=timeout_s)
    group.call("start", host, port, timeout_s=timeout_s)
