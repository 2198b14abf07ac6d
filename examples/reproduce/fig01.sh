#!/usr/bin/env bash
# Fig. 1 of the paper: LangGame after pretraining on canonical ids, with StochasTok, with BPE-dropout, and without pretraining.
# The options are in settings.sh.
set -euo pipefail
source "$(dirname "$0")/settings.sh"
kinds=(canonical stochastok-0.1 bpe-dropout-0.1 none)

tokenize_corpus
make_langgame langgame
compare() {
    local parent=none
    [[ $1 == none ]] || { parent=pretrain-$1-$2 && pretrain "$parent" "$1" "$2"; }
    tune "langgame-from-$1-$2" "$parent" langgame "$2"
}
over_seeds compare "${kinds[@]}"
for split in val train; do
    summarize "$figure-$split" "LangGame, $split questions (the paper's Fig. 1)" langgame-from "${kinds[*]}" \
        --from "$runs" --metric "mcq/langgame-$split/normalized_accuracy" --paper "Fig. 1"
done
