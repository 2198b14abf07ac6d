# What the scripts of this folder share: options, the settings of each scale, and the steps that they chain.
# It is sourced, and reads the options of the script that sources it:
#
#   --scale tiny|small|paper   tiny: toy models on the bundled text, for a CPU; small: minutes on a GPU (the default);
#                              paper: the published settings and OpenWebText
#   --seeds N                  runs of each kind, with the seeds 0 to N - 1 (default: 3)
#   --corpus PATH_OR_HUB_ID    the text to pretrain on
#   --out FOLDER               data, runs and results (default: reproduce-SCALE)
#
# Every step is idempotent: a script that was stopped goes on where it was, and scripts with the same options share their
# pretrained models. Runs are spread over all GPUs (or those of CUDA_VISIBLE_DEVICES), JOBS_PER_GPU (default: 1) at a time on each,
# or one at a time on each GPUS_PER_RUN of them.
#
# A KIND of training text is `canonical`, or METHOD-P for text that is expanded as it is drawn, such as stochastok-0.1.
scale=small seeds=3 corpus="" out=""
script=$(basename "$0")
usage="usage: bash examples/reproduce/$script [--scale tiny|small|paper] [--seeds N] [--corpus PATH_OR_HUB_ID] [--out FOLDER]"
usage() {
    echo "error: $1; $usage" >&2
    exit 2
}
while [[ $# -gt 0 ]]; do
    [[ $1 != --help ]] || { echo "$usage" && exit 0; }
    [[ $# -ge 2 ]] || usage "$1 has no value"
    case $1 in
        --scale) scale=$2 ;;
        --seeds) seeds=$2 ;;
        --corpus) corpus=$2 ;;
        --out) out=$2 ;;
        *) usage "there is no option $1" ;;
    esac
    shift 2
