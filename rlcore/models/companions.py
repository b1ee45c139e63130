"""The files beside the weights in a checkpoint's folder: configuration, generation settings, processor."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin
from transformers.utils import GENERATION_CONFIG_NAME, cached_file

from rlcore.errors import ConfigError
from rlcore.models.families import family_of


def companion_files(
    model: PreTrainedModel, processor: ProcessorMixin | PreTrainedTokenizerBase | None
) -> dict[str, bytes]:
    """Returns all that lies beside the weights in a checkpoint's folder: content by relative path.

    What transformers loads and refuses to save, such as a `generation_config.json` with `temperature` but
    without `do_sample`, stays as its author wrote it.

    Raises:
        ConfigError: the configuration or the processor cannot be saved.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            config = family_of(model).checkpoint_config(model)
            if config is model.config:
                config.architectures = [type(model).__name__]
            config.save_pretrained(folder)
            _save_generation_config(model, folder)
            if processor is not None:
                processor.save_pretrained(folder)
        except Exception as error:  # the boundary to transformers, whose checks raise what they like
            raise ConfigError(
                f"model.path: {model.name_or_path} can be loaded and not saved: {reason_of(error)}; correct "
                "its configuration, tokenizer or processor"
            ) from error
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def _save_generation_config(model: PreTrainedModel, folder: Path) -> None:
    """Copies the author's file where it is still the model's; else writes the model's own as it stands.
    `GenerationConfig.save_pretrained` would refuse what transformers itself loads."""
    own, target = model.generation_config, folder / GENERATION_CONFIG_NAME
    if own is None:
        return
    source = None
    if model.name_or_path:
        source = cached_file(
            model.name_or_path,
            GENERATION_CONFIG_NAME,
            local_files_only=True,
            _raise_exceptions_for_gated_repo=False,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
    if source is not None and GenerationConfig.from_pretrained(str(Path(source).parent)) == own:
        shutil.copyfile(source, target)
    else:
        own.to_json_file(target, use_diff=True, keys_to_pop=["compile_config"])


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Writes files by their relative paths into a folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def reason_of(error: BaseException) -> str:
    """Returns an error's type and message on one line, cut at 300 characters."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
