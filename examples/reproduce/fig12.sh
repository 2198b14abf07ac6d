#!/usr/bin/env bash
# Figs. 12 and 13 of the paper: where a model puts the tokenizations of one word. Principal components of the activations at
# the last token of 20 words, and the distance between the tokenizations of a word layer by layer, relative to the
# distance between words. The pretrained models are those of fig01.sh. The options are in settings.sh.
set -euo pipefail
source "$(dirname "$0")/settings.sh"
kinds=(canonical stochastok-0.1 bpe-dropout-0.1)
words=(${LANGGAME_WORDS:+--words "$LANGGAME_WORDS"})

tokenize_corpus
compare() {
    pretrain "pretrain-$1-$2" "$1" "$2"
    evaluate alignment "pretrain-$1-$2" --evaluator alignment --num-samples "$langgame_val" ${words[@]+"${words[@]}"}
}
over_seeds compare "${kinds[@]}"
stochastok eval pretrain-{canonical,stochastok-0.1}-0 --evaluator alignment --num-samples "$langgame_val" \
    ${words[@]+"${words[@]}"} "${here[@]}" --checkpoint-dir "$runs" --quiet --report "$results/$figure" >/dev/null
summarize fig13 "Distance between the tokenizations of a word, layer by layer (the paper's Fig. 13)" pretrain "${kinds[*]}" \
    --from "$out/evaluations/alignment" --curve alignment/uniform1.0 --x "attention layer"
