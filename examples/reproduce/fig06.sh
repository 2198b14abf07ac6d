#!/usr/bin/env bash
# Fig. 6 of the paper: parts of words that no question of the training data asks about. Tuned on questions about short parts and
# asked about long ones (hold-long), and the reverse (hold-short). The pretrained models are those of fig01.sh.
# The options are in settings.sh.
set -euo pipefail
source "$(dirname "$0")/settings.sh"
kinds=(canonical stochastok-0.1)

tokenize_corpus
for held in long short; do make_langgame "hold-$held" --holdout "$held"; done
compare() {
    pretrain "pretrain-$1-$2" "$1" "$2"
    for held in long short; do tune "hold-$held-from-$1-$2" "pretrain-$1-$2" "hold-$held" "$2"; done
}
over_seeds compare "${kinds[@]}"
for held in long short; do
    summarize "$figure-$held" "LangGame, $held parts of words held out (the paper's Fig. 6)" "hold-$held-from" "${kinds[*]}" --from "$runs" \
        --metric "mcq/hold-$held-val/normalized_accuracy" --metric "mcq/hold-$held-train/normalized_accuracy" --paper "Fig. 6"
done
