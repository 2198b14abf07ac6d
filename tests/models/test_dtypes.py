"""The type in which the weights of evaluated models are loaded."""

import json

import pytest
import torch
import transformers

from stochastok_cli.errors import UserError
from stochastok_cli.evaluation.run import evaluate
from stochastok_cli.models.llama.state_dict import save_model
from stochastok_cli.models.model_sources import DTYPES, dtype_of, locate_model, open_model
from stochastok_cli.tokenization.loaders import load_vocabulary
from tests.evaluation.test_benchmarks import ROWS
from tests.models.huggingface_families import random_model
from tests.models.small_models import sharp_model, small_config


@pytest.fixture(params=["own", "qwen2"])
def folder(request, tmp_path):
    """A checkpoint whose weights are stored in bfloat16."""
    if request.param == "own":
        save_model(sharp_model(small_config()).to(torch.bfloat16), tmp_path, load_vocabulary("sample2k"))
    else:
        random_model(request.param).to(torch.bfloat16).save_pretrained(tmp_path)
        load_vocabulary("sample2k").save_tokenizer(tmp_path)
    return tmp_path


def opened(folder, dtype="auto", device="cpu"):
    return open_model(locate_model(str(folder), folder, dtype), load_vocabulary(folder), device)


def types(tensors):
    return {tensor.dtype for tensor in tensors if tensor.is_floating_point()}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_weights_have_the_type_that_was_asked_for_and_tables_stay_float32(folder, dtype):
    model = opened(folder, dtype)
    assert types(model.parameters()) == {getattr(torch, dtype)}
    assert types(model.buffers()) == {torch.float32}
    assert model(torch.arange(1, 9)[None]).dtype == getattr(torch, dtype)


def test_by_default_the_stored_type_is_taken_on_a_gpu_and_float32_on_a_cpu(folder):
    assert types(opened(folder).parameters()) == {torch.float32}
    by_default, explicit = (locate_model(str(folder), folder, dtype) for dtype in ("auto", "float32"))
    assert dtype_of(by_default, "cuda") == torch.bfloat16
    assert dtype_of(explicit, "cuda") == torch.float32


def test_metrics_of_a_type_are_those_of_a_model_that_was_loaded_with_it(tmp_path):
    random_model("qwen2").save_pretrained(tmp_path)
    load_vocabulary("sample2k").save_tokenizer(tmp_path)
    (tmp_path / "rows.jsonl").write_text(json.dumps(ROWS["hellaswag"]))
    tasks = [f"hellaswag={tmp_path / 'rows.jsonl'}"]
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    [in_memory] = evaluate(loaded, tasks, tokenizer=tokenizer, device="cpu")
    [by_name] = evaluate(tmp_path, tasks, device="cpu", dtype="bfloat16")
    [exact] = evaluate(tmp_path, tasks, device="cpu")
    assert by_name.values == in_memory.values != exact.values
    with pytest.raises(UserError, match="convert a loaded model"):
        evaluate(loaded, tasks, tokenizer=tokenizer, device="cpu", dtype="float32")


def test_an_unknown_type_is_refused(folder):
    with pytest.raises(UserError, match=", ".join(DTYPES)):
        evaluate(folder, "alignment", dtype="int8")
