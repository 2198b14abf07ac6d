#!/usr/bin/env bash
# Every figure at one scale, one after the other, and what docs/results holds of them: tables, plots, raw values, and when and
# on what each run was made. Takes the options of settings.sh; RESULTS is the folder (default: docs/results/SCALE).
set -euo pipefail
source "$(dirname "$0")/settings.sh"
target=${RESULTS:-docs/results/$scale}

failed=()
for name in fig{01,03,04,05,06,07,08,09,10,11,12} robustness ablations speedrun; do
    # In the background, since bash answers to `kill` only between commands, or while it waits.
    (trap - INT && exec bash "$code/$name.sh" --scale "$scale" --seeds "$seeds" --out "$out" ${corpus:+--corpus "$corpus"}) &
    wait $! || failed+=("$name")
done
mkdir -p "$target"
cp "$results"/*.* "$target" && cp "$results"/fig12/plots/alignment-pca-*.svg "$target"
python "$code/collect.py" "$out" "$target"
echo "$target"
[[ ${#failed[@]} -eq 0 ]] || { echo "error: not made: ${failed[*]}" >&2 && exit 1; }
