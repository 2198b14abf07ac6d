"""The weights of a `Llama` in the layout of `transformers`, which opens it as `LlamaForCausalLM`.

A folder holds `config.json`, `generation_config.json`, the tokenizer's files and `model.safetensors`, whose bytes
depend on the weights alone. Other folders of the Llama family can be read, too, if the network fits them: also with
16-bit weights, and with weights in several files.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from stochastok_cli.config import ModelConfig
from stochastok_cli.errors import UserError
from stochastok_cli.json_files import write_json
from stochastok_cli.models.base import unwrap
from stochastok_cli.models.llama.model import Llama
from stochastok_cli.models.llama_config import config_json
from stochastok_cli.models.weight_files import CONFIG, WEIGHTS, find_tensors, open_safetensors, strip_wrappers

if TYPE_CHECKING:
    from stochastok_cli.tokenization.vocabulary import Vocabulary


# ------------------------------------------------------------------------------------------------ names


class _Mapping(NamedTuple):
    """A tensor of the `transformers` layout, and the rows of our tensor that hold it.

    Attributes:
        hf_name: Its name there.
        name: The name of our tensor, which may hold several of theirs.
        rows: Their place in it.
    """

    hf_name: str
    name: str
    rows: slice = slice(None)


def _mappings(config: ModelConfig) -> Iterator[_Mapping]:
    """All tensors of the `transformers` layout: our `qkv` and `gate_up` hold several of them, one below the other."""
    queries = config.hidden_dim
    keys = queries + config.kv_heads * config.head_dim
    ffn = config.core_model.ffn.ffn_dim
    yield _Mapping("model.embed_tokens.weight", "embedding.weight")
    for i in range(config.core_model.num_layers):
        hf, ours = f"model.layers.{i}", f"layers.{i}"
        yield _Mapping(f"{hf}.input_layernorm.weight", f"{ours}.attention_norm.weight")
        yield _Mapping(f"{hf}.self_attn.q_proj.weight", f"{ours}.attention.qkv.weight", slice(0, queries))
        yield _Mapping(f"{hf}.self_attn.k_proj.weight", f"{ours}.attention.qkv.weight", slice(queries, keys))
        yield _Mapping(f"{hf}.self_attn.v_proj.weight", f"{ours}.attention.qkv.weight", slice(keys, None))
        yield _Mapping(f"{hf}.self_attn.o_proj.weight", f"{ours}.attention.output.weight")
        yield _Mapping(f"{hf}.post_attention_layernorm.weight", f"{ours}.ffn_norm.weight")
        yield _Mapping(f"{hf}.mlp.gate_proj.weight", f"{ours}.ffn.gate_up.weight", slice(0, ffn))
        yield _Mapping(f"{hf}.mlp.up_proj.weight", f"{ours}.ffn.gate_up.weight", slice(ffn, None))
        yield _Mapping(f"{hf}.mlp.down_proj.weight", f"{ours}.ffn.down.weight")
    yield _Mapping("model.norm.weight", "norm.weight")
    if not config.embedding_weight_tying:
        yield _Mapping("lm_head.weight", "head.weight")


def to_hf(state_dict: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """The state dict of `LlamaForCausalLM` from that of a `Llama`: contiguous tensors on the CPU."""
    ours = {strip_wrappers(name): tensor for name, tensor in state_dict.items()}
    return {tensor.hf_name: ours[tensor.name][tensor.rows].detach().cpu().contiguous() for tensor in _mappings(config)}


# ------------------------------------------------------------------------------------------------ writing


def save_model(
    model: nn.Module, folder: Path, vocabulary: "Vocabulary", state_dict: Mapping[str, Tensor] | None = None
) -> None:
    """Writes a model and its tokenizer into an existing folder.

    Args:
        model: A `Llama`, which may be compiled or wrapped.
        folder: Where to write.
        vocabulary: The tokenizer.
        state_dict: The model's state dict, where its own holds only a part of each tensor.
    """
    llama = _unwrap_llama(model)
    tensors = to_hf(llama.state_dict() if state_dict is None else state_dict, llama.config)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    dtype = str(tensors["model.norm.weight"].dtype).removeprefix("torch.")
    write_json(folder / CONFIG, config_json(llama.config, vocabulary.end_of_text, dtype))
    ends = {"bos_token_id": vocabulary.end_of_text, "eos_token_id": vocabulary.end_of_text}
    write_json(folder / "generation_config.json", ends)
    vocabulary.save_tokenizer(folder, llama.config.context_window)


# ------------------------------------------------------------------------------------------------ reading


class _NoInitialization(TorchFunctionMode):
    """Leaves weights as they are allocated, and computes other tables on the CPU.

    On the device `meta`, both would import torch's compiler, which takes seconds.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        if func is torch.arange:
            kwargs = {"device": "cpu", **kwargs}
        return func(*args, **kwargs)


