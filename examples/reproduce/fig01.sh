#!/usr/bin/env bash
# Fig. 1 of the paper: LangGame after pretraining on canonical ids, with StochasTok, with BPE-dropout, and without pretraining.
# Questions as in the paper: 10,000, about parts of words of any length. The options are in settings.sh.
set -euo pipefail
source "$(dirname "$0")/settings.sh"
kinds=(canonical stochastok-0.1 bpe-dropout-0.1 none)

tokenize_corpus
stochastok make-langgame --train-size "$langgame_size" --val-size "$langgame_val" --max-substring 100 --tokenizer "$tokenizer" \
    "${here[@]}" ${LANGGAME_WORDS:+--words "$LANGGAME_WORDS"} >/dev/null
compare() {
    [[ $1 == none ]] || pretrain "$1" "$2"
    tune langgame "$1" "$2" "trainer.eval=[{evaluator:mcq,num_samples:$langgame_val,benchmarks:[langgame-train,langgame-val]}]"
}
jobs=()
for ((seed = 0; seed < seeds; seed++)); do
    for kind in "${kinds[@]}"; do jobs+=("$kind $seed"); done
done
spread compare "${jobs[@]}"
mapfile -t groups < <(seeds_of langgame-from- "${kinds[@]}")
for split in val train; do
    python "$code/summarize.py" --runs "$runs" --metric "mcq/langgame-$split/normalized_accuracy" --out "$out/results/$figure-$split" \
        --title "LangGame, $split questions (the paper's Fig. 1)" \
        --paper canonical=0.65 stochastok-0.1=1.0 bpe-dropout-0.1=0.8 none=0.05 -- "${groups[@]}"
done
