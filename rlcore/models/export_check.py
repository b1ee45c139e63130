"""Tries at the start of a training what an export at its end needs, all but the weights themselves."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin

from rlcore.errors import CheckpointError, ConfigError
from rlcore.models.companions import companion_files, reason_of, write_files
from rlcore.models.hf_model import load_processor, saved_names, tokenizer_of


def prepare_export(model: PreTrainedModel, path: str, folder: Path, *, num_bytes: int) -> dict[str, bytes]:
    """Writes all but the weights beside `folder`, reads it back, and returns it, for `save_checkpoint`.

    Args:
        path: checkpoint that the model was loaded from.
        folder: of the model to come.
        num_bytes: size of what will be written there, weights and a checkpoint.

    Raises:
        ConfigError: configuration, tokenizer, chat template or processor cannot be saved, or are others when
            they are read back.
        CheckpointError: the folder cannot be written, or its disk has too little room.
    """
    saved_names(model)
    processor = load_processor(path)
    files = companion_files(model, processor)
    try:
        if folder.exists() and not folder.is_dir():
            raise NotADirectoryError(f"{folder} is a file")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".export.") as trial:
            write_files(Path(trial), files)
            again = _read_back(trial, path)
        free = shutil.disk_usage(folder.parent).free
    except OSError as error:
        raise CheckpointError(
            f"{folder}: the trained model cannot be written there: {reason_of(error)}"
        ) from error
    if free < num_bytes:
        raise CheckpointError(
            f"{folder}: {free / 1e6:,.0f} MB are free there, the trained model and a checkpoint take "
            f"{num_bytes / 1e6:,.0f} MB; make room, or choose another folder"
        )
    for what, one, other in (
        ("chat template", *(_templates(each.chat_template) for each in (processor, again))),
        ("vocabulary", tokenizer_of(processor).get_vocab(), tokenizer_of(again).get_vocab()),
    ):
        if one != other:
            raise ConfigError(f"model.path: {path}: its {what} is another one once it is saved and loaded")
    return files


def _read_back(folder: str, path: str) -> ProcessorMixin | PreTrainedTokenizerBase:
    try:
        return load_processor(folder)
    except Exception as error:  # the boundary to transformers, whose checks raise what they like
        raise ConfigError(
            f"model.path: {path}: its processor or tokenizer is saved and cannot be loaded then: "
            f"{reason_of(error)}"
        ) from error


def _templates(chat_template: str | dict[str, str] | None) -> dict[str, str]:
    """Returns chat templates by name; the only one is the default."""
    return chat_template if isinstance(chat_template, dict) else {"default": chat_template or ""}
