"""How long addition takes to finished files, all forms: `python benchmarks/bench_addition.py [DIGITS]` (3)."""

import sys
import tempfile
import time
from pathlib import Path

if sys.argv[1:] in (["-h"], ["--help"]):
    sys.exit(__doc__)
start = time.perf_counter()  # before the package is imported, which a user waits for, too

from stochastok_cli import load_vocabulary  # noqa: E402
from stochastok_cli.data.recipes.addition import make_addition  # noqa: E402

digits = int(sys.argv[1]) if len(sys.argv) > 1 else 3
with tempfile.TemporaryDirectory() as folder:
    make_addition(load_vocabulary("gpt2"), Path(folder), num_digits=digits)
    seconds = time.perf_counter() - start
pairs = 9 * 10 ** (2 * digits - 1)
print(f"{pairs:,} pairs: {seconds:.1f} s, {pairs / seconds:,.0f} a second")
