#!/usr/bin/env bash
# Fig. 9 of the paper: a model that was pretrained on canonical ids, continued with StochasTok; and, as a control, continued on
# canonical ids for as many iterations. The pretrained models are those of fig01.sh. The options are in settings.sh.
set -euo pipefail
source "$(dirname "$0")/settings.sh"
kinds=(canonical continued-canonical continued-stochastok-0.1)

tokenize_corpus
make_langgame langgame
pretrain_first() { pretrain "pretrain-$1-$2" "$1" "$2"; }
compare() {
    local parent=pretrain-canonical-$2
    if [[ $1 != canonical ]]; then
        parent=$1-$2
        (pretrain_settings=("${continue_settings[@]}") && pretrain "$parent" "${1#continued-}" "$2" "trainer.checkpoint_name=pretrain-canonical-$2")
    fi
    tune "langgame-from-$1-$2" "$parent" langgame "$2"
}
over_seeds pretrain_first canonical
over_seeds compare "${kinds[@]}"
summarize "$figure" "LangGame after continued pretraining (the paper's Fig. 9)" langgame-from "${kinds[*]}" \
    --from "$runs" --metric mcq/langgame-val/normalized_accuracy --paper "Fig. 9"
