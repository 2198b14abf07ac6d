#!/usr/bin/env bash
# The main job in miniature, offline, in about two minutes of CPU time: does training on randomly split tokens
# make a model indifferent to how its text is cut?
# Usage: bash examples/quickstart.sh [FOLDER]      (run it again and it goes on where it stopped)
set -euo pipefail
out=${1:-quickstart-output}
say() { printf '\n\033[1m%s\033[0m\n' "$*" >&2; }
here=(--data-dir "$out/data")
run=(--config quickstart "${here[@]}" "general.paths.checkpoint_dir=$out/checkpoints")

say "1. Tokenize the bundled text, and expand it: p = 0.1 to train on, p = 1.0 to test on"
stochastok tokenize sample --tokenizer sample2k --val-fraction 0.05 "${here[@]}"
stochastok expand sample-tokenized --expand-prop 0.1 "${here[@]}"
stochastok expand sample-tokenized --expand-prop 1.0 "${here[@]}"
stochastok expand --tokenizer sample2k --expand-prop 0.5 --samples 4 --text "It is a truth universally acknowledged"

say "2. Train one model on the canonical ids and one on the expanded ids, for the same number of tokens"
canonical=$(stochastok train "${run[@]}" --run-name canonical trainer.dataset.name=sample-tokenized)
stochastic=$(stochastok train "${run[@]}" --run-name stochastok trainer.dataset.name=sample-tokenized-stochastok0.1)

say "3. Teach the second one a little LangGame, and a third one, from nothing, a little addition"
stochastok make-langgame --train-size 5000 --val-size 200 --tokenizer sample2k "${here[@]}"
stochastok make-addition --num-digits 2 --tokenizer sample2k "${here[@]}"
tune=(trainer.training.max_iters=40 trainer.training.warmup_iters=5 trainer.training.eval_interval=40)
langgame=$(stochastok train "${run[@]}" --run-name langgame "trainer.checkpoint_name=$stochastic" \
    trainer.dataset.name=langgame trainer.dataset.is_instruction=true "${tune[@]}")
addition=$(stochastok train "${run[@]}" --run-name addition trainer.dataset.name=multi_digit_addition_stochastok "${tune[@]}")
stochastok eval "$langgame" --evaluator mcq --benchmarks langgame-val "${here[@]}"
stochastok eval "$addition" --evaluator math_generation --num-samples 20 "${here[@]}"

say "4. What StochasTok does: bits per byte of the same text, cut as in training and cut otherwise (less is better)"
stochastok eval "$canonical" "$stochastic" --evaluator bits_per_byte \
    --benchmarks sample-tokenized,sample-tokenized-stochastok1.0 "${here[@]}"
say "Data: $out/data   Runs, with their checkpoints, logs and metrics: $out/checkpoints"