done
[[ $seeds =~ ^[1-9][0-9]*$ ]] || usage "--seeds $seeds is no number of runs"
jobs_per_gpu=${JOBS_PER_GPU:-1}
[[ $jobs_per_gpu =~ ^[1-9][0-9]*$ ]] || usage "JOBS_PER_GPU=$jobs_per_gpu is no number of runs"
gpus_per_run=${GPUS_PER_RUN:-1}
[[ $gpus_per_run =~ ^[1-9][0-9]*$ ]] || usage "GPUS_PER_RUN=$gpus_per_run is no number of GPUs"
IFS=, read -ra visible_gpus <<<"${CUDA_VISIBLE_DEVICES:-$(nvidia-smi --query-gpu=index --format=csv,noheader 2>/dev/null | paste -sd, -)}"
[[ $gpus_per_run -eq 1 || ${#visible_gpus[@]} -ge $gpus_per_run ]] || usage "there are too few GPUs for GPUS_PER_RUN=$gpus_per_run"
[[ $gpus_per_run -eq 1 || $jobs_per_gpu -eq 1 ]] || usage "JOBS_PER_GPU=$jobs_per_gpu and GPUS_PER_RUN=$gpus_per_run exclude each other"
out=${out:-reproduce-$scale}
figure=${script%.sh}
code=$(dirname "${BASH_SOURCE[0]}")

# iterations N: overrides for N iterations, with a warm-up of a tenth of them.
iterations() {
    echo "trainer.training.max_iters=$1 trainer.training.lr_decay_iters=$1 trainer.training.warmup_iters=$((($1 + 9) / 10)) trainer.training.checkpoint_interval=$1"
}

shape=() # of models that start from random weights
case $scale in
    tiny)
        corpus=${corpus:-sample} tokenizer=sample2k langgame_size=200 langgame_val=20 cute_size=200 cute_interval=4 digits=2 samples=2 questions=10 likelihood_windows=2
        p_values=(0.2)
        pretrain_iterations=4
        read -ra brief <<<"$(iterations $pretrain_iterations) trainer.training.batch_size=2 trainer.training.eval_interval=2 trainer.training.eval_iters=1"
        shape=(model.hidden_dim=32 model.core_model.num_layers=1 model.core_model.ffn.ffn_dim=64
            model.core_model.attn.num_heads=2 model.core_model.attn.group_size=1)
        pretrain_settings=(--config quickstart "${brief[@]}" "${shape[@]}")
        large_settings=("${pretrain_settings[@]}" model.core_model.num_layers=2)
        shipped_settings=("${pretrain_settings[@]}" trainer.training.log_interval=1)
        speedrun_settings=("${shipped_settings[@]}" trainer.optimizer.name=muon)
        tune_settings=(--config quickstart "${brief[@]}")
        continue_settings=("${tune_settings[@]}")
        addition_settings=("${pretrain_settings[@]}")
        gpt2_settings=(--config continued_pretraining "${brief[@]}" model.context_window=96)
        gpt2_tune_settings=("${gpt2_settings[@]}")
        gpt2_shape=(--width 32 --layers 1 --heads 2 --context-window 96)
        ;;
    small) # a fifteenth of the paper's iterations, of a quarter of its windows, at a higher learning rate
        tokenizer=gpt2 langgame_size=10000 langgame_val=1000 cute_size=100000 cute_interval=250 digits=3 samples=4 questions=300 likelihood_windows=16
        p_values=(0.01 0.05 0.1 0.5)
        pretrain_iterations=2000
        windows=(trainer.training.batch_size=30 trainer.training.gradient_accumulation_steps=4)
        read -ra brief <<<"$(iterations $pretrain_iterations) trainer.training.eval_interval=500 trainer.training.eval_iters=100"
        pretrain_settings=(--config pretraining "${windows[@]}" "${brief[@]}" trainer.optimizer.lr=1.5e-3 trainer.optimizer.min_lr=1.5e-4)
        # The same windows of validation text for both.
        read -ra shipped_brief <<<"$(iterations 3000) trainer.training.eval_interval=100"
        shipped_settings=(--config pretraining "${shipped_brief[@]}" trainer.training.eval_iters=50)
        speedrun_settings=(--config speedrun)
        read -ra large_brief <<<"$(iterations 1000)"
        large_settings=("${pretrain_settings[@]}" "${large_brief[@]}" trainer.training.batch_size=10 trainer.training.gradient_accumulation_steps=12
            trainer.optimizer.lr=1e-3 trainer.optimizer.min_lr=1e-4
            model.hidden_dim=768 model.core_model.num_layers=12 model.core_model.ffn.ffn_dim=2048
            model.core_model.attn.num_heads=12 model.core_model.attn.group_size=3)
        read -ra continue_brief <<<"$(iterations 500)"
        continue_settings=("${pretrain_settings[@]}" "${continue_brief[@]}" trainer.optimizer.lr=6e-4 trainer.optimizer.min_lr=6e-5)
        read -ra tune_brief <<<"$(iterations 1000) trainer.training.eval_interval=100 trainer.training.eval_iters=10"
        tune_settings=(--config instruction_tuning "${windows[@]}" "${tune_brief[@]}")
        read -ra addition_brief <<<"$(iterations 2500) trainer.training.eval_interval=250 trainer.training.eval_iters=4"
        addition_settings=(--config pretraining "${windows[@]}" "${addition_brief[@]}" trainer.training.warmup_iters=500)
        gpt2_settings=(--config continued_pretraining "${windows[@]}" "${large_brief[@]}" trainer.training.eval_interval=500 model.context_window=512
            trainer.optimizer.lr=1e-3 trainer.optimizer.min_lr=1e-4)
        gpt2_tune_settings=(--config continued_pretraining "${windows[@]}" "${tune_brief[@]}" model.context_window=512
            trainer.optimizer.lr=1e-4 trainer.optimizer.min_lr=1e-5)
        gpt2_shape=(--width 512 --layers 8 --heads 8 --context-window 512)
        [[ $corpus ]] || usage "--scale small needs --corpus, a text of some hundred MB"
        ;;
    paper)
        corpus=${corpus:-Skylion007/openwebtext} tokenizer=gpt2 langgame_size=10000 langgame_val=1000 cute_size=100000 cute_interval=250 digits=3 samples=8 questions=1000 likelihood_windows=64
        p_values=(0.001 0.01 0.05 0.1 0.2)
        pretrain_iterations=30000
        pretrain_settings=(--config pretraining)
        shipped_settings=("${pretrain_settings[@]}") speedrun_settings=(--config speedrun)
        large_settings=(--config pretraining model.hidden_dim=1024 model.core_model.num_layers=18 model.core_model.ffn.ffn_dim=2816
            model.core_model.attn.num_heads=16 model.core_model.attn.group_size=1 model.context_window=1024)
        continue_settings=(--config pretraining trainer.training.max_iters=2000 trainer.training.lr_decay_iters=2000 trainer.training.warmup_iters=100)
        tune_settings=(--config instruction_tuning)
        addition_settings=(--config pretraining)
        gpt2_settings=(--config continued_pretraining trainer.training.max_iters=7000 trainer.training.batch_size=16
            trainer.optimizer.lr=1e-4 trainer.optimizer.decay_lr=false)
        gpt2_tune_settings=(--config continued_pretraining trainer.training.max_iters=2000 trainer.training.batch_size=64 trainer.optimizer.lr=1e-3)
        ;;
    *) usage "there is no scale $scale" ;;
