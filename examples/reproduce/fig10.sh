#!/usr/bin/env bash
# Fig. 10 of the paper: a model from elsewhere, continued with StochasTok; and, as a control, continued on canonical ids for as
# many iterations. MODEL names the model, a folder or a repository on the Hub (default at the scale `paper`:
# openai-community/gpt2). At the other scales a GPT-2 of random weights is made and pretrained on canonical ids first.
# The options are in settings.sh; the extra `hf` is needed.
set -euo pipefail
source "$(dirname "$0")/settings.sh"
kinds=(original continued-canonical continued-stochastok-0.1)
[[ $scale != paper ]] || MODEL=${MODEL:-openai-community/gpt2}

[[ -z ${MODEL-} ]] || { tokenizer=$MODEL && here=(--data-dir "$out/gpt2-data"); }
tokenize_corpus
make_langgame langgame
pretrain_settings=("${gpt2_settings[@]}") tune_settings=("${gpt2_tune_settings[@]}")
if [[ -z ${MODEL-} ]]; then
    MODEL=$out/gpt2
    [[ -e $MODEL ]] || python "$code/new_model.py" --tokenizer "$tokenizer" "${gpt2_shape[@]}" --out "$MODEL"
    pretrain gpt2-pretrained canonical 0 "trainer.checkpoint_name=$MODEL"
    MODEL=gpt2-pretrained
fi
compare() {
    local parent=$MODEL
    if [[ $1 != original ]]; then
        parent=gpt2-$1-$2
        pretrain "$parent" "${1#continued-}" "$2" "trainer.checkpoint_name=$MODEL"
    fi
    tune "langgame-from-gpt2-$1-$2" "$parent" langgame "$2"
}
over_seeds compare "${kinds[@]}"
summarize "$figure" "LangGame after continued pretraining of GPT-2 (the paper's Fig. 10)" langgame-from-gpt2 "${kinds[*]}" \
    --from "$runs" --metric mcq/langgame-val/normalized_accuracy --paper "Fig. 10"
