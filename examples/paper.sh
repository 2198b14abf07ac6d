#!/usr/bin/env bash
# The paper's three experiments, end to end: (1) pretrain with and without StochasTok, (2) tune both on LangGame,
# (3) train on addition in each tokenization. Every step is idempotent: run the script again and it goes on.
#
#   bash examples/paper.sh           OpenWebText and the shipped configurations: for a GPU
#   bash examples/paper.sh --tiny    the same chain on the bundled text with toy models: under a minute on a CPU
#
# Set OUT to choose the folder (default: paper-output).
set -euo pipefail
out=${OUT:-paper-output}
here=(--data-dir "$out/data")
to=("${here[@]}" "general.paths.checkpoint_dir=$out/checkpoints")
if [[ ${1:-} == --tiny ]]; then
    source=sample name=sample tokenizer=sample2k digits=2 words=(--train-size 500 --val-size 50)
    pretrain=(model.vocab_size=2048 model.hidden_dim=32 model.context_window=96 model.core_model.num_layers=1
        model.core_model.ffn.ffn_dim=64 model.core_model.attn.num_heads=2 model.core_model.attn.group_size=1
        trainer.training.batch_size=2 trainer.training.gradient_accumulation_steps=1 trainer.training.max_iters=4
        trainer.training.warmup_iters=2 trainer.training.eval_iters=1 trainer.eval=[])
    tune=(trainer.training.batch_size=2 trainer.training.gradient_accumulation_steps=1 trainer.training.max_iters=4
        trainer.training.warmup_iters=2 trainer.training.eval_iters=1 trainer.eval=[])
    samples=8
elif [[ $# -eq 0 ]]; then
    source=Skylion007/openwebtext name=openwebtext tokenizer=gpt2 digits=3 words=() pretrain=() tune=() samples=1000
else
    echo "usage: bash examples/paper.sh [--tiny]" >&2
    exit 2
fi

# 1. Pretraining on canonical and on expanded ids
stochastok tokenize "$source" --tokenizer "$tokenizer" "${here[@]}"
stochastok expand "$name-tokenized" --expand-prop 0.1 "${here[@]}"
for dataset in "$name-tokenized" "$name-tokenized-stochastok0.1"; do
    stochastok train --config pretraining "${to[@]}" --run-name "pretrain-$dataset" "trainer.dataset.name=$dataset" "${pretrain[@]}"
done

# 2. LangGame, from each of the two
stochastok make-langgame --tokenizer "$tokenizer" "${words[@]}" "${here[@]}"
tuned=()
for dataset in "$name-tokenized" "$name-tokenized-stochastok0.1"; do
    tuned+=("$(stochastok train --config instruction_tuning "${to[@]}" --run-name "langgame-from-$dataset" \
        "trainer.checkpoint_name=pretrain-$dataset" "${tune[@]}")")
done
stochastok eval "${tuned[@]}" --evaluator mcq --benchmarks langgame-train,langgame-val --num-samples "$samples" "${here[@]}"

# 3. Addition: one model for each tokenization, each evaluated in all of them
stochastok make-addition --num-digits "$digits" --tokenizer "$tokenizer" "${here[@]}"
added=()
for form in base stochastok character bpe_dropout; do
    added+=("$(stochastok train --config pretraining "${to[@]}" --run-name "addition-$form" \
        "trainer.dataset.name=multi_digit_addition_$form" 'trainer.eval=[{evaluator:"math_generation",num_samples:100}]' \
        "${pretrain[@]}")")
done
stochastok eval "${added[@]}" --evaluator math_generation --num-samples "$samples" "${here[@]}"
