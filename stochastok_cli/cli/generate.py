"""`stochastok generate`: text that a checkpoint writes after a prompt, one as it is sampled."""

import contextlib
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stochastok_cli.cli import candidates, options, progress
from stochastok_cli.cli.app import subcommand
from stochastok_cli.cli.eval import Device, Dtype, DtypeOption
from stochastok_cli.cli.streams import escaped
from stochastok_cli.errors import UserError
from stochastok_cli.evaluation.base import BATCH_TOKENS, CANONICAL, MOST_SAMPLES

if TYPE_CHECKING:
    from stochastok_cli.evaluation.generated_texts import GeneratedText, SamplePrompt


@subcommand
def generate(
    checkpoint: Annotated[
        str,
        typer.Argument(
            metavar="CHECKPOINT",
            help="A path, or a name under --checkpoint-dir; a run's folder means its latest checkpoint. With the extra "
            "`hf` also another model: its folder, or its id on the Hub.",
            show_default=False,
            autocompletion=candidates.runs,
        ),
    ],
    prompt: Annotated[
        str | None,
        typer.Argument(
            metavar="PROMPT",
            help="The text to continue, an empty one to begin a document; read from stdin where it is absent or -, "
            "without the line break at its end.",
            show_default=False,
        ),
    ] = None,
    tokenization: Annotated[
        list[str] | None,
        typer.Option(
            "--tokenization",
            metavar="METHOD:P",
            help="Tokenization of the prompt, by a method of `stochastok expand`: stochastok:0.1, or canonical. "
            "Give it several times to see several side by side.",
            show_default="canonical",
            autocompletion=candidates.tokenizations,
        ),
    ] = None,
    samples: Annotated[
        int,
        typer.Option(
            "--samples",
            min=1,
            max=MOST_SAMPLES,
            help="How many texts in each tokenization; one where all would be equal.",
        ),
    ] = 1,
    max_new_tokens: Annotated[int, typer.Option("--max-new-tokens", min=1, help="The most tokens of a text.")] = 128,
    temperature: Annotated[
        float, typer.Option("--temperature", help="Divides the logits; 0 takes the likeliest token.")
    ] = 1.0,
    top_k: Annotated[
        int | None, typer.Option("--top-k", help="Draw from so many likeliest tokens.", show_default="all")
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option(
            "--top-p", help="Draw from the fewest likeliest tokens with this probability together.", show_default="1"
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option("--seed", help="Seed of the random numbers: the same seed gives the same text on a CPU.")
    ] = 0,
    chat: Annotated[
        bool, typer.Option("--chat", help="The prompt is what a user says, put into the checkpoint's chat template.")
    ] = False,
    checkpoint_dir: options.CheckpointDir = Path("checkpoints"),
    device: Annotated[Device, typer.Option("--device", help="auto: CUDA where there is a GPU.")] = Device.AUTO,
    dtype: DtypeOption = Dtype.AUTO,
    batch_tokens: Annotated[
        int,
        typer.Option(
            "--batch-tokens",
            min=1,
            help="Tokens, of prompts and new ones, that are decoded together; fewer need less memory.",
        ),
    ] = BATCH_TOKENS,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object for each text, one a line, when it is complete.")
    ] = False,
) -> None:
    """Sample text from a checkpoint: what it writes after a prompt.

    One text is shown as it is written, several are decoded together and shown as they are complete.
    """
    options.require_checkpoints([checkpoint], checkpoint_dir)
    from stochastok_cli.evaluation.generated_texts import generate as generate_texts
    from stochastok_cli.evaluation.sampling import Sampling
    from stochastok_cli.models.checkpoint_reader import iteration_of

    Sampling(temperature, top_k, top_p).check()
    text = options.read_stdin("prompt", "give a PROMPT") if prompt in (None, "-") else prompt or ""
    _require_utf8(text)
    tokenizations = tokenization or [CANONICAL]
    labeled = samples > 1 or tokenizations != [CANONICAL]

    line = _Line()

    def on_prompt(one: "SamplePrompt") -> None:
        if as_json:
            return
        if labeled:
            tokens = "|".join(map(escaped, one.tokens))
            line.write(f"{one.tokenization}, sample {one.sample + 1} of {one.samples}: {tokens}\n")
        if not chat:
            line.write(text)

    def on_result(result: "GeneratedText") -> None:
        if as_json:
            made_by = {"checkpoint": result.checkpoint, "iteration": iteration_of(Path(result.checkpoint))}
            print(json.dumps({"schema": 1, **made_by, "prompt": text, **result.to_json()}), flush=True)
            return
        line.write("\n\n" if labeled else "\n")
        if result.finish_reason == "window":
            progress.note("the text ends here because the context window is full")
        elif not result.text and result.finish_reason == "stop":
            progress.note("the model wrote nothing: its first token ends the text")

    try:
        generate_texts(
            checkpoint,
            text,
            tokenizations=tokenizations,
            samples=samples,
            seed=seed,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            chat=chat,
            checkpoint_dir=checkpoint_dir,
            device=device.value,
            dtype=dtype.value,
            batch_tokens=batch_tokens,
            on_prompt=on_prompt,
            on_text=(lambda part: None) if as_json else line.write,
            on_result=on_result,
        )
    except BaseException:
        if line.is_open:  # an error stands on a line of its own
            with contextlib.suppress(OSError):
                line.write("\n")
        raise


def _require_utf8(prompt: str) -> None:
    try:
        prompt.encode("utf-8")
    except UnicodeEncodeError as error:  # Python reads such bytes of an argument as lone surrogates
        raise UserError(f"the prompt is not UTF-8 (character {error.start + 1})", fix="convert it") from None


class _Line:
    """What is written to stdout at once; in a terminal with control characters as escapes, which it would obey.

    Attributes:
        is_open: Whether the last line has no end yet.
    """

    is_open = False

    def write(self, text: str) -> None:
        """Writes a part of a text."""
        self.is_open = not text.endswith("\n") if text else self.is_open
        if sys.stdout.isatty():
            text = re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", lambda match: repr(match[0])[1:-1], text)
        print(text, end="", flush=True)