def check_weights(config: ModelConfig, folder: Path) -> None:
    """Checks that the headers of a folder's files describe the tensors of a model of these hyperparameters.

    Raises UserError naming a tensor that is missing, unknown or of another shape, or a file that is damaged.
    """
    stored = find_tensors(folder)
    last = f"model.layers.{config.core_model.num_layers - 1}.input_layernorm.weight"
    if last not in stored:  # before as many layers are listed as a damaged config.json may name
        raise UserError(f"{folder} has no tensor {last}", fix=f"its weights don't belong to its {CONFIG}")
    with torch.device("meta"), _NoInitialization():
        ours = Llama(config).state_dict()
    wanted = {tensor.hf_name: ours[tensor.name][tensor.rows].shape for tensor in _mappings(config)}
    _require_same_names(folder, set(wanted), set(stored), config.embedding_weight_tying)
    by_file: dict[Path, list[str]] = defaultdict(list)
    for name in wanted:
        by_file[stored[name].file].append(name)
    for file, names in by_file.items():
        with open_safetensors(file) as stream:
            for name in names:
                _require_same_shape(stream.get_slice(stored[name].name).get_shape(), list(wanted[name]), name, file)


def load_weights(model: nn.Module, folder: Path) -> None:
    """Copies the weights of a folder into a model of the same shapes; 16-bit weights are converted.

    Raises UserError naming the tensor that is missing, unknown or of another shape, or the file that is damaged.
    """
    llama = _unwrap_llama(model)
    ours = {strip_wrappers(name): tensor for name, tensor in llama.state_dict().items()}
    stored = find_tensors(folder)
    wanted = {tensor.hf_name: tensor for tensor in _mappings(llama.config)}
    _require_same_names(folder, set(wanted), set(stored), llama.config.embedding_weight_tying)
    by_file: dict[Path, list[_Mapping]] = defaultdict(list)
    for tensor in wanted.values():
        by_file[stored[tensor.hf_name].file].append(tensor)
    for file, tensors in by_file.items():
        with open_safetensors(file) as stream:
            for tensor in tensors:
                source = stream.get_tensor(stored[tensor.hf_name].name)
                _copy(source, ours[tensor.name][tensor.rows], tensor.hf_name, file)


@torch.no_grad()
def _copy(source: Tensor, target: Tensor, name: str, file: Path) -> None:
    _require_same_shape(list(source.shape), list(target.shape), name, file)
    if source.dtype not in (torch.float32, torch.float16, torch.bfloat16, torch.float64):
        raise UserError(f"{file}: {name} has the type {source.dtype}", fix="name a model that isn't quantized")
    target.copy_(source)


def _require_same_shape(stored: list[int], wanted: list[int], name: str, file: Path) -> None:
    if stored != wanted:
        raise UserError(
            f"{file}: {name} has the shape {stored}, the model's has {wanted}",
            fix="the weights belong to another configuration",
        )


def _require_same_names(folder: Path, wanted: set[str], stored: set[str], tied: bool) -> None:
    # Tensors that other programs store and this network doesn't use: a copy of the shared matrix, old RoPE tables.
    unused = {name for name in stored if name.endswith("rotary_emb.inv_freq") or (tied and name == "lm_head.weight")}
    for names, problem in [
        (wanted - stored, "has no tensor"),
        (stored - wanted - unused, "has a tensor that this network lacks:"),
    ]:
        if names:
            more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
            raise UserError(f"{folder} {problem} {min(names)}{more}", fix=f"its weights don't belong to its {CONFIG}")


def _unwrap_llama(model: nn.Module) -> Llama:
    llama = unwrap(model)
    assert isinstance(llama, Llama)
    return llama
