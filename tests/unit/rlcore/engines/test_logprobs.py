"""Packed completions against the model's own forward, one unpadded row at a time, in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_models import make_qwen2_5_omni, make_qwen2_audio, make_qwen3_omni, make_text

from rlcore.engines import head, packing
from rlcore.engines.logprobs import TokenGroup, completion_logprobs
from rlcore.engines.packing import PackedLayout
from rlcore.errors import DataError
from rlcore.models.hf_model import audio_token_id, load_model

MAKERS = {
    "qwen2_audio": make_qwen2_audio,
    "qwen2_5_omni": make_qwen2_5_omni,
    "qwen3_omni": make_qwen3_omni,
    "text": make_text,
}


@pytest.fixture(scope="module", params=MAKERS)
def model(request, tmp_path_factory):
    torch.set_num_threads(1)
    if "omni" in request.param:
        pytest.importorskip("torchvision")
    model = load_model(str(MAKERS[request.param](tmp_path_factory.mktemp(request.param)))).double()
    model.set_experts_implementation("eager")  # torch's grouped products take no float64
    return model


def make_groups(model, lengths, num_audio=(5, 3, 0)) -> list[TokenGroup]:
    rng = np.random.default_rng(0)
    placeholder = audio_token_id(model.config)
    groups = []
    for group_lengths, audio in zip(lengths, num_audio, strict=True):
        audio = 0 if placeholder is None else audio
        text = rng.integers(20, 300, size=6)
        groups.append(
            TokenGroup(
                prompt_token_ids=np.concatenate([text[:2], np.full(audio, placeholder or 0), text[2:]]),
                token_ids=tuple(rng.integers(20, 300, size=n) for n in group_lengths),
                media_inputs={"audio_embeds": rng.normal(size=(audio, 128)).astype(np.float32)}
                if audio
                else {},
            )
        )
    return groups


def plain_logprobs(
    model, group: TokenGroup, tokens: np.ndarray, temperature: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logprobs and entropies of one completion by the model's own forward, unpadded and uncut."""
    ids = torch.as_tensor(np.concatenate([group.prompt_token_ids, tokens]))[None]
    embeds = model.get_input_embeddings()(ids)
    if group.media_inputs:
        where = torch.as_tensor(np.flatnonzero(group.prompt_token_ids == audio_token_id(model.config)))
        media = torch.as_tensor(group.media_inputs["audio_embeds"], dtype=embeds.dtype)
        embeds = embeds.index_copy(1, where, media[None])
    positions = torch.arange(ids.shape[1])[None]
    mask = torch.ones_like(ids)
    logits = model(inputs_embeds=embeds, attention_mask=mask, position_ids=positions).logits[0]
    distribution = (logits[len(group.prompt_token_ids) - 1 : -1] / temperature).log_softmax(-1)
    return (
        distribution.gather(-1, torch.as_tensor(tokens)[:, None])[:, 0],
        -(distribution.exp() * distribution).sum(-1),
    )


