#!/usr/bin/env bash
# Fig. 5 of the paper: how much of the text to split. LangGame after pretraining with StochasTok at several p.
# The options are in settings.sh.
set -euo pipefail
source "$(dirname "$0")/settings.sh"
kinds=(canonical "${p_values[@]/#/stochastok-}")

tokenize_corpus
make_langgame langgame
compare() {
    pretrain "pretrain-$1-$2" "$1" "$2"
    tune "langgame-from-$1-$2" "pretrain-$1-$2" langgame "$2"
}
over_seeds compare "${kinds[@]}"
summarize "$figure" "LangGame after pretraining with StochasTok at several p (the paper's Fig. 5)" langgame-from "${kinds[*]}" \
    --from "$runs" --metric mcq/langgame-val/normalized_accuracy --last --paper "Fig. 5"
