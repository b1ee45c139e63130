"""Requests in vLLM's form, without vLLM."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rlcore.engines.sampling import EngineRequest
from rlcore.engines.vllm_records import check_expansion, vllm_prompt
from rlcore.errors import DataError
from rlcore.models.families import CAUSAL_LM, QWEN2_5_OMNI, QWEN2_AUDIO
from rlcore.models.media import EncodedPrompt, Media

AUDIO = 7


def request(
    token_ids: tuple[int, ...], media_inputs: dict[str, np.ndarray], media: Media | None = None
) -> EngineRequest:
    encoded = EncodedPrompt(prompt_token_ids=token_ids, media_inputs=media_inputs, media=media or {})
    return EngineRequest(id="p", text="text", encoded=encoded)


def test_text_goes_as_tokens() -> None:
    prompt = vllm_prompt(request((1, 2, 3), {}), CAUSAL_LM, embeds=True, audio_id=None)
    assert prompt == {"prompt_token_ids": [1, 2, 3]}


@pytest.mark.parametrize(
    ("token_ids", "lengths"), [((1, AUDIO, AUDIO, AUDIO, 2), [3]), ((AUDIO, 5, AUDIO, AUDIO), [1, 2])]
)
def test_embeddings_are_split_where_marks_stand_between_audios(
    token_ids: tuple[int, ...], lengths: list[int]
) -> None:
    embeddings = np.arange(6, dtype=np.float32).reshape(3, 2)
    asked = request(token_ids, {"audio_embeds": embeddings})
    prompt = vllm_prompt(asked, QWEN2_AUDIO, embeds=True, audio_id=AUDIO)
    audios = list(prompt["multi_modal_data"]["audio"]["audio_embeds"])
    assert [len(audio) for audio in audios] == lengths
    assert torch.equal(torch.cat(audios), torch.from_numpy(embeddings))


def test_raw_audio_goes_with_its_rate() -> None:
    waveforms = [np.zeros(3), np.ones(4)]
    media = {"audio": waveforms, "sampling_rate": 16000}
    asked = request((AUDIO, AUDIO), {"input_features": np.zeros((2, 1, 1))}, media)
    audios = vllm_prompt(asked, QWEN2_AUDIO, embeds=False, audio_id=AUDIO)["multi_modal_data"]["audio"]
    assert [(len(waveform), rate) for waveform, rate in audios] == [(3, 16000), (4, 16000)]


def test_features_of_recordings_go_side_by_side_without_their_padding() -> None:
    features = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
    inputs = {"input_features": features, "feature_attention_mask": np.array([[1, 1, 1], [1, 0, 0]])}
    prompt = vllm_prompt(request((AUDIO, AUDIO), inputs), QWEN2_5_OMNI, embeds=False, audio_id=AUDIO)
    audio = prompt["multi_modal_data"]["audio"]
    assert audio["input_audio_features"].tolist() == [[0, 1, 2, 6], [3, 4, 5, 9]]
    assert audio["audio_feature_lengths"].tolist() == [3, 1]


def test_another_expansion_of_the_media_is_refused() -> None:
    asked = request((1, AUDIO, AUDIO), {})
    check_expansion(asked, [1, AUDIO, AUDIO])
    with pytest.raises(DataError, match="prompt p: vLLM reads 2 tokens, the processor 3"):
        check_expansion(asked, [1, AUDIO])
