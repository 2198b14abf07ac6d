#!/usr/bin/env bash
# Fig. 11 of the paper: what models write after one prompt in several tokenizations. PROMPT is the text. The pretrained models
# are those of fig01.sh. The options are in settings.sh.
set -euo pipefail
source "$(dirname "$0")/settings.sh"
kinds=(canonical stochastok-0.1)
prompt=${PROMPT:-The configuration file}

tokenize_corpus
compare() {
    pretrain "pretrain-$1-$2" "$1" "$2"
    evaluate completions "pretrain-$1-$2" --evaluator alignment --num-samples 20 --samples 8 --tokenization stochastok:1 --prompt "$prompt"
}
over_seeds compare "${kinds[@]}"
python "$code/completions.py" --from "$out/evaluations/completions" --out "$results/$figure" pretrain-{canonical,stochastok-0.1}-0
