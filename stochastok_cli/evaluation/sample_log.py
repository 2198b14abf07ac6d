"""A file of JSON lines with the answer to every question in every tokenization in which it was asked."""

import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from stochastok_cli.errors import FAILED, NO_SPACE, UserError
from stochastok_cli.evaluation.answers import Answers
from stochastok_cli.evaluation.results import EvalResult, finite_or_none
from stochastok_cli.paths import nearest_existing_path
from stochastok_cli.tokenization.vocabulary import Vocabulary

SCHEMA = 1


class SamplesNotWritten(UserError):
    """The file of samples could not be written, after the evaluation itself has ended.

    Args:
        file: The file.
        error: Why it could not.

    Attributes:
        results: Of the evaluation, which are whole.
    """

    def __init__(self, file: Path, error: OSError) -> None:
        fix = "free some space, or name a file on another disk, and run it again" if error.errno in NO_SPACE else ""
        super().__init__(f"--log-samples {file} can't be written: {error.strerror or error}", fix=fix, exit_code=FAILED)
        self.results: list[EvalResult] = []


class SampleLog:
    """Writes the answers of evaluated models. The file is complete or absent, and replaces none but an older log.

    An evaluation can take hours. So what goes wrong once the file is open is kept in `problem`, and is to be raised
    when the results are there.

    Args:
        file: Where to; its folder is made.

    Attributes:
        problem: Why the file is not written; None where nothing is wrong.

    Raises:
        UserError: There is a folder or another file of that name, or it can't be opened.
    """

    problem: SamplesNotWritten | None = None

    def __init__(self, file: Path) -> None:
        self.file = file
        try:
            if not (above := nearest_existing_path(file.parent)).is_dir():
                raise UserError(f"--log-samples {file}: {above} is a file", fix="name a file in a folder")
            if file.is_dir():
                raise UserError(f"--log-samples {file} is a folder", fix="name a file, such as samples.jsonl")
            if file.exists() and not _is_log(file):
                raise UserError(
                    f"--log-samples {file} would replace a file that --log-samples did not write",
                    fix="give another name, or move it away",
                )
            target = file.resolve()  # a link stays
            target.parent.mkdir(parents=True, exist_ok=True)
            _remove_leftovers(target)
            temporary = target.with_name(f".{target.name}.{os.getpid()}.partial")  # several may write at a time
            stream = open(temporary, "w", encoding="utf-8", errors="backslashreplace")  # noqa: SIM115
            _lock(stream.fileno())
        except OSError as error:
            raise UserError(f"--log-samples {file}: {error.strerror}", exit_code=FAILED) from None
        self._target, self._temporary, self._stream = target, temporary, stream

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            with self._stream:
                self._stream.flush()
                os.fsync(self._stream.fileno())
            if error is None and self.problem is None:
                os.replace(self._temporary, self._target)
        except OSError as problem:
            self.problem = self.problem or SamplesNotWritten(self.file, problem)
        finally:
            with suppress(OSError):
                self._temporary.unlink()

    def write(self, result: EvalResult, vocabulary: Vocabulary) -> None:
        """Appends a line for each answer of a model, whose vocabulary has the ids."""
        if self.problem is not None:
            return
        texts: dict[int, str] = {}
        try:
            for answers in result.answers:
                for row in sample_rows(answers, vocabulary, texts):
                    line = {"schema": SCHEMA, "checkpoint": result.checkpoint, **row}
                    self._stream.write(json.dumps(line, ensure_ascii=False) + "\n")
        except OSError as problem:
            self.problem = SamplesNotWritten(self.file, problem)


def _remove_leftovers(target: Path) -> None:
    """Removes what killed processes have left beside a file: what no process here, or on another machine, writes."""
    for name in os.listdir(target.parent):
        if not (match := re.fullmatch(rf"\.{re.escape(target.name)}\.(\d+)\.partial", name)):
            continue
        with suppress(OSError), open(target.with_name(name), "rb") as leftover:
            if not os.path.isdir(f"/proc/{match[1]}") and _lock(leftover.fileno()):
                target.with_name(name).unlink()


def _lock(descriptor: int) -> bool:
    """Whether an open file can be locked until it is closed, also for other machines: no other process has, and it is
    possible here."""
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (ImportError, OSError):
        return False
    return True


def sample_rows(answers: Answers, vocabulary: Vocabulary, texts: dict[int, str]) -> Iterator[dict[str, Any]]:
    """The answers as objects; `texts` remembers those of tokens."""

    def token_text(token: int) -> str:
        if token not in texts:
            texts[token] = vocabulary.token_text(token)
        return texts[token]

    for i, question in enumerate(answers.questions):
        token_ids = None if answers.token_ids is None else _integers(answers.token_ids[i])
        of_options = None if answers.option_token_ids is None else answers.option_token_ids[i]
        scores = None if answers.log_likelihoods is None else answers.log_likelihoods[i]
        yield {
            "evaluator": answers.evaluator,
            "benchmark": answers.benchmark,
            "dataset": answers.dataset or answers.benchmark,
            "part": answers.part,
            "sample": answers.sample,
            "row": answers.row(i),
            "question": question,
            "options": None if answers.probabilities is None else list(answers.options[i]),
            "target": answers.options[i][0],
            "answer": answers.answers[i],
            "is_correct": answers.is_correct[i],
            "log_likelihoods": None if scores is None else [finite_or_none(float(score)) for score in scores],
            "tokens": None if token_ids is None else [token_text(token) for token in token_ids],
            "token_ids": token_ids,
            "option_token_ids": None if of_options is None else [_integers(ids) for ids in of_options],
        }


def _integers(ids: Sequence[int] | Any) -> list[int]:
    return [int(token) for token in ids]


def _is_log(file: Path) -> bool:
    """Whether a file is empty or begins like one that was written here."""
    if not file.is_file():
        return False
    with open(file, encoding="utf-8", errors="replace") as stream:
        first = stream.readline(1 << 24)
    if not first:
        return True
    try:
        row = json.loads(first)
    except ValueError:
        return False
    return isinstance(row, dict) and {"schema", "checkpoint", "evaluator", "benchmark", "is_correct"} <= row.keys()
