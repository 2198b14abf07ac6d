"""What models write after one prompt in several tokenizations, side by side, from `stochastok eval --prompt … --json`.

python examples/reproduce/completions.py --from EVALUATIONS --out results/fig11 RUN RUN

Writes OUT.md and OUT.jsonl. Tokens are divided by `·`. Above each table stands how many of the other tokenizations have
the completion of the canonical one.
"""

import argparse
import json
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--from", dest="folder", type=Path, required=True, help="the folder of RUN.json")
    parser.add_argument("--out", type=Path, required=True, help="the path of the results, without an ending")
    parser.add_argument("runs", nargs="+", metavar="RUN")
    arguments = parser.parse_args()
    records = [of_prompt(arguments.folder / f"{run}.json") for run in arguments.runs]
    if len({record["prompt"] for record in records}) > 1:
        raise SystemExit("error: the runs were given different prompts; evaluate them again with the same")
    parts = [f"Completions of “{records[0]['prompt']}” in several tokenizations (the paper's Fig. 11)"]
    for run, record in zip(arguments.runs, records, strict=True):
        canonical, *others = record["completions"]
        same = sum(other["completion"] == canonical["completion"] for other in others)
        rows = [f"| {cell('·'.join(c['tokens']))} | {cell(c['completion'])} |" for c in record["completions"]]
        heading = f"**{run}**: {same} of {len(others)} other tokenizations have the canonical completion."
        parts.append("\n".join([heading, "", "| prompt | completion |", "|---|---|", *rows]))
    text = "\n\n".join(parts) + "\n"
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    Path(f"{arguments.out}.md").write_text(text, encoding="utf-8")
    rows = [json.dumps({"run": run, **record}) for run, record in zip(arguments.runs, records, strict=True)]
    Path(f"{arguments.out}.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    print(text)


def of_prompt(file: Path) -> dict:
    """The line about the prompt."""
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return next(line for line in lines if "prompt" in line)


def cell(text: str) -> str:
    """The text as code in a table of Markdown."""
    visible = text.replace("\n", "⏎").replace("|", "¦").replace("`", "ˋ")
    return f"`{visible}`"


if __name__ == "__main__":
    main()
