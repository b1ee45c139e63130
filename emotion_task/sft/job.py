"""Runs supervised fine-tuning as a Ray Train job (`rlcore.offline.job`), for prosody SFT and the reward model
alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from emotion_task.config import SupervisedConfig
from emotion_task.sft.examples import Example, read_examples, write_examples
from rlcore.config import ModelConfig
from rlcore.errors import DataError
from rlcore.offline.job import EXAMPLES, VALIDATION, VALIDATION_LOSS, run_job

if TYPE_CHECKING:
    from emotion_task.sft.encode import EncodedExample
    from rlcore.engines.deepspeed_engine import DeepSpeedEngine


def run_supervised(
    examples: Sequence[Example],
    model_path: str,
    folder: str | Path,
    config: SupervisedConfig,
    *,
    seed: int,
    name: str,
    validation: Sequence[Example] = (),
) -> Path:
    """Trains `model_path` on `examples` and returns the folder of the new model, `folder/model`.

    Examples are trained on in their order, `batch_size` per step.

    Args:
        seed: seed of the engine.
        name: name of the stage, for the progress bar and errors.
        validation: examples on which the loss is measured; none means that the last checkpoint is the model.

    Raises:
        DataError: There are fewer examples than `num_steps * batch_size`, or fewer for validation than ranks;
            or no validation loss was a number.
        ConfigError, CheckpointError: The model could not be saved at the end; found before the first step.
        StoppedError: The job was stopped by a signal.
    """
    folder = Path(folder).resolve()
    if Path(model_path).is_dir():
        model_path = str(Path(model_path).resolve())  # Train's workers run in folders of their own
    needed = config.num_steps * config.batch_size
    if len(examples) < needed:
        raise DataError(
            f"{folder}: {name} needs {needed} examples (num_steps * batch_size), got {len(examples)}"
        )
    if 0 < len(validation) < config.learner.num_ranks:
        raise DataError(f"{folder}: {len(validation)} examples for validation, at least one a rank is needed")
    write_examples(folder / EXAMPLES, examples[:needed])
    write_examples(folder / VALIDATION, validation)
    return run_job(Supervised(model_path=model_path, config=config), folder, seed=seed, name=name)


@dataclass(kw_only=True)
class Supervised:
    """The recipe (`rlcore.offline.job.Recipe`) of supervised fine-tuning: the likelihood of targets."""

    model_path: str
    config: SupervisedConfig
    _own: list[list[Example]] = field(default_factory=list, init=False)
    _held_back: list[EncodedExample] = field(default_factory=list, init=False)

    @property
    def model(self) -> ModelConfig:
        """The checkpoint, with media as the processor gives them."""
        return ModelConfig(path=self.model_path, freeze=self.config.freeze, media="raw")

    def begin(self, engine: DeepSpeedEngine, folder: Path, start: int) -> None:
        """Reads this rank's share of the examples, of each step after `start` and for validation."""
        from emotion_task.sft.ingest import encoder_of

        size, share = self.config.batch_size, slice(engine.rank, None, engine.world_size)
        examples = read_examples(folder / EXAMPLES)
        steps = range(start, self.config.num_steps)
        self._own = [examples[step * size : (step + 1) * size][share] for step in steps]
        if held_back := read_examples(folder / VALIDATION)[share]:
            encoder = encoder_of(self.model_path, self.config)
            self._held_back = [encoder.encode(example) for example in held_back]

    def batches(self) -> Iterator[list[EncodedExample]]:
        """Yields this rank's groups of each step."""
        from emotion_task.sft.ingest import encoded_batches

        yield from encoded_batches(self._own, self.model_path, self.config)

    def update(self, engine: DeepSpeedEngine, groups: Sequence[EncodedExample]) -> dict[str, float]:
        """Makes one step, as `DeepSpeedEngine.supervised_update`."""
        return engine.supervised_update(groups)

    def validate(self, engine: DeepSpeedEngine) -> dict[str, float]:
        """Returns the loss on the validation examples of all ranks, in nats per token."""
        return {VALIDATION_LOSS: engine.supervised_loss(self._held_back)} if self._held_back else {}
