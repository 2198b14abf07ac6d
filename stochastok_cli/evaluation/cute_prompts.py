"""CUTE as its authors score it (Edman et al. 2024): prompts with four examples, and the answer between quotation marks.

The prompts are read from where the authors publish them: whole in the dataset on the Hub, and in `prompts.py` of their
repository (github.com/Leukas/CUTE), whose `data` folder holds the inputs. That file is parsed, not run.
"""

import ast
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stochastok_cli.data.recipes.cute_tasks import TASKS
from stochastok_cli.errors import Notice, UserError
from stochastok_cli.evaluation.cute import HUB, find_inputs

if TYPE_CHECKING:
    import datasets

WORD_TASKS = ("contains_word", "ins_word", "del_word", "sub_word", "swap_word")
"""The tasks on the words of a sentence, in which capitals count as small letters."""
ALL_TASKS = (*TASKS, "sem", *WORD_TASKS)
ANSWER_BEGINS = ' Answer: "'
"""What follows the prompt; the model continues after the quotation mark."""
MAX_NEW_TOKENS = 100


def extract_answer(generated: str) -> str:
    """The answer in what a model writes after ANSWER_BEGINS: the text up to the next quotation mark.

    If the model goes on to write `Answer:` again, the quoted text after the last one counts, as in the authors' code.

    >>> extract_answer('t h e r e". I hope this helps!'), extract_answer('a". 5. Spell "b". Answer: "c"')
    ('t h e r e', 'c')
    >>> extract_answer("x"), extract_answer('a". Answer: b')
    ('x', '')
    """
    parts = (ANSWER_BEGINS + generated).split("Answer:")[-1].split('"')
    return parts[1] if len(parts) > 1 else ""


def read_cute_prompts(tasks: Sequence[str], description: str, path: Path | None) -> Iterator[dict[str, Any]]:
    """The questions of some tasks, as rows with the columns task, prompt and answer.

    Args:
        tasks: Names of ALL_TASKS.
        description: What the rows are, for errors.
        path: A clone of the authors' repository, its folder `data`, or a file with columns for prompts, answers and
            tasks; None for the dataset on the Hub.

    Raises:
        UserError: The prompts or the inputs are not there.
    """
    from stochastok_cli.evaluation.question_files import read_hub, read_path

    if path is None:
        for task in tasks:
            yield from _whole_prompts(description, task, read_hub(description, HUB, None, task))
    elif (folder := find_inputs(path, tasks)) is not None:
        yield from _filled_prompts(description, tasks, folder)
    elif path.is_dir():
        for task in tasks:
            yield from _whole_prompts(description, task, read_path(description, path, task))
    else:
        yield from _rows_of_tasks(description, tasks, read_path(description, path, "test", is_default=True))


def _filled_prompts(description: str, tasks: Sequence[str], folder: Path) -> Iterator[dict[str, Any]]:
    from stochastok_cli.evaluation.question_files import read_path, require_columns

    prompts = _prompts(description, folder)
    missing = [task for task in tasks if not (folder / f"{task}.tsv").is_file()]
    if missing:
        warnings.warn(f"{description}: not in {folder}: {', '.join(missing)}", Notice, stacklevel=2)
    for task in tasks:
        if task in missing:
            continue
        if task not in prompts:
            raise UserError(f"{description}: the authors' prompts.py has no prompt for {task}")
        dataset = read_path(f"{description} ({task})", folder / f"{task}.tsv", task)
        names = [f"input{i + 1}" for i in range(prompts[task].count("{}"))]
        require_columns(f"{description} ({task})", dataset, (*names, "label"))
        for row in dataset:
            prompt = prompts[task].format(*(row[name] for name in names))
            yield {"task": task, "prompt": prompt, "answer": str(row["label"])}


def _prompts(description: str, folder: Path) -> dict[str, str]:
    """The prompts of the authors' `prompts.py`, in the folder of the inputs or in the one above."""
    file = next((file for file in (folder / "prompts.py", folder.parent / "prompts.py") if file.is_file()), None)
    if file is None:
        raise UserError(
            f"{description}: there is no prompts.py in {folder} or above, which holds the authors' prompts",
            fix="give a clone of github.com/Leukas/CUTE, or drop the path to use the dataset on the Hub",
        )
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        [value] = [
            node.value
            for node in tree.body
            if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "PROMPTS" for t in node.targets)
        ]
        prompts = ast.literal_eval(value)
        if not all(isinstance(text, str) for pair in prompts.items() for text in pair):
            raise ValueError
    except (SyntaxError, ValueError, AttributeError, RecursionError, OSError):
        raise UserError(f"{description}: {file} can't be read: it has no dictionary PROMPTS of texts") from None
    return prompts


def _whole_prompts(description: str, task: str, dataset: "datasets.Dataset") -> Iterator[dict[str, Any]]:
    from stochastok_cli.evaluation.question_files import require_columns

    require_columns(f"{description} ({task})", dataset, ("prompt", "answer"))
    for row in dataset:
        yield {"task": task, "prompt": row["prompt"], "answer": row["answer"] or ""}


def _rows_of_tasks(description: str, tasks: Sequence[str], dataset: "datasets.Dataset") -> Iterator[dict[str, Any]]:
    """The rows of a file of all tasks that are of some tasks."""
    from stochastok_cli.evaluation.question_rows import read_question_rows

    rows = read_question_rows(description, dataset)
    if unknown := sorted({row.kind for row in rows} - set(ALL_TASKS)):
        raise UserError(
            f"{description}: {unknown[0] or 'nothing'!r} is no task of CUTE",
            fix=f"a column task or task_type names it: {', '.join(ALL_TASKS)}",
        )
    for row in rows:
        if row.kind in tasks:
            yield {"task": row.kind, "prompt": row.question, "answer": row.answers[0]}
