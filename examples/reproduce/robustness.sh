#!/usr/bin/env bash
# The follow-up paper (arXiv 2604.16037): LangGame in random and in adversarial tokenizations, after pretraining and tuning on
# canonical and on expanded ids; accuracy by edit distance; and the likelihood of text over all of its tokenizations.
# The options are in settings.sh.
set -euo pipefail
source "$(dirname "$0")/settings.sh"
pretrained=(canonical stochastok-0.1 stochastok-uni-0.1 uniform-0.1)
# PRETRAINED, tuned on canonical ids, or PRETRAINED-tuned-METHOD-P
kinds=(canonical canonical-tuned-uniform-0.1 stochastok-0.1 stochastok-0.1-tuned-stochastok-0.1
    stochastok-uni-0.1-tuned-stochastok-uni-0.1 uniform-0.1-tuned-uniform-0.1)
[[ $scale != tiny ]] || kinds=(canonical canonical-tuned-uniform-0.1 uniform-0.1-tuned-uniform-0.1)
ask=(--evaluator mcq --benchmarks langgame-val --num-samples "$questions" --samples "$samples")

tokenize_corpus
make_langgame langgame
likelihood() {
    pretrain "pretrain-$1-$2" "$1" "$2"
    evaluate likelihood "pretrain-$1-$2" --evaluator bits_per_byte --benchmarks corpus-tokenized --tokenization uniform:0.1 \
        --num-samples "$likelihood_windows" --samples 64
}
over_seeds likelihood "${pretrained[@]}"
compare() {
    local run=langgame-from-$1-$2 kind=canonical expansion
    [[ $1 != *-tuned-* ]] || kind=${1#*-tuned-}
    read -ra expansion <<<"$(expansion_of "$kind")"
    tune "$run" "pretrain-${1%-tuned-*}-$2" langgame "$2" "${expansion[@]}"
    evaluate uniform "$run" "${ask[@]}" --tokenization uniform:0.5 --adversarial 50 --neighbors splits
    for method in stochastok uniform-k; do evaluate "$method" "$run" "${ask[@]}" --tokenization "$method:0.5"; done
}
over_seeds compare "${kinds[@]}"
langgame=mcq/langgame-val
summarize "$figure" "LangGame in random and in adversarial tokenizations" langgame-from "${kinds[*]}" \
    --from "$out/evaluations/uniform" --from "$out/evaluations/stochastok" --from "$out/evaluations/uniform-k" \
    --metric $langgame/accuracy --metric $langgame/stochastok0.5/accuracy --metric $langgame/uniform0.5/accuracy \
    --metric $langgame/uniform-k0.5/accuracy --metric $langgame/uniform0.5/worst_case --metric $langgame/adversarial/accuracy
summarize "$figure-edit-distance" "LangGame by edit distance from the canonical tokenization (uniform, p = 0.5)" langgame-from "${kinds[*]}" \
    --from "$out/evaluations/uniform" --curve $langgame/uniform0.5 --x "edit distance"
bits=bits_per_byte/corpus-tokenized/uniform0.1
summarize "$figure-likelihood" "Bits per byte of validation text: canonical ids, and the sum over all tokenizations" pretrain "${pretrained[*]}" \
    --from "$out/evaluations/likelihood" --metric $bits/canonical --metric $bits/all_tokenizations --metric $bits/monte_carlo_error --metric $bits/effective_sample_size
