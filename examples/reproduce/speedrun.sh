#!/usr/bin/env bash
# Time to a loss: the configuration `speedrun` against the shipped `pretraining`, and whether StochasTok's effect is the same in
# both (LangGame after tuning). The time is that of training, without evaluating and saving, so here each pretraining has its GPU
# for itself, whatever JOBS_PER_GPU says, or with GPUS_PER_RUN=4 four GPUs. KINDS names some of the four kinds of runs below, to make
# no others. The options are in settings.sh.
set -euo pipefail
source "$(dirname "$0")/settings.sh"
read -ra kinds <<<"${KINDS:-pretraining-canonical speedrun-canonical pretraining-stochastok-0.1 speedrun-stochastok-0.1}"

tokenize_corpus
make_langgame langgame
pretrain_with() {
    local settings=("${shipped_settings[@]}")
    [[ $1 != speedrun-* ]] || settings=("${speedrun_settings[@]}")
    (pretrain_settings=("${settings[@]}") && pretrain "time-of-$1-$2" "${1#*-}" "$2")
}
tune_after() { tune "langgame-from-$1-$2" "time-of-$1-$2" langgame "$2"; }
(jobs_per_gpu=1 && over_seeds pretrain_with "${kinds[@]}")
(gpus_per_run=1 && over_seeds tune_after "${kinds[@]}")
time_groups=()
for kind in "${kinds[@]}"; do time_groups+=("$kind:$(runs_of time-of "$kind")"); done
python "$code/time_to_loss.py" --from "$runs" --out "$results/$figure-time" \
    --title "Validation loss by seconds of training" -- "${time_groups[@]}"
summarize "$figure" "LangGame after the configurations pretraining and speedrun" langgame-from "${kinds[*]}" \
    --from "$runs" --metric mcq/langgame-val/normalized_accuracy --last