esac
here=(--data-dir "$out/data")
runs=$out/checkpoints
results=$out/results

# A script that is killed ends what it has started; trainings save a checkpoint first, and the next run goes on there.
descendants() {
    local child
    for child in $(pgrep -P "$1"); do echo "$child" && descendants "$child"; done
}
trap 'trap - TERM; kill -TERM $(descendants $$) 2>/dev/null || true; rm -rf "${claims:-}"; exit 143' TERM

# locked NAME COMMAND…: runs a command. Where scripts run at the same time (and there is flock, as on Linux), one waits for what
# another makes under the same name.
locked() {
    mkdir -p "$out/locks"
    (
        ! command -v flock >/dev/null || flock 9
        "${@:2}"
    ) 9>"$out/locks/$1"
}

# unchanged NAME VALUE: ends the script if results in this folder were made with another value.
unchanged() {
    mkdir -p "$out/settings"
    [[ -e $out/settings/$1 ]] || echo "$2" >"$out/settings/$1"
    [[ $(cat "$out/settings/$1") == "$2" ]] || usage "the results in $out were made with $1=$(cat "$out/settings/$1"), not $2: take another --out"
}

# tokenize_corpus: the text to pretrain on, as the dataset corpus-tokenized.
tokenize_corpus() {
    locked corpus stochastok tokenize "$corpus" --tokenizer "$tokenizer" --name corpus "${here[@]}" --quiet >/dev/null
}

# make_langgame NAME [OPTION…]: the paper's questions, 10,000 about parts of words of any length. LANGGAME_WORDS names a
# list of words in place of the bundled one.
make_langgame() {
    locked "$1" stochastok make-langgame --name "$1" --train-size "$langgame_size" --val-size "$langgame_val" --max-substring 100 \
        --tokenizer "$tokenizer" "${here[@]}" ${LANGGAME_WORDS:+--words "$LANGGAME_WORDS"} "${@:2}" --quiet >/dev/null
}

# expansion_of KIND: the overrides with which a run reads text of that kind.
expansion_of() {
    case $1 in
        canonical) echo trainer.dataset.expand_prop=0 ;;
        *) echo "trainer.dataset.expand_method=${1%-*} trainer.dataset.expand_prop=${1##*-}" ;;
    esac
}

# train RUN SEED [OPTION…]: the run RUN, with options and overrides of `stochastok train`.
train() {
    locked "$1" stochastok train "${@:3}" --quiet --run-name "$1" "general.seed=$2" "${here[@]}" \
        "general.paths.checkpoint_dir='$runs'" >/dev/null
}

# pretrain RUN KIND SEED [OVERRIDE…]: a run on the corpus. pretrain_settings are its settings.
pretrain() {
    local expansion
    read -ra expansion <<<"$(expansion_of "$2")"
    train "$1" "$3" "${pretrain_settings[@]}" trainer.dataset.name=corpus-tokenized 'trainer.eval=[]' "${expansion[@]}" "${@:4}"
}

