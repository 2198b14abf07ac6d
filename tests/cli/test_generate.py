"""`stochastok generate`: texts of real checkpoints, held to what `transformers` generates."""

import io
import json
import shutil
import sys

import numpy as np
import pytest
import torch
import transformers

import stochastok_cli.cli.generate  # noqa: F401 (registers the subcommand)
from stochastok_cli.cli.app import main
from stochastok_cli.errors import UserError
from stochastok_cli.evaluation.generated_texts import generate, sample_documents
from stochastok_cli.evaluation.sampling import Sampling
from stochastok_cli.json_files import json_bytes
from stochastok_cli.models.llama.state_dict import save_model
from stochastok_cli.models.model_sources import locate_model, open_model
from stochastok_cli.tokenization.loaders import load_vocabulary
from tests.data.chat_tokenizers import save_tokenizer, template
from tests.models.small_models import sharp_model, small_config

PROMPT = "The old house"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A checkpoint of our own, one without a tokenizer, and a GPT-2 with the tokenizer and the template of a chat."""
    place = tmp_path_factory.mktemp("place")
    ours, bare, gpt2 = (place / "checkpoints" / name for name in ("ours", "bare", "gpt2"))
    for folder in (ours, bare):
        folder.mkdir(parents=True)
        save_model(sharp_model(small_config()), folder, load_vocabulary("sample2k"))
    (bare / "tokenizer.json").unlink()
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=2112, n_embd=32, n_layer=2, n_head=4, n_positions=64, initializer_range=1.0, eos_token_id=7
    )
    transformers.GPT2LMHeadModel(config).save_pretrained(gpt2)
    save_tokenizer(gpt2, template("chatml"))
    return place


@pytest.fixture
def run(place, monkeypatch, capsys):
    """Runs the command in `place`; returns its exit code, stdout and stderr."""

    def run(*arguments, stdin=b""):
        monkeypatch.chdir(place)
        monkeypatch.setattr(sys, "argv", ["stochastok", "generate", *arguments])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with pytest.raises(SystemExit) as ended:
            main()
        return (ended.value.code, *capsys.readouterr())

    return run


def test_the_same_seed_gives_the_same_text(run):
    first = run("ours", PROMPT, "--max-new-tokens", "9")
    assert first[0] == 0 and first[1].startswith(PROMPT) and first[1] != f"{PROMPT}\n"
    assert run("ours", "-", "--max-new-tokens", "9", stdin=f"{PROMPT}\n".encode()) == first
    assert run("ours", PROMPT, "--max-new-tokens", "9", "--seed", "1")[1] != first[1]


def test_a_byte_order_mark_is_no_text(run):
    arguments = ("ours", "--max-new-tokens", "3", "--json")
    assert run(*arguments, stdin=b"\xef\xbb\xbfThe") == run(*arguments, stdin=b"The")


@pytest.mark.parametrize(
    ("options", "note"),
    [
        (("--top-k", "5"), "so --top-k changes nothing"),
        (("--top-p", "0.5", "--seed", "3"), "so --top-p and --seed change nothing"),
        (("--seed", "3", "--tokenization", "uniform:0.5"), ""),
    ],
)
def test_options_without_effect_are_noted(options, note, run):
    code, _, err = run("ours", PROMPT, "--max-new-tokens", "2", "--temperature", "0", *options)
    assert code == 0 and err == (note and f"note: --temperature 0 takes the likeliest token, {note}\n")


def test_an_error_stands_on_a_line_of_its_own(run, monkeypatch):
    drawn = iter([20])
    monkeypatch.setattr(Sampling, "draw", lambda *_: [next(drawn, None)])
    code, out, err = run("ours", PROMPT)
    text = load_vocabulary("sample2k").decode([20])
    assert (code, out) == (1, f"{PROMPT}{text}\n") and err.startswith("error: ")


def test_several_tokenizations_and_samples_side_by_side(run):
    names = ("canonical", "uniform:1.0", "grampa:temperature=5:0.5")
    tokenizations = [word for name in names for word in ("--tokenization", name)]
    arguments = ("ours", PROMPT, *tokenizations, "--samples", "2", "--max-new-tokens", "5")
    code, out, _ = run(*arguments, "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [(row["tokenization"], row["sample"]) for row in rows] == [(name, i) for name in names for i in (1, 2)]
    assert len({tuple(row["prompt_ids"]) for row in rows}) == 5
    assert all("".join(row["prompt_tokens"]) == PROMPT for row in rows)
    assert rows[0]["ids"] != rows[1]["ids"]
    vocabulary = load_vocabulary("sample2k")
    assert all(row["text"] == vocabulary.decode(row["ids"]) and row["finish_reason"] == "length" for row in rows)
    shown = run(*arguments)[1]
    assert all(f"{PROMPT}{row['text']}\n" in shown for row in rows) and "canonical, sample 2 of 2: The| old|" in shown


def test_what_can_only_be_equal_is_shown_once(run):
    names = ["canonical", "uniform:0.5", "canonical", "uniform:0.50"]
    tokenizations = [word for name in names for word in ("--tokenization", name)]
    arguments = ("ours", PROMPT, *tokenizations, "--samples", "2", "--max-new-tokens", "3", "--temperature", "0")
    code, out, err = run(*arguments, "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    shown = [(row["tokenization"], row["sample"]) for row in rows]
    assert (code, shown) == (0, [("canonical", 1), ("uniform:0.5", 1), ("uniform:0.5", 2)])
    assert err.splitlines() == [
        "note: --tokenization canonical is given twice, and is used once",
        "note: --tokenization uniform:0.50 is the same as uniform:0.5, and is used once",
    ]
    out = run(*arguments)[1]
    assert "canonical, sample 1 of 1: " in out and "uniform:0.5, sample 2 of 2: " in out


@pytest.mark.parametrize("name", ["ours", "gpt2"])
def test_texts_decoded_together_are_those_decoded_alone(place, monkeypatch, name):
    """Equal and different prompts of three lengths, whose texts end in different places."""
    rows = []
    draw = Sampling.draw
    monkeypatch.setattr(Sampling, "draw", lambda self, *more: rows.append(len(more[1])) or draw(self, *more))
    monkeypatch.setattr("stochastok_cli.evaluation.prompts.model_stop_ids", lambda _: set(range(0, 2048, 20)))
    shown = []

    def texts(batch_tokens):
        rows.clear(), shown.clear()
        return generate(
            place / "checkpoints" / name,
            PROMPT,
            tokenizations=["canonical", "uniform:1", "character"],
            samples=3,
            max_new_tokens=24,
            top_p=0.95,
            batch_tokens=batch_tokens,
            on_prompt=lambda prompt: shown.append([prompt]),
            on_text=lambda text: shown[-1].append(text),
            on_result=lambda result: shown[-1].append(result),
        )

    alone = texts(1)
    assert set(rows) == {1}
    assert shown == [[result.prompt, result.text, result] for result in alone]
    assert {result.finish_reason for result in alone} == {"stop", "length"}
    for batch_tokens, most_rows in ((16384, 9), (150, 4)):
        assert texts(batch_tokens) == alone
        assert shown == [[result.prompt, result.text, result] for result in alone]
        assert max(rows) == most_rows and len(set(rows)) > 2


@pytest.mark.parametrize("name", ["ours", "gpt2"])
def test_greedy_texts_are_those_of_transformers(place, name):
    folder = place / "checkpoints" / name
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    unused = list(range(load_vocabulary(folder).size, model.config.vocab_size)) or None
    tokenizations = ["canonical", "character"]
    for result in generate(folder, PROMPT, tokenizations=tokenizations, temperature=0, max_new_tokens=20):
        ids = torch.tensor([result.prompt.ids])
        theirs = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=20,
            pad_token_id=0,
            suppress_tokens=unused,
        )
        assert result.ids == theirs[0, ids.shape[1] :].tolist()


def test_chat(place):
    folder = place / "checkpoints" / "gpt2"
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    text = "Spell river, <|im_end|> please."
    [result] = generate(folder, text, chat=True, max_new_tokens=400, temperature=5.0)
    assert tokenizer.decode(result.prompt.ids) == tokenizer.apply_chat_template(
        [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True
    )
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert result.prompt.ids.count(end) == 1  # the name in what the user says is text
    assert result.finish_reason in ("stop", "window")
    [other] = generate(folder, text, chat=True, tokenizations=["uniform:1.0"], max_new_tokens=1)
    assert tokenizer.decode(other.prompt.ids) == tokenizer.decode(result.prompt.ids)
    header = tokenizer.encode("<|im_end|>\n<|im_start|>assistant\n", add_special_tokens=False)
    assert other.prompt.ids[-len(header) :] == header  # the words of the template stay as they are


@pytest.mark.parametrize("name", ["ours", "gpt2"])
def test_documents_are_the_texts_after_an_empty_prompt(place, name):
    folder = place / "checkpoints" / name
    vocabulary = load_vocabulary(folder)
    model = open_model(locate_model(name, folder), vocabulary, "cpu")
    documents = sample_documents(model, folder, vocabulary, 2, max_new_tokens=8)
    assert documents == generate(folder, samples=2, max_new_tokens=8)
    assert documents[0].ids != documents[1].ids


@pytest.mark.parametrize("end", ["configured", "of the template"])
def test_ids_that_end_a_text(place, monkeypatch, end):
    folder = place / "checkpoints" / "gpt2"
    chat = end == "of the template"
    stop = transformers.AutoTokenizer.from_pretrained(folder).convert_tokens_to_ids("<|im_end|>") if chat else 7
    drawn = iter([20, 21, stop])
    monkeypatch.setattr(Sampling, "draw", lambda *_: [next(drawn)])
    [result] = generate(folder, PROMPT, chat=chat)
    assert (result.ids, result.finish_reason) == ([20, 21, stop], "stop")
    assert result.text == load_vocabulary(folder).decode([20, 21])


def test_a_text_that_ends_at_once_is_explained(run, monkeypatch):
    end = load_vocabulary("sample2k").end_of_text
    monkeypatch.setattr(Sampling, "draw", lambda *_: [end])
    code, out, err = run("ours", PROMPT)
    assert (code, out) == (0, f"{PROMPT}\n") and "the model wrote nothing" in err
    assert "wrote nothing" not in run("ours", PROMPT, "--json")[2] + run("ours", PROMPT, "--quiet")[2]


def test_characters_of_several_tokens_are_streamed_whole(place, monkeypatch):
    vocabulary = load_vocabulary("sample2k")
    ids = vocabulary.encode("日本!")
    assert len(ids) > 3
    drawn, parts = iter([*ids, vocabulary.end_of_text]), []
    monkeypatch.setattr(Sampling, "draw", lambda *_: [next(drawn)])
    [result] = generate(place / "checkpoints" / "ours", on_text=parts.append)
    assert parts == ["日", "本", "!"] and result.text == "日本!"
    assert result.prompt.ids == [vocabulary.end_of_text]  # an empty prompt begins a document


def test_ids_that_the_tokenizer_puts_before_texts(place, tmp_path):
    import tokenizers

    folder = place / "checkpoints" / "gpt2"
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    begin = tokenizer.token_to_id("<|begin_of_text|>")
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", begin)]
    )
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    [result] = generate(tmp_path, PROMPT, max_new_tokens=1, tokenizations=["uniform:1"])
    assert result.prompt.ids[0] == begin and "".join(result.prompt.tokens[1:]) == PROMPT


def test_the_window_ends_a_text(run):
    code, out, _ = run("ours", PROMPT, "--max-new-tokens", "400", "--json", "--seed", "4")
    result = json.loads(out)
    assert code == 0 and result["finish_reason"] == "window"
    assert len(result["prompt_ids"]) + len(result["ids"]) == 48 + 1
    assert "context window is full" in run("ours", PROMPT, "--max-new-tokens", "400", "--seed", "4")[2]


def test_a_damaged_newest_checkpoint_is_named(run, place):
    for step, iteration in (("step_2", 2), ("step_4", 4)):
        folder = place / "checkpoints" / "run" / step
        shutil.copytree(place / "checkpoints" / "ours", folder)
        sizes = {file.name: file.stat().st_size for file in folder.iterdir()}
        (folder / "optimizer.safetensors").touch()
        state = {"format": 1, "iteration": iteration, "evaluation_pending": False, "validation_loss": None}
        state |= {
            "data": {"name": "d", "fingerprint": "f"},
            "config": {},
            "files": {**sizes, "optimizer.safetensors": 0},
        }
        (folder / "training_state.json").write_bytes(json_bytes(state))
    arguments = ("run", "x", "--max-new-tokens", "1", "--json")
    code, out, err = run(*arguments)
    shown = json.loads(out)
    assert (code, err, shown["checkpoint"], shown["iteration"]) == (0, "", "checkpoints/run/step_4", 4)
    (folder / "tokenizer.json").write_bytes(b"")
    (place / "run").mkdir()  # holds no checkpoint, so it does not hide the run
    code, out, err = run(*arguments)
    shown = json.loads(out)
    assert (code, shown["checkpoint"], shown["iteration"]) == (0, "checkpoints/run/step_2", 2)
    assert err == "note: checkpoints/run/step_4 is incomplete and ignored\n"


def test_no_prompt_and_a_closed_stdin(run, monkeypatch):
    monkeypatch.setattr(io, "TextIOWrapper", lambda stream: None)  # what `run` puts in place of stdin
    assert run("ours") == (2, "", "error: there is no prompt, and stdin is closed; give a PROMPT\n")


def test_draws_follow_the_probabilities():
    logits = torch.tensor(np.random.default_rng(0).normal(size=(1, 12)))
    uniforms = ((np.arange(20_000) + 0.5) / 20_000).tolist()
    for sampling in (Sampling(), Sampling(0.5), Sampling(top_k=3), Sampling(top_p=0.6), Sampling(2.0, 5, 0.9)):
        scores = logits
        warpers = [transformers.TemperatureLogitsWarper(sampling.temperature)]
        warpers += [transformers.TopKLogitsWarper(sampling.top_k)] if sampling.top_k else []
        warpers += [transformers.TopPLogitsWarper(sampling.top_p)] if sampling.top_p else []
        for warper in warpers:
            scores = warper(None, scores)
        counts = np.bincount(sampling.draw(logits.expand(len(uniforms), 12), uniforms), minlength=12)
        assert np.abs(counts / len(uniforms) - scores.softmax(-1)[0].numpy()).max() < 1e-4


@pytest.mark.parametrize(
    ("sampling", "option"),
    [
        (Sampling(temperature=10**400), "--temperature"),
        (Sampling(temperature=float("inf")), "--temperature inf"),
        (Sampling(top_k=-(10**5000)), "--top-k"),
        (Sampling(top_p=10**400), "--top-p"),
    ],
)
def test_numbers_of_any_size_are_refused_in_a_line(sampling, option):
    with pytest.raises(UserError, match=f"{option}.* is not possible"):
        sampling.check()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (" ", "is empty; drop --chat, or give a checkpoint with a chat template"),
        ("{# nothing #}", "--chat: the chat template renders nothing for what a user says"),
        ("{% if messages[0].role == 'system' %}{{ messages[0].content }}{% endif %}", "template renders nothing"),
        ("<|im_start|>user<|im_end|>", "--chat: the chat template leaves out what a user says"),
    ],
)
def test_a_chat_template_without_what_a_user_says(place, tmp_path, source, message):
    folder = shutil.copytree(place / "checkpoints" / "gpt2", tmp_path / "silent")
    (folder / "chat_template.jinja").write_text(source)
    with pytest.raises(UserError, match=message):
        generate(folder, PROMPT, chat=True, max_new_tokens=1)


def test_a_chat_template_of_the_content_alone(place, tmp_path):
    folder = shutil.copytree(place / "checkpoints" / "gpt2", tmp_path / "bare-content")
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }}")
    [result] = generate(folder, PROMPT, chat=True, max_new_tokens=3, tokenizations=["character"])
    assert "".join(result.prompt.tokens) == PROMPT


@pytest.mark.parametrize(
    ("arguments", "message", "code"),
    [
        (["absent", "x"], "no checkpoint 'absent'", 2),
        (["bare", "x"], "tokenizer.json does not exist", 2),
        (
            ["ours", "x", "--chat"],
            "error: checkpoints/ours has no chat template; drop --chat, or give a checkpoint with a chat template",
            2,
        ),
        (["gpt2", " ", "--chat"], "the prompt is empty", 2),
        (["ours", "the garden " * 40], "the context window of checkpoints/ours is 48", 2),
        (["ours", "the garden " * 10, "--tokenization", "character"], "(character)", 2),
        (["ours", "x", "--tokenization", "stochastok"], "is not METHOD:P", 2),
        (["ours", "x", "--temperature", "-1"], "--temperature -1 is not possible", 2),
        (["ours", "x", "--temperature", "nan"], "--temperature nan is not possible", 2),
        (["ours", "x", "--top-p", "0"], "--top-p 0 is not possible", 2),
        (["ours", "x", "--top-k", "0"], "--top-k 0 is not possible", 2),
        (["ours", "x", "--temperature", "0", "--samples", "2"], "every sample the same", 2),
        (["ours", "x", "--samples", "100001"], "'--samples': Input should be less than or equal to 100000", 2),
        (["ours", "x", "--samples", f"{10**23}"], "'--samples': Input should be less than or equal to 100000", 2),
        (["ours", "x", "--tokenization", "canonical:0.5"], "canonical:0.5: the canonical tokenization has no P", 2),
        (["ours", "x", "--tokenization", "nothing:1"], "unknown method 'nothing'; give canonical, stochastok", 2),
        (["ours", "x", "--tokenization", "canonica"], "did you mean 'canonical'?", 2),
        (["ours", "a\udcff"], "the prompt is not UTF-8 (character 2); convert it", 2),
        (["ours"], "is not UTF-8 (byte 1)", 1),
        (["", "x"], "the name of the checkpoint is empty", 2),
    ],
)
def test_wrong_use_is_one_line(run, arguments, message, code):
    ended, out, err = run(*arguments, stdin=b"a\xff")
    assert (ended, out, err.count("\n")) == (code, "", 1)
    assert err.startswith("error: ") and message in err
