#!/usr/bin/env bash
# Fig. 4 of the paper: CUTE's published test questions, after tuning on generated ones (which share no question with them).
# The pretrained models are those of fig01.sh. CUTE names the published questions, a folder or a dataset on the Hub
# (default: leukas/cute). The options are in settings.sh.
set -euo pipefail
source "$(dirname "$0")/settings.sh"
kinds=(canonical stochastok-0.1 bpe-dropout-0.1 none)
asked=${CUTE:+cute=$CUTE}
unchanged CUTE "${CUTE:-leukas/cute}"

tokenize_corpus
locked cute stochastok make-cute --train-size "$cute_size" --val-size "$langgame_val" --tokenizer "$tokenizer" "${here[@]}" --quiet >/dev/null
compare() {
    local parent=none
    [[ $1 == none ]] || { parent=pretrain-$1-$2 && pretrain "$parent" "$1" "$2"; }
    tune "cute-from-$1-$2" "$parent" cute "$2" "trainer.eval=[{evaluator:mcq,benchmarks:[\"${asked:-cute}\"]}]" \
        "trainer.training.eval_interval=$cute_interval"
}
over_seeds compare "${kinds[@]}"
summarize "$figure" "CUTE, the published questions (the paper's Fig. 4)" cute-from "${kinds[*]}" \
    --from "$runs" --metric mcq/cute/normalized_accuracy --paper "Fig. 4"
