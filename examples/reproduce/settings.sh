# What the scripts of this folder share: options, the settings of each scale, and the steps that they chain.
# It is sourced, and reads the options of the script that sources it:
#
#   --scale tiny|small|paper   tiny: toy models on the bundled text, for a CPU; small: minutes on a GPU (the default);
#                              paper: the published settings and OpenWebText
#   --seeds N                  runs of each kind, with the seeds 0 to N - 1 (default: 3)
#   --corpus PATH_OR_HUB_ID    the text to pretrain on
#   --out FOLDER               data, runs and results (default: reproduce-SCALE)
#
# Every step is idempotent: a script that was stopped goes on where it was. Runs are spread over all GPUs, one run on each.
scale=small seeds=3 corpus="" out=""
script=$(basename "$0")
usage() {
    echo "usage: bash examples/reproduce/$script [--scale tiny|small|paper] [--seeds N] [--corpus PATH_OR_HUB_ID] [--out FOLDER]" >&2
    exit 2
}
while [[ $# -gt 0 ]]; do
    [[ $# -ge 2 ]] || usage
    case $1 in
        --scale) scale=$2 ;;
        --seeds) seeds=$2 ;;
        --corpus) corpus=$2 ;;
        --out) out=$2 ;;
        *) usage ;;
    esac
    shift 2
done
[[ $seeds =~ ^[1-9][0-9]*$ ]] || usage
out=${out:-reproduce-$scale}
figure=${script%.sh}
code=$(dirname "${BASH_SOURCE[0]}")

case $scale in
    tiny)
        corpus=${corpus:-sample} tokenizer=sample2k langgame_size=200 langgame_val=20 cute_size=200 cute_interval=trainer.training.eval_interval=4
        brief=(trainer.training.batch_size=2 trainer.training.max_iters=4 trainer.training.lr_decay_iters=4
            trainer.training.warmup_iters=1 trainer.training.eval_interval=2 trainer.training.eval_iters=1
            trainer.training.checkpoint_interval=4 model.hidden_dim=32 model.core_model.num_layers=1
            model.core_model.ffn.ffn_dim=64 model.core_model.attn.num_heads=2 model.core_model.attn.group_size=1)
        pretrain_settings=(--config quickstart "${brief[@]}")
        tune_settings=(--config quickstart "${brief[@]}")
        ;;
    small) # a fifteenth of the paper's iterations, of a quarter of its windows, at a higher learning rate
        tokenizer=gpt2 langgame_size=10000 langgame_val=1000 cute_size=100000 cute_interval=trainer.training.eval_interval=250
        pretrain_settings=(--config pretraining trainer.training.gradient_accumulation_steps=2
            trainer.training.max_iters=2000 trainer.training.lr_decay_iters=2000 trainer.training.warmup_iters=200
            trainer.training.eval_interval=1000 trainer.training.eval_iters=100 trainer.training.checkpoint_interval=2000
            trainer.optimizer.lr=1.5e-3 trainer.optimizer.min_lr=1.5e-4)
        tune_settings=(--config instruction_tuning trainer.training.gradient_accumulation_steps=2
            trainer.training.max_iters=1000 trainer.training.lr_decay_iters=1000 trainer.training.warmup_iters=100
            trainer.training.eval_interval=100 trainer.training.eval_iters=10)
        [[ $corpus ]] || { echo "error: --scale small needs --corpus, a text of some hundred MB" >&2 && exit 2; }
        ;;
    paper)
        corpus=${corpus:-Skylion007/openwebtext} tokenizer=gpt2 langgame_size=10000 langgame_val=1000 cute_size=100000 cute_interval=trainer.training.eval_interval=250
        pretrain_settings=(--config pretraining)
        tune_settings=(--config instruction_tuning)
        ;;
    *) usage ;;
esac
here=(--data-dir "$out/data")
runs=$out/checkpoints

# tokenize_corpus: the text to pretrain on, as the dataset corpus-tokenized.
tokenize_corpus() {
    stochastok tokenize "$corpus" --tokenizer "$tokenizer" --name corpus "${here[@]}" >/dev/null
}

# pretraining_of KIND: the overrides with which models of this kind are pretrained.
pretraining_of() {
    case $1 in
        canonical) echo trainer.dataset.expand_prop=0 ;;
        *) echo "trainer.dataset.expand_method=${1%-*} trainer.dataset.expand_prop=${1##*-}" ;;
    esac
}

# pretrain KIND SEED: the run pretrain-KIND-SEED. KIND is canonical or METHOD-P, such as stochastok-0.1.
pretrain() {
    local overrides
    read -ra overrides <<<"$(pretraining_of "$1")"
    stochastok train "${pretrain_settings[@]}" --quiet --run-name "pretrain-$1-$2" "general.seed=$2" "${here[@]}" \
        "general.paths.checkpoint_dir=$runs" trainer.dataset.name=corpus-tokenized 'trainer.eval=[]' "${overrides[@]}" >/dev/null
}

# tune DATASET KIND SEED [OVERRIDE…]: the run DATASET-from-KIND-SEED, tuned on an instruction dataset from pretrain-KIND-SEED;
# from random weights where KIND is none.
tune() {
    local from=("trainer.checkpoint_name=pretrain-$2-$3")
    [[ $2 != none ]] || from=()
    stochastok train "${tune_settings[@]}" --quiet --run-name "$1-from-$2-$3" "general.seed=$3" "${here[@]}" \
        "general.paths.checkpoint_dir=$runs" "trainer.dataset.name=$1" trainer.dataset.is_instruction=true \
        "${from[@]}" "${@:4}" >/dev/null
}

# spread FUNCTION JOB…: calls FUNCTION with the words of each job, one job at a time on each GPU (on a CPU: one at a time).
spread() {
    local gpus claims workers=() gpu job failed=0
    gpus=$(nvidia-smi -L 2>/dev/null | grep -c ^GPU) || gpus=1
    claims=$(mktemp -d)
    for ((gpu = 0; gpu < gpus; gpu++)); do
        (
            trap - INT # jobs in the background of a script would ignore Ctrl-C
            [[ $gpus -eq 1 ]] || export CUDA_VISIBLE_DEVICES=$gpu
            for job in "${@:2}"; do
                mkdir "$claims/${job// /,}" 2>/dev/null || continue # another worker has it
                # shellcheck disable=SC2086
                "$1" $job || { echo "error: $1 $job failed" >&2 && exit 1; }
            done
        ) &
        workers+=($!)
    done
    for job in "${workers[@]}"; do wait "$job" || failed=1; done
    rm -r "$claims"
    return $failed
}

# seeds_of NAME…: for the summary, NAME=RUN,RUN,… with the runs of all seeds; RUN is PREFIX-NAME-SEED.
seeds_of() {
    local prefix=$1 kind seed list
    for kind in "${@:2}"; do
        list=""
        for ((seed = 0; seed < seeds; seed++)); do list+=",$prefix$kind-$seed"; done
        echo "$kind:${list#,}"
    done
}
