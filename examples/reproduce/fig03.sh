#!/usr/bin/env bash
# Fig. 3 of the paper: general benchmarks after pretraining with and without StochasTok, which should not differ. Bits per byte of
# the validation text stand beside them. BENCHMARKS names the benchmarks of `stochastok eval`, each also as NAME=FILE
# (default: arc,blimp,hellaswag,winograd, from the Hub). The pretrained models are those of fig01.sh.
set -euo pipefail
source "$(dirname "$0")/settings.sh"
kinds=(canonical stochastok-0.1 bpe-dropout-0.1)
benchmarks=${BENCHMARKS:-arc,blimp,hellaswag,winograd}

tokenize_corpus
compare() {
    pretrain "pretrain-$1-$2" "$1" "$2"
    evaluate benchmarks "pretrain-$1-$2" --evaluator mcq --benchmarks "$benchmarks"
}
over_seeds compare "${kinds[@]}"
metrics=()
IFS=, read -ra names <<<"$benchmarks"
for name in "${names[@]}"; do metrics+=(--metric "mcq/${name%%=*}/accuracy"); done
summarize "$figure" "General benchmarks (the paper's Fig. 3)" pretrain "${kinds[*]}" --from "$out/evaluations/benchmarks" "${metrics[@]}"
summarize "$figure-bits-per-byte" "Bits per byte of validation text, in its canonical tokenization (lower is better)" pretrain "${kinds[*]}" \
    --from "$runs" --metric validation/bits_per_byte
