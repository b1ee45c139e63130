"""Speech models that are no families of rlcore, and why, as of vLLM 0.32 and transformers 5.19."""

from __future__ import annotations

_CODE = "its code lies in the checkpoint, which is not run"
_GONE = "vLLM no longer has it"

LEFT_OUT: dict[str, tuple[str, str]] = {
    "VoxtralForConditionalGeneration": (
        "Voxtral",
        "vLLM reads it with Mistral's own tokenizer alone, the learner with transformers'",
    ),
    "GraniteSpeechForConditionalGeneration": (
        "Granite Speech",
        "vLLM divides its logits after the head (`logits_scaling`), transformers' class for speech does not",
    ),
    "Gemma3nForConditionalGeneration": (
        "Gemma 3n",
        "its layers need the token ids beside the embeddings, and its logits are capped after the head",
    ),
    "Gemma4ForConditionalGeneration": ("Gemma 4", "its layers need the token ids beside the embeddings"),
    "Phi4MultimodalForCausalLM": ("Phi-4-multimodal, transformers' form", _GONE),
    "MusicFlamingoForConditionalGeneration": ("Music Flamingo", _GONE),
    "NemotronH_Omni_Reasoning_V3": (
        "Nemotron Omni",
        "recurrent layers mix the completions that the learner packs into one row",
    ),
    "Phi4MMForCausalLM": ("Phi-4-multimodal", _CODE),
    "MoonshotKimiaForCausalLM": ("Kimi-Audio", _CODE),
    "MiMoAudioForCausalLM": ("MiMo-Audio", "neither vLLM nor transformers has it"),
    "MiniCPMO": ("MiniCPM-o", _CODE),
    "StepAudio2ForCausalLM": ("Step-Audio 2", _CODE),
    "UltravoxModel": ("Ultravox", _CODE),
}
"""Name and reason by architecture; whatever else hears or sees is refused too."""