# tune RUN PARENT DATASET SEED [OVERRIDE…]: a run on an instruction dataset, from the run PARENT, or from random weights
# where it is none. It is asked langgame_val questions of DATASET-train and DATASET-val; tune_settings are its settings.
tune() {
    local from=("trainer.checkpoint_name=$2")
    [[ $2 != none ]] || from=(${shape[@]+"${shape[@]}"}) # of an empty array bash 3 makes an error
    train "$1" "$4" "${tune_settings[@]}" "trainer.dataset.name=$3" trainer.dataset.is_instruction=true ${from[@]+"${from[@]}"} \
        "trainer.eval=[{evaluator:mcq,num_samples:$langgame_val,benchmarks:[$3-train,$3-val],by_kind:true,contamination:true}]" "${@:5}"
}

# evaluate NAME RUN OPTION…: what `stochastok eval RUN OPTION… --json` prints, in evaluations/NAME/RUN.json. It is kept while
# the options and the checkpoint stay what they were.
evaluate() {
    mkdir -p "$out/evaluations/$1"
    locked "$1-of-$2" evaluate_unless_kept "$@"
}
evaluate_unless_kept() {
    local file=$out/evaluations/$1/$2.json made_of
    made_of="${*:3} $(cat "$runs/$2"/step_*/training_state.json | cksum)" # which holds the checksums of all files
    [[ ! -s $file || "$(cat "$file.made-of" 2>/dev/null)" != "$made_of" ]] || return 0
    stochastok eval "$2" "${@:3}" --json --quiet "${here[@]}" --checkpoint-dir "$runs" >"$file.partial"
    mv "$file.partial" "$file"
    echo "$made_of" >"$file.made-of"
}

# over_seeds FUNCTION KIND…: calls FUNCTION KIND SEED for every kind and seed, on all GPUs. A training takes all that it sees.
over_seeds() {
    local gpus=("") sets=() i workers=() worker kind seed jobs=() claims failed=0
    for ((seed = 0; seed < seeds; seed++)); do
        for kind in "${@:2}"; do jobs+=("$kind $seed"); done
    done
    [[ ${#visible_gpus[@]} -eq 0 ]] || gpus=("${visible_gpus[@]}")
    if [[ $gpus_per_run -gt 1 ]]; then
        for ((i = 0; i + gpus_per_run <= ${#gpus[@]}; i += gpus_per_run)); do
            sets+=("$(IFS=, && echo "${gpus[*]:i:gpus_per_run}")")
        done
        gpus=("${sets[@]}")
    fi
    claims=$(mktemp -d)
    for ((worker = 0; worker < ${#gpus[@]} * jobs_per_gpu; worker++)); do
        (
            trap - INT # jobs in the background of a script would ignore Ctrl-C
            [[ ${#gpus[@]} -eq 1 && $gpus_per_run -eq 1 ]] || export CUDA_VISIBLE_DEVICES=${gpus[worker % ${#gpus[@]}]}
            for job in "${jobs[@]}"; do
                mkdir "$claims/${job// /,}" 2>/dev/null || continue # another worker has it
                set +e # bash ignores it inside of a command that is followed by ||
                (set -e && "$1" "${job% *}" "${job#* }")
                [[ $? -eq 0 ]] || { echo "error: $1 $job failed" >&2 && exit 1; }
            done
        ) &
        workers+=($!)
    done
    for worker in "${workers[@]}"; do wait "$worker" || failed=1; done
    rm -r "$claims"
    return $failed
}

# runs_of PREFIX KIND: PREFIX-KIND-0,PREFIX-KIND-1,… for all seeds.
runs_of() {
    local seed members=""
    for ((seed = 0; seed < seeds; seed++)); do members+=",$1-$2-$seed"; done
    echo "${members#,}"
}

# summarize RESULT TITLE PREFIX "KIND…" OPTION…: results/RESULT.{md,svg,jsonl} of the runs PREFIX-KIND-SEED.
summarize() {
    local groups=() kinds kind label
    read -ra kinds <<<"$4"
    for kind in "${kinds[@]}"; do
        label=$kind
        [[ $kind != none ]] || label="no pretraining"
        groups+=("$label:$(runs_of "$3" "$kind")")
    done
    python "$code/summarize.py" --out "$results/$1" --title "$2" "${@:5}" -- "${groups[@]}"
}
