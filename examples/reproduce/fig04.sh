#!/usr/bin/env bash
# Fig. 4 of the paper: CUTE's published test questions, after tuning on generated ones (which share no question with them).
# The pretrained models are those of fig01.sh, if it ran with the same options. The options are in settings.sh; CUTE names
# the published questions, a folder or a dataset on the Hub (default: leukas/cute).
set -euo pipefail
source "$(dirname "$0")/settings.sh"
kinds=(canonical stochastok-0.1 bpe-dropout-0.1 none)
asked=${CUTE:+cute=$CUTE}

tokenize_corpus
stochastok make-cute --train-size "$cute_size" --val-size "$langgame_val" --tokenizer "$tokenizer" "${here[@]}" >/dev/null
compare() {
    [[ $1 == none ]] || pretrain "$1" "$2"
    tune cute "$1" "$2" "trainer.eval=[{evaluator:mcq,benchmarks:[\"${asked:-cute}\"]}]" $cute_interval
}
jobs=()
for ((seed = 0; seed < seeds; seed++)); do
    for kind in "${kinds[@]}"; do jobs+=("$kind $seed"); done
done
spread compare "${jobs[@]}"
mapfile -t groups < <(seeds_of cute-from- "${kinds[@]}")
python "$code/summarize.py" --runs "$runs" --metric mcq/cute/normalized_accuracy --out "$out/results/$figure" \
    --title "CUTE, the published questions (the paper's Fig. 4)" \
    --paper canonical=0.62 stochastok-0.1=0.85 bpe-dropout-0.1=0.57 none=0.27 -- "${groups[@]}"
