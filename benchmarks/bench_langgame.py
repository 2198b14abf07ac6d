"""How long LangGame takes to finished files: `python benchmarks/bench_langgame.py [QUESTIONS]` (1,000,000)."""

import sys
import tempfile
import time
from pathlib import Path

if sys.argv[1:] in (["-h"], ["--help"]):
    sys.exit(__doc__)
start = time.perf_counter()  # before the package is imported, which a user waits for, too

from stochastok_cli import load_vocabulary  # noqa: E402
from stochastok_cli.data.recipes.langgame import make_langgame  # noqa: E402

questions = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
with tempfile.TemporaryDirectory() as folder:
    make_langgame(load_vocabulary("gpt2"), Path(folder), train_size=questions)
    seconds = time.perf_counter() - start
print(f"{questions:,} + 1,000 questions: {seconds:.1f} s, {questions / seconds:,.0f} a second")
