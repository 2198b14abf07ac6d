#!/usr/bin/env bash
# A corpus for training, tokenized and expanded in tasks on Slurm. Run it on a node from which jobs are submitted:
#     SOURCE=/data/web PARTITION=cpu TASKS=64 bash examples/slurm/data.sh
# Run it again after a failure: completed tasks are not run again, and finished folders are left alone.
set -euo pipefail
source=${SOURCE:?the file or folder of the texts}
partition=${PARTITION:?a partition with processors}
tasks=${TASKS:-64}
name=${NAME:-corpus}
data=${DATA:-$PWD/data}  # on a file system that all nodes see

slurm=(--executor slurm --tasks "$tasks" --partition "$partition" --time 4:00:00 --slurm-args "${SLURM_OPTIONS:-}")

wait_for_job() {  # reads what stochastok prints; there is no job where the folder is there already
    local job
    job=$(python3 -c 'import json, sys; print(json.load(sys.stdin).get("job", ""))')
    [ -z "$job" ] || sbatch --wait --job-name "wait-for-$job" --partition "$partition" --time 5 --output /dev/null \
        --dependency "afterok:$job" --kill-on-invalid-dep yes --wrap true
}

stochastok tokenize "$source" --name "$name" --data-dir "$data" "${slurm[@]}" --json | wait_for_job
stochastok expand "$name-tokenized" --expand-prop 0.1 --data-dir "$data" "${slurm[@]}" --json | wait_for_job
