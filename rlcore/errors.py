"""The errors that users meet form one shallow hierarchy. Every error pickles, so Ray can carry it.

Each error subclasses the standard exception that it specialises, so callers may catch either.
"""


class RLCoreError(Exception):
    """Every error that rlcore raises on purpose subclasses this one."""


class ConfigError(RLCoreError, ValueError):
    """A configuration key or value is wrong. The message names the config path and what is allowed."""


class DataError(RLCoreError, ValueError):
    """A file of the user's is missing or malformed. The message names the file."""


class MissingDependencyError(RLCoreError, ImportError):
    """An optional extra is not installed. The message names the command that installs it."""


class PlacementError(RLCoreError, RuntimeError):
    """The cluster lacks the resources that a run or a command asks for."""


class ClusterError(RLCoreError, ConnectionError):
    """The cluster does not answer, refuses this client, or cannot take the job."""


class DeadlineError(RLCoreError, TimeoutError):
    """A wait across actors passed its deadline. The message names who was waited for."""

    role = ""
    """Role of the actors that gave no answer; empty where no one role is to blame."""


class ActorError(RLCoreError, RuntimeError):
    """An actor died. The message names its role, rank and the method that was running."""

    role = ""
    """Role of the actor, for instance `learner`; empty where no one role is to blame."""


class RewardError(RLCoreError, RuntimeError):
    """A reward failed, and its `on_error` policy is `abort`; or all of its scores in a run failed."""


class EnvironmentFailedError(RLCoreError, RuntimeError):
    """An environment did not answer a completion, and `rollout.environment.on_error` is `abort`."""


class WeightSyncError(RLCoreError, RuntimeError):
    """Weights that arrived at an engine are not those that were sent (name, shape, version or checksum)."""


class MixedWeightsError(WeightSyncError):
    """A push failed midway: an engine's weights are part old, part new, until a whole push succeeds."""


class NonFiniteError(RLCoreError, ArithmeticError):
    """The loss or the gradient was not finite in too many optimizer steps in a row."""


class NoUpdateError(RLCoreError, RuntimeError):
    """Every update of a run was skipped: the policy is the one that the run began with."""


class LogprobError(RLCoreError, ArithmeticError):
    """Rollout and learner disagree on log-probabilities by more than `train.max_logprob_diff`."""


class StoppedError(RLCoreError, InterruptedError):
    """A signal ended the work early, after a checkpoint. The message says how to go on."""


class CheckpointError(RLCoreError, RuntimeError):
    """A checkpoint or model is missing, incomplete, of another configuration, or cannot be written."""


class StorageError(RLCoreError, OSError):
    """A file cannot be written: no room is left, or the place is gone. The message names the file."""


def message_of(error: BaseException) -> str:
    """Returns the error's own line, without the remote traceback that Ray puts around it."""
    cause = getattr(error, "cause", None)
    return str(cause if isinstance(cause, RLCoreError) else error)
