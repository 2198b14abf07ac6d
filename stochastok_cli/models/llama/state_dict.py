"""Weights on disk, in the layout that `transformers` opens as a `LlamaForCausalLM`; nothing is ever unpickled.

A folder holds `config.json`, `generation_config.json`, the tokenizer's files and `model.safetensors`, whose bytes
depend on the weights alone. Reading also takes any other Llama-family folder that fits the network: 16-bit weights,
and weights in several files listed by `model.safetensors.index.json`.
"""

import json
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from stochastok_cli.artifacts import write_json
from stochastok_cli.config import AttentionConfig, CoreModelConfig, FeedForwardConfig, ModelConfig
from stochastok_cli.errors import FAILED, UserError
from stochastok_cli.models.llama.attention import ROPE_BASE
from stochastok_cli.models.llama.model import NORM_EPS, Llama

if TYPE_CHECKING:
    from stochastok_cli.tokenization.vocabulary import Vocabulary

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_COPY_AGAIN = "copy or download it again"


# ------------------------------------------------------------------------------------------------ writing


def save_model(model: nn.Module, folder: Path, vocabulary: "Vocabulary") -> None:
    """Writes the model (a Llama, compiled or wrapped or not) and its tokenizer into an existing folder."""
    inner = _unwrapped(model)
    ours = _named_tensors(inner)
    tensors = {
        part.stored: ours[part.name][part.rows].detach().to("cpu", torch.float32).contiguous()
        for part in _layout(inner.config)
    }
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    write_json(folder / CONFIG, _config_json(inner.config, vocabulary.end_of_text))
    ends = {"bos_token_id": vocabulary.end_of_text, "eos_token_id": vocabulary.end_of_text}
    write_json(folder / "generation_config.json", ends)
    vocabulary.save_tokenizer(folder)


def _config_json(config: ModelConfig, end_of_text: int) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_dim,
        "intermediate_size": config.core_model.ffn.ffn_dim,
        "num_hidden_layers": config.core_model.num_layers,
        "num_attention_heads": config.core_model.attn.num_heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim,
        "max_position_embeddings": config.context_window,
        "hidden_act": "silu",
        "rms_norm_eps": NORM_EPS,
        "rope_theta": ROPE_BASE,  # read by transformers 4; the next entry by transformers 5
        "rope_parameters": {"rope_type": "default", "rope_theta": ROPE_BASE},
        "attention_bias": False,
        "attention_dropout": 0.0,
        "mlp_bias": False,
        "tie_word_embeddings": config.embedding_weight_tying,
        "bos_token_id": end_of_text,
        "eos_token_id": end_of_text,
        "torch_dtype": "float32",  # likewise: 4 reads this one, 5 the next
        "dtype": "float32",
    }


# ------------------------------------------------------------------------------------------------ reading


def load_model(folder: Path, device: str | torch.device = "cpu") -> Llama:
    """The model in a folder, float32, in evaluation mode and without dropout.

    Raises UserError where the folder holds another kind of model, or files are missing, damaged or cut short.
    """
    model = Llama(read_model_config(folder))
    load_weights(model, folder)
    return model.to(device).eval()


