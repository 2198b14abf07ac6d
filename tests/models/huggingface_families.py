"""Tiny configurations of architectures of `transformers`, and models of random weights."""

import torch
import transformers

SIZES = {"vocab_size": 2048, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
_GATED = {**SIZES, "intermediate_size": 64, "num_key_value_heads": 2, "max_position_embeddings": 64}
_LLAMA_3 = {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
_LLAMA_3["original_max_position_embeddings"] = 16

CONFIGS = {
    "gpt2": transformers.GPT2Config(vocab_size=2048, n_embd=32, n_layer=2, n_head=4, n_positions=64),
    "gpt_neox": transformers.GPTNeoXConfig(**SIZES, intermediate_size=64, max_position_embeddings=64),
    "llama3_tied": transformers.LlamaConfig(**_GATED, rope_parameters=_LLAMA_3, tie_word_embeddings=True),
    "llama3_untied": transformers.LlamaConfig(**_GATED, rope_parameters=_LLAMA_3, tie_word_embeddings=False),
    "qwen2": transformers.Qwen2Config(**_GATED, attention_bias=True),
    "qwen3": transformers.Qwen3Config(**_GATED, head_dim=16, tie_word_embeddings=True),
    "gemma2": transformers.Gemma2Config(
        **_GATED, head_dim=8, final_logit_softcapping=2.0, attn_logit_softcapping=5.0, sliding_window=4
    ),
    "gemma3": transformers.Gemma3TextConfig(**_GATED, head_dim=8, sliding_window=4),
    "olmo2": transformers.Olmo2Config(**_GATED),
    "mistral": transformers.MistralConfig(**_GATED, sliding_window=4),
    "phi": transformers.PhiConfig(**_GATED),
    "granite": transformers.GraniteConfig(**_GATED, logits_scaling=4.0),
    "cohere": transformers.CohereConfig(**_GATED, logit_scale=0.25),
    "opt": transformers.OPTConfig(
        **SIZES, ffn_dim=64, max_position_embeddings=64, word_embed_proj_dim=32, pad_token_id=1
    ),
    "bloom": transformers.BloomConfig(vocab_size=2048, hidden_size=32, n_layer=2, n_head=4),
}


def random_model(family: str) -> transformers.PreTrainedModel:
    """A float32 model whose matrices are far from their usual small random values, so that tokens matter."""
    torch.manual_seed(3)
    model = transformers.AutoModelForCausalLM.from_config(CONFIGS[family], dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(8)
    return model.eval()
