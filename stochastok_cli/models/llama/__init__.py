"""The Llama architecture: RMSNorm, rotary positions, grouped query heads, SwiGLU, no biases.

`model` and `attention` define it. `state_dict` reads and writes it in the layout of `transformers`. `fused` trains it
on GPUs, and is imported only where its kernels are used.
"""

from stochastok_cli.models.base import CausalLM, FusedStep, ModelSpec, register_model
from stochastok_cli.models.llama.fused.support import unsupported
from stochastok_cli.models.llama.model import Llama
from stochastok_cli.models.llama.state_dict import check_weights, load_weights, save_model
from stochastok_cli.models.llama_config import read_model_config, shorten


def _fused_step(
    model: CausalLM, dropout: float, fp8_logits: bool = False, activation_checkpointing: bool = False
) -> FusedStep:
    from stochastok_cli.models.llama.fused.step import LlamaFusedStep

    assert isinstance(model, Llama)
    return LlamaFusedStep(model, dropout, fp8_logits=fp8_logits, activation_checkpointing=activation_checkpointing)


LLAMA: ModelSpec = register_model(
    ModelSpec(
        name=Llama.model_type,
        read_config=read_model_config,
        build=Llama,
        load_weights=load_weights,
        save=save_model,
        fused_unsupported=unsupported,
        fused_step=_fused_step,
        check_weights=check_weights,
        shorten=shorten,
    )
)