def read_model_config(folder: Path) -> ModelConfig:
    """The model section that `config.json` describes; UserError naming each field that this network can't follow."""
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder of a model", fix=f"name one that holds {CONFIG} and {WEIGHTS}")
    file = folder / CONFIG
    tree = _read_json(file)
    problems = [f"{field} = {value!r} (only {only!r})" for field, value, only in _fixed_fields(tree) if value != only]

    def size(field: str, absent: int | None = None) -> int:
        value = tree.get(field) or absent
        if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
            return value
        problems.append(f"{field} = {value!r} (must be a whole number from 1)")
        return 1

    width, heads = size("hidden_size"), size("num_attention_heads")
    kv_heads = size("num_key_value_heads", absent=heads)
    head_dim = size("head_dim", absent=max(width // heads, 1))
    config = ModelConfig(
        core_model=CoreModelConfig(
            num_layers=size("num_hidden_layers"),
            ffn=FeedForwardConfig(ffn_dim=size("intermediate_size")),
            attn=AttentionConfig(num_heads=heads, group_size=max(heads // kv_heads, 1)),
        ),
        hidden_dim=width,
        context_window=size("max_position_embeddings", absent=2048),
        vocab_size=size("vocab_size"),
        embedding_weight_tying=bool(tree.get("tie_word_embeddings", False)),
    )
    if not problems:
        if head_dim * heads != width or head_dim % 2:
            problems.append(f"head_dim = {head_dim} (must be even, and hidden_size / num_attention_heads)")
        if config.kv_heads * config.core_model.attn.group_size != heads or config.kv_heads != kv_heads:
            problems.append(f"num_key_value_heads = {kv_heads} (must divide num_attention_heads)")
    if problems:
        raise UserError(f"{file} describes a model that this program can't run: {', '.join(problems)}")
    return config


def _fixed_fields(tree: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """`(field, its value, the only one supported)`; an absent field has the value that `transformers` takes for it."""
    # transformers 4 writes rope_theta and rope_scaling, 5 writes rope_parameters.
    rope = tree.get("rope_parameters") or tree.get("rope_scaling") or {}
    rope = rope if isinstance(rope, dict) else {"rope_type": rope}
    return [
        ("model_type", tree.get("model_type"), "llama"),
        ("hidden_act", tree.get("hidden_act", "silu"), "silu"),
        ("rms_norm_eps", tree.get("rms_norm_eps", NORM_EPS), NORM_EPS),
        ("rope_theta", rope.get("rope_theta", tree.get("rope_theta", ROPE_BASE)), ROPE_BASE),
        ("rope_type", rope.get("rope_type", rope.get("type", "default")), "default"),
        ("attention_bias", tree.get("attention_bias", False), False),
        ("mlp_bias", tree.get("mlp_bias", False), False),
    ]


def load_weights(model: nn.Module, folder: Path) -> None:
    """Copies the weights of a folder into a model of the same shapes, converting 16-bit ones.

    Raises UserError naming the tensor that is missing, not known here, or of another shape, and the damaged file.
    """
    inner = _unwrapped(model)
    ours = _named_tensors(inner)
    files = _tensor_files(folder)
    parts = {part.stored: part for part in _layout(inner.config)}
    _require_same_names(folder, set(parts), set(files), inner.config.embedding_weight_tying)
    by_file: dict[Path, list[_Part]] = defaultdict(list)
    for part in parts.values():
        by_file[files[part.stored].file].append(part)
    with torch.no_grad():
        for file, contained in by_file.items():
            with _opened(file) as stream:
                for part in contained:
                    _copy(stream.get_tensor(files[part.stored].name), ours[part.name][part.rows], part.stored, file)


def _copy(source: Tensor, target: Tensor, name: str, file: Path) -> None:
    if source.shape != target.shape:
        shapes = f"the shape {list(source.shape)}, the model's has {list(target.shape)}"
        raise UserError(f"{file}: {name} has {shapes}", fix="the weights belong to another configuration")
    if source.dtype not in (torch.float32, torch.float16, torch.bfloat16, torch.float64):
        raise UserError(f"{file}: {name} has the type {source.dtype}", fix="name a model that isn't quantized")
    target.copy_(source)


def _require_same_names(folder: Path, wanted: set[str], stored: set[str], tied: bool) -> None:
    # What other programs add and the network has no use for: a copy of the shared matrix, RoPE tables of old versions.
    spare = {name for name in stored if name.endswith("rotary_emb.inv_freq") or (tied and name == "lm_head.weight")}
    for names, complaint in [
        (wanted - stored, "has no tensor"),
        (stored - wanted - spare, "has a tensor that this network lacks:"),
    ]:
        if names:
            more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
            raise UserError(f"{folder} {complaint} {min(names)}{more}", fix=f"its weights don't belong to its {CONFIG}")


class _Stored(NamedTuple):
    """Where a tensor is: the file, and its name there, which may carry a wrapper's prefix."""

    file: Path
    name: str


def _tensor_files(folder: Path) -> dict[str, _Stored]:
    """Plain tensor name → where it is, from `model.safetensors` or else from the index of several files."""
    single, index = folder / WEIGHTS, folder / INDEX
    if single.is_file():
        with _opened(single) as stream:
            return {_plain(name): _Stored(single, name) for name in stream.keys()}  # noqa: SIM118 (no mapping)
    if index.is_file():
        weight_map = _read_json(index).get("weight_map")
        if not isinstance(weight_map, dict) or not all(isinstance(file, str) for file in weight_map.values()):
            raise UserError(f"{index} has no weight_map of file names", fix=_COPY_AGAIN, exit_code=FAILED)
        return {_plain(name): _Stored(folder / file, name) for name, file in weight_map.items()}
    pickles = sorted(file.name for pattern in _PICKLES for file in folder.glob(pattern))
    if pickles:
        raise UserError(
            f"{folder} holds its weights in {pickles[0]}, a pickle, which can run any code when it is opened",
            fix=f"convert it to {WEIGHTS} (transformers' save_pretrained writes that)",
        )
    raise UserError(f"{single} is missing", fix=_COPY_AGAIN, exit_code=FAILED)


def _read_json(file: Path) -> dict[str, Any]:
    try:
        tree = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{file} is missing", fix="name the folder of a model, as transformers writes it") from None
    except OSError as error:
        raise UserError(f"{file} can't be read: {error.strerror}", exit_code=FAILED) from None
    except ValueError:
        raise UserError(f"{file} is damaged: it is not JSON", fix=_COPY_AGAIN, exit_code=FAILED) from None
    if not isinstance(tree, dict):
        raise UserError(f"{file} is damaged: it holds no JSON object", fix=_COPY_AGAIN, exit_code=FAILED)
    return tree


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    """A safetensors file; what is wrong with it, at once or while its tensors are read, becomes a UserError."""
    try:
        with safe_open(file, framework="pt") as stream:
            yield stream
    except FileNotFoundError:
        raise UserError(f"{file} is missing", fix=_COPY_AGAIN, exit_code=FAILED) from None
    except (SafetensorError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{file} is damaged or cut short ({reason})", fix=_COPY_AGAIN, exit_code=FAILED) from None


# ------------------------------------------------------------------------------------------------ names


class _Part(NamedTuple):
    """A tensor on disk and where it lives here: some rows of one of our tensors, which may hold several of them."""

    stored: str
    name: str
    rows: slice = slice(None)


def _layout(config: ModelConfig) -> Iterator[_Part]:
    """Every tensor of the `transformers` layout."""
    queries = config.hidden_dim
    keys = queries + config.kv_heads * config.head_dim
    ffn = config.core_model.ffn.ffn_dim
    yield _Part("model.embed_tokens.weight", "embedding.weight")
    for i in range(config.core_model.num_layers):
        theirs, ours = f"model.layers.{i}", f"layers.{i}"
        yield _Part(f"{theirs}.input_layernorm.weight", f"{ours}.attention_norm.weight")
        yield _Part(f"{theirs}.self_attn.q_proj.weight", f"{ours}.attention.qkv.weight", slice(0, queries))
        yield _Part(f"{theirs}.self_attn.k_proj.weight", f"{ours}.attention.qkv.weight", slice(queries, keys))
        yield _Part(f"{theirs}.self_attn.v_proj.weight", f"{ours}.attention.qkv.weight", slice(keys, None))
        yield _Part(f"{theirs}.self_attn.o_proj.weight", f"{ours}.attention.output.weight")
        yield _Part(f"{theirs}.post_attention_layernorm.weight", f"{ours}.ffn_norm.weight")
        yield _Part(f"{theirs}.mlp.gate_proj.weight", f"{ours}.ffn.gate_up.weight", slice(0, ffn))
        yield _Part(f"{theirs}.mlp.up_proj.weight", f"{ours}.ffn.gate_up.weight", slice(ffn, None))
        yield _Part(f"{theirs}.mlp.down_proj.weight", f"{ours}.ffn.down.weight")
    yield _Part("model.norm.weight", "norm.weight")
    if not config.embedding_weight_tying:
        yield _Part("lm_head.weight", "head.weight")


def _unwrapped(model: Any) -> Llama:
    """The Llama inside `torch.compile` and DistributedDataParallel, in whatever order they were put around it."""
    while not isinstance(model, Llama):
        model = model._orig_mod if hasattr(model, "_orig_mod") else model.module
    return model


def _named_tensors(model: Llama) -> dict[str, Tensor]:
    """The model's own tensors (not copies) by name, as if none of its parts were compiled."""
    return {_plain(name): tensor for name, tensor in model.state_dict().items()}


def _plain(name: str) -> str:
    """A tensor's name without what `torch.compile` and DistributedDataParallel put before and into it."""
    return name.removeprefix("module.").replace("_orig_mod.", "").removeprefix("module.")