def gradients(model, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


LARGEST_MASK = packing._LARGEST_MASK


@pytest.mark.parametrize(
    ("logits_per_chunk", "temperature", "largest_mask"),
    [(1 << 24, 1.0, LARGEST_MASK), (2000, 1.0, LARGEST_MASK), (2000, 0.5, LARGEST_MASK), (1 << 24, 1.0, 0)],
)
def test_packed_groups_give_the_values_and_gradients_of_plain_rows(
    model, monkeypatch, logits_per_chunk, temperature, largest_mask
):
    """Unequal groups, a completion of one token, an empty one, a group without audio; chunks or none; longer
    completions attended to alone, or none."""
    monkeypatch.setattr(head, "LOGITS_PER_CHUNK", logits_per_chunk)
    monkeypatch.setattr(packing, "_LARGEST_MASK", largest_mask)
    groups = make_groups(model, ((9, 1, 4), (6,), (3, 0, 12)))
    rng = np.random.default_rng(1)
    model.train()  # so that the recomputation of chunks is the same as in training

    # The plain rows first: completion_logprobs switches the attention over.
    plain, loss = [], torch.zeros((), dtype=torch.float64)
    weights = [[torch.as_tensor(rng.normal(size=(2, len(t)))) for t in group.token_ids] for group in groups]
    for group, group_weights in zip(groups, weights, strict=True):
        for tokens, weight in zip(group.token_ids, group_weights, strict=True):
            logprobs, entropies = plain_logprobs(model, group, tokens, temperature)
            plain.append((logprobs.detach(), entropies.detach()))
            loss = loss + (weight[0] * logprobs).sum() + (weight[1] * entropies).sum()
    expected = gradients(model, loss)

    scored = completion_logprobs(model, groups, temperature=temperature, entropy_grad=True)
    assert scored.mask.sum(-1).tolist() == [9, 1, 4, 6, 3, 0, 12]
    total = torch.zeros(())
    flat_weights = [w for group in weights for w in group]
    for row, ((logprobs, entropies), weight) in enumerate(zip(plain, flat_weights, strict=True)):
        count = len(logprobs)
        torch.testing.assert_close(scored.logprobs[row, :count].double(), logprobs, rtol=0, atol=2e-6)
        torch.testing.assert_close(scored.entropies[row, :count].double(), entropies, rtol=0, atol=2e-6)
        total = total + (weight[0] * scored.logprobs[row, :count]).sum()
        total = total + (weight[1] * scored.entropies[row, :count]).sum()
    assert (scored.logprobs[~scored.mask] == 0).all()
    got = gradients(model, total)
    assert set(got) == set(expected)
    largest = max(grad.abs().max() for grad in expected.values())
    for name in expected:
        torch.testing.assert_close(got[name], expected[name], rtol=0, atol=1e-6 * float(largest))


def test_a_long_completion_does_not_pad_the_short_ones():
    lengths = [100] * 40 + [2000] + [0]
    layout = PackedLayout.of([30, 150], lengths, [0] * 40 + [1, 1])
    assert sorted(tuple(bucket.padded.shape) for bucket in layout.completions) == [(1, 2000), (40, 100)]
    # Pairs of tokens that are looked at: 41 x 2000 x 2150 in one block.
    assert sum(bucket.mask.numel() for bucket in layout.completions) == 2000 * 2150 + 40 * 100 * 130


def test_long_answers_have_no_mask():
    """Memory of the layout grows with the tokens, where a mask grew with their square."""
    lengths = [4096] * 8 + [100] * 40
    layout = PackedLayout.of([150] * 6, lengths, [i // 8 for i in range(48)])
    assert [one.own[1] - one.own[0] for one in layout.long] == [4096] * 8
    assert layout.long[1].prompt == (0, 150) and layout.long[1].own == (6 * 150 + 4096, 6 * 150 + 2 * 4096)
    assert [tuple(bucket.mask.shape) for bucket in layout.completions] == [(40, 1, 100, 250)]
    assert sorted(layout.unpad.tolist()) == list(range(6 * 150 + sum(lengths)))
    assert layout.position_ids[0, 900 : 900 + 4096].tolist() == list(range(150, 150 + 4096))
    # Beside a longer prompt the mask is no square, and to compute the prompt again would cost.
    assert not PackedLayout.of([30_000], [1000] * 2, [0, 0]).long


@pytest.mark.parametrize("largest_mask", [LARGEST_MASK, 0])
def test_a_sliding_window_is_kept(tmp_path, monkeypatch, largest_mask):
    """A window that cuts through prompt and completion, in a decoder whose layers use one."""
    model = load_model(str(make_text(tmp_path))).double()
    text = model.config
    text.sliding_window, text.layer_types = 5, ["sliding_attention"] * len(text.layer_types)
    for layer in model.model.layers:
        layer.self_attn.sliding_window, layer.self_attn.layer_type = 5, "sliding_attention"
    model.model.has_sliding_layers = True
    monkeypatch.setattr(packing, "_LARGEST_MASK", largest_mask)
    (group,) = make_groups(model, ((9, 4, 2),), num_audio=(0,))
    plain = [plain_logprobs(model, group, tokens)[0] for tokens in group.token_ids]
    scored = completion_logprobs(model, [group])
    for row, expected in enumerate(plain):
        torch.testing.assert_close(
            scored.logprobs[row, : len(expected)].double(), expected, rtol=0, atol=2e-6
        )


def test_a_model_that_was_switched_over_still_runs_plain(model):
    (group,) = make_groups(model, ((7,),), num_audio=(4,))
    before = plain_logprobs(model, group, group.token_ids[0])[0]
    completion_logprobs(model, [group])
    torch.testing.assert_close(plain_logprobs(model, group, group.token_ids[0])[0], before, rtol=0, atol=1e-9)


def test_media_that_do_not_fit_are_named(tmp_path):
    model = load_model(str(make_qwen2_audio(tmp_path)))
    (group,) = make_groups(model, ((3,),), num_audio=(4,))
    short = {"audio_embeds": group.media_inputs["audio_embeds"][:-1]}
    group = TokenGroup(prompt_token_ids=group.prompt_token_ids, token_ids=group.token_ids, media_inputs=short)
    with pytest.raises(DataError, match="4 audio placeholders but its media_inputs give 3"):
        completion_logprobs(model, [group])


def test_the_head_is_called_once_whatever_the_number_of_tokens(monkeypatch, tmp_path):
    """Under ZeRO-3 a call is a collective, and ranks have different numbers of tokens."""
    model = load_model(str(make_text(tmp_path)))
    monkeypatch.setattr(head, "LOGITS_PER_CHUNK", 2000)
    calls = []
    model.get_output_embeddings().register_forward_hook(lambda *_: calls.append(None))
    for lengths in ((30, 20), (2,)):
        completion_logprobs(model, make_groups(model, (lengths,), num_audio=(0,)))
    assert len(calls) == 2
