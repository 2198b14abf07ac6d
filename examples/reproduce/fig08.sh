#!/usr/bin/env bash
# Fig. 8 of the paper: addition from random weights, trained on sums in one tokenization and asked in all four.
# The options are in settings.sh.
set -euo pipefail
source "$(dirname "$0")/settings.sh"
kinds=(base stochastok character bpe_dropout)

locked addition stochastok make-addition --num-digits "$digits" --tokenizer "$tokenizer" "${here[@]}" --quiet >/dev/null
compare() {
    train "addition-$1-$2" "$2" "${addition_settings[@]}" "trainer.dataset.name=multi_digit_addition_$1" \
        "trainer.eval=[{evaluator:math_generation,num_samples:$langgame_val}]"
}
over_seeds compare "${kinds[@]}"
metrics=()
for form in "${kinds[@]}"; do metrics+=(--metric "math_generation/val/$form/exact_match"); done
summarize "$figure" "Addition, exact match on unseen sums (the paper's Fig. 8)" addition "${kinds[*]}" \
    --from "$runs" "${metrics[@]}" --paper "Fig. 8"
