"""Requests turned into vLLM's prompts and parameters, and vLLM's outputs into completions.

This module knows the records of either side; not the engine that works on them, nor its weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

import torch
from transformers import PreTrainedTokenizerBase

from rlcore.engines.sampling import EngineRequest, Sampling
from rlcore.errors import DataError
from rlcore.models.families import Family
from rlcore.models.families.base import PICTURES
from rlcore.models.media_modules import to_encode
from rlcore.models.tokens import answer_text, markup_ids, special_tokens_argument, until_stop
from rlcore.types import Completion

if TYPE_CHECKING:
    from vllm import LLM, CompletionOutput, SamplingParams
    from vllm.inputs import EngineInput, TextPrompt, TokensPrompt
    from vllm.logprobs import FlatLogprobs


def vllm_prompt(
    request: EngineRequest, family: Family, *, embeds: bool, audio_id: int | None
) -> TextPrompt | TokensPrompt:
    """Returns a request's prompt in vLLM's form, without an answer that has begun.

    Args:
        family: the model's.
        embeds: whether the engine takes audio as embeddings (`model.media: embeds`).
        audio_id: the token that stands for an embedding in `prompt_token_ids`.
    """
    encoded = request.encoded
    inputs = encoded.media_inputs
    if not inputs:
        return {"prompt_token_ids": list(encoded.prompt_token_ids)}
    data: dict[str, Any] = {
        kind: {name: torch.from_numpy(inputs[name]) for name in (f"{kind}_embeds", f"{kind}_grid_thw")}
        for kind in PICTURES
        if f"{kind}_embeds" in inputs
    }
    if encoded.media:
        rate = encoded.media["sampling_rate"]
        data["audio"] = [(waveform, rate) for waveform in encoded.media["audio"]]
    elif "audio_embeds" in inputs and embeds:
        embeddings = torch.from_numpy(inputs["audio_embeds"])
        # Between two audios stand their marks.
        is_audio = (token == audio_id for token in encoded.prompt_token_ids)
        lengths = [len(list(run)) for is_run, run in groupby(is_audio) if is_run]
        audios = list(embeddings.split(lengths)) if len(lengths) > 1 else embeddings[None]
        data["audio"] = {"audio_embeds": audios}
    elif to_encode(inputs):
        assert family.engine_features is not None, "MediaEncoder leaves the media where the engine needs them"
        data["audio"] = family.engine_features(inputs)
    return {"prompt": request.text, "multi_modal_data": data}


def rendered(llm: LLM, prompt: TextPrompt | TokensPrompt) -> EngineInput:
    """Tokenises a prompt and processes its media, as vLLM's engine takes them."""
    from vllm.renderers.inputs.preprocess import parse_model_prompt

    renderer = llm.llm_engine.renderer
    parsed = parse_model_prompt(llm.model_config, prompt)
    params = renderer.default_cmpl_tok_params
    if special := special_tokens_argument(llm.get_tokenizer(), prompt.get("prompt") or ""):
        params = params.with_kwargs(**special)
    (whole,) = renderer.render_cmpl([parsed], params)
    return whole


def sampling_params(
    sampling: Sampling, *, seed: int | None, banned: Iterable[int], has_markup: bool = False
) -> SamplingParams:
    """Returns vLLM's parameters for a request.

    Args:
        banned: token ids that no request may sample, unless `sampling.allowed_token_ids` names them.
        has_markup: whether the tokenizer has special tokens that a stop text may name
            (`rlcore.models.tokens.markup_ids`).
    """
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

    never = {*banned, *sampling.banned_token_ids} - {*sampling.allowed_token_ids}
    structured = StructuredOutputsParams(**sampling.structured) if sampling.structured else None
    return SamplingParams(
        n=sampling.n,
        max_tokens=sampling.max_tokens,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        stop=list(sampling.stop),
        include_stop_str_in_output=True,  # its tokens are in token_ids in any case
        structured_outputs=structured,
        seed=seed,
        logprobs=None if sampling.logprob_token_ids else sampling.num_logprobs,
        logprob_token_ids=list(sampling.logprob_token_ids) or None,
        prompt_logprobs=0 if sampling.scores_prompt else None,  # 0: of the prompt's own token alone
        allowed_token_ids=list(sampling.allowed_token_ids) or None,
        logit_bias={token: float("-inf") for token in never},
        flat_logprobs=True,
        # Token by token, vLLM would also write out each log-probability's token: half of a small model's
        # time. Only stop texts have to be looked for on the way.
        detokenize=bool(sampling.stop),
        skip_special_tokens=not has_markup,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def completion_of(
    sample: CompletionOutput,
    sampling: Sampling,
    *,
    tokenizer: PreTrainedTokenizerBase,
    policy_version: int,
    of_prompt: FlatLogprobs | None = None,
) -> Completion:
    """Returns a finished sample as a completion. `policy_version` counts where vLLM says nothing of versions.

    vLLM lists the sampled token first at every position, then the others that were asked for.

    Args:
        of_prompt: vLLM's log-probabilities of the prompt, whose first token has none.
    """
    flat = sample.logprobs
    starts = [] if flat is None else flat.start_indices  # None: the request failed before its first token
    top = None
    if flat is not None and (sampling.num_logprobs or sampling.logprob_token_ids):
        spans = zip(starts, flat.end_indices, strict=True)
        top = tuple(dict(zip(flat.token_ids[a:b], flat.logprobs[a:b], strict=True)) for a, b in spans)
    versions = tuple((int(span.version), span.end - span.start) for span in sample.weight_versions or ())
    text = sample.text  # ends at the stop text, which may end within a token
    if not sampling.stop or markup_ids(tokenizer):
        text = until_stop(answer_text(tokenizer, sample.token_ids), sampling.stop)
    return Completion(
        token_ids=tuple(sample.token_ids),
        logprobs=tuple(flat.logprobs[start] for start in starts),
        text=text,
        finish_reason=sample.finish_reason or "unfinished",
        policy_version=versions[0][0] if versions else policy_version,
        version_spans=versions if len(versions) > 1 else (),
        top_logprobs=top,
        prompt_logprobs=of_prompt
        and tuple(of_prompt.logprobs[start] for start in of_prompt.start_indices[1:]),
    )


def check_expansion(request: EngineRequest, seen: Sequence[int]) -> None:
    """Compares the prompt's tokens as vLLM read them with the encoder's.

    Raises:
        DataError: they differ.
    """
    expected = request.token_ids
    if tuple(seen) != expected:
        raise DataError(
            f"prompt {request.id}: vLLM reads {len(seen)} tokens, the processor {len(expected)}, differing: "
            "log-probabilities would be another prompt's. Check the checkpoint's processor and the installed "
            "versions of transformers and vLLM"
        )
