#!/usr/bin/env bash
# Fig. 7 of the paper: a larger model. The paper trains modded-nanogpt with 275 M parameters; here the scale `paper` takes this
# package's Llama architecture with some 280 M, and `small` 114 M for half of its iterations. The options are in settings.sh.
set -euo pipefail
source "$(dirname "$0")/settings.sh"
kinds=(canonical stochastok-0.1)
pretrain_settings=("${large_settings[@]}")

tokenize_corpus
make_langgame langgame
compare() {
    pretrain "large-$1-$2" "$1" "$2"
    tune "langgame-from-large-$1-$2" "large-$1-$2" langgame "$2"
}
over_seeds compare "${kinds[@]}"
summarize "$figure" "LangGame with a larger model (the paper's Fig. 7)" langgame-from-large "${kinds[*]}" \
    --from "$runs" --metric mcq/langgame-val/normalized_accuracy --paper "Fig. 7"
