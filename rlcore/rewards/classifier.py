"""Rewards by a sequence-classification model: one forward pass per completion, one number out."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

from rlcore.errors import ConfigError, DataError
from rlcore.models.tokens import tokens_of
from rlcore.rewards.protocol import Reward, failed_scores
from rlcore.rewards.template import fill
from rlcore.types import Group, RewardContext, Score


class SequenceClassifier(Reward):
    """Scores by a Hugging Face checkpoint with a classification head, on the GPU where the actor has one.

    With one output the score is a reward model's scalar, as it is or through a sigmoid. With several
    outputs it is the probability of `label`, and `parts` holds the probability of each.

    Args:
        model_path: folder or hub id, weights as safetensors.
        template: the text that is read; `{prompt}` is the prompt's text, `{response}` the completion's, other
            names are entries of the prompt's reference; where one is missing or null, the completions have an
            error in place of a score.
        label: name or index of the class, where there are several.
        sigmoid: squash a single output into (0, 1).
        dtype: `float32`, `bfloat16` or `float16`.
        micro_batch_size: texts in one forward pass; texts of like length go together.

    Raises:
        ConfigError: no such label, or none given where there are several.
        DataError: no such model, or one without weights or tokenizer.
    """

    def __init__(
        self,
        model_path: str,
        template: str = "{prompt}{response}",
        label: str | int | None = None,
        *,
        sigmoid: bool = True,
        dtype: str = "float32",
        micro_batch_size: int = 16,
    ):
        import torch
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        from rlcore.models.hf_model import load_config

        self._template, self._sigmoid, self._micro_batch_size = template, sigmoid, micro_batch_size
        load_config(model_path)  # tells of a folder that is not there, before the hub is asked for its files
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(model_path, trust_remote_code=False)
            self._model = AutoModelForSequenceClassification.from_pretrained(
                model_path, dtype=getattr(torch, dtype), use_safetensors=True, trust_remote_code=False
            )
        except OSError as error:
            reason = str(error).splitlines()[0]
            raise DataError(f"model_path: {model_path} lacks what a classifier needs: {reason}") from error
        self._model.eval().to(self._device)
        self._pad_id = self._model.config.pad_token_id
        if self._pad_id is None:
            self._pad_id = self._tokenizer.pad_token_id
        self._names = [str(self._model.config.id2label[i]) for i in range(self._model.config.num_labels)]
        self._label = self._index_of(label)
        limits = (
            self._tokenizer.model_max_length,
            getattr(self._model.config, "max_position_embeddings", None),
        )
        self._max_tokens = min(limit for limit in limits if limit)

    def score(self, group: Group, context: RewardContext) -> Sequence[Score]:
        return self.score_batch([group], context)[0]

    def score_batch(self, groups: Sequence[Group], context: RewardContext) -> list[list[Score]]:
        rows = [self._texts(group) for group in groups]
        scores = iter(self._read([text for row in rows if not isinstance(row, DataError) for text in row]))
        return [
            failed_scores(group, f"template: {row}")
            if isinstance(row, DataError)
            else [next(scores) for _ in row]
            for group, row in zip(groups, rows, strict=True)
        ]

    def _texts(self, group: Group) -> list[str] | DataError:
        prompt = group.prompt
        try:
            return [
                fill(self._template, prompt, prompt=prompt.text, response=c.text) for c in group.completions
            ]
        except DataError as error:
            return error

    def _index_of(self, label: str | int | None) -> int:
        if len(self._names) == 1:
            return 0
        if label in self._names:
            return self._names.index(str(label))
        if isinstance(label, int) and 0 <= label < len(self._names):
            return label
        raise ConfigError(f"label: got {label!r}, must be one of {self._names} or its index")

    def _read(self, texts: Sequence[str]) -> list[Score]:
        rows = [tokens_of(self._tokenizer, text) for text in texts]
        scores: dict[int, Score] = {}
        for i, row in enumerate(rows):
            if not 0 < len(row) <= self._max_tokens:
                scores[i] = Score(
                    0.0, error=f"its text has {len(row)} tokens; 1 to {self._max_tokens} are read"
                )
        order = sorted((i for i in range(len(rows)) if i not in scores), key=lambda i: len(rows[i]))
        for start in range(0, len(order), self._micro_batch_size):
            batch = order[start : start + self._micro_batch_size]
            scores.update(zip(batch, self._forward([rows[i] for i in batch]), strict=True))
        return [scores[i] for i in range(len(texts))]

    def _forward(self, rows: Sequence[list[int]]) -> list[Score]:
        import torch

        # The model reads a row's score before its padding, which it knows by this token. Many Llama reward
        # models name none: a token that no row holds makes that the row's last token, as for a row alone.
        held = set().union(*rows)
        pad = self._pad_id if self._pad_id is not None else next(i for i in count() if i not in held)
        self._model.config.pad_token_id = pad
        width = max(map(len, rows))
        padded = [[*row, *[pad] * (width - len(row))] for row in rows]
        mask = [[1] * len(row) + [0] * (width - len(row)) for row in rows]
        with torch.inference_mode():
            logits = self._model(
                input_ids=torch.tensor(padded, device=self._device),
                attention_mask=torch.tensor(mask, device=self._device),
            ).logits.float()
        if len(self._names) == 1:
            values = logits[:, 0].sigmoid() if self._sigmoid else logits[:, 0]
            return [Score(value) for value in values.tolist()]
        return [
            Score(row[self._label], parts=dict(zip(self._names, row, strict=True)))
            for row in logits.softmax(-1).tolist()
        ]
