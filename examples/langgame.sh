#!/usr/bin/env bash
# What does training on randomly split tokens buy on LangGame? In miniature: the two models of quickstart.sh are tuned,
# with three seeds each, and compared. After quickstart.sh, offline, in about twenty minutes on two CPU cores.
# Usage: bash examples/langgame.sh [FOLDER]      (that of quickstart.sh; the report needs pip install '.[report]')
set -euo pipefail
out=${1:-quickstart-output}
data=(--data-dir "$out/langgame-data")
stochastok make-langgame --train-size 20000 --val-size 500 --tokenizer sample2k "${data[@]}" >/dev/null

for parent in canonical stochastok; do
    for seed in 0 1 2; do
        stochastok train --config quickstart --run-name "langgame-from-$parent-$seed" "general.seed=$seed" "${data[@]}" \
            "general.paths.checkpoint_dir=$out/checkpoints" "trainer.checkpoint_name=$parent" \
            trainer.dataset.name=langgame trainer.dataset.is_instruction=true \
            trainer.training.max_iters=1500 trainer.training.lr_decay_iters=1500 trainer.training.warmup_iters=50 \
            trainer.training.eval_interval=250 trainer.training.checkpoint_interval=250 \
            'trainer.eval=[{evaluator:mcq,num_samples:200,benchmarks:[langgame-val]}]' >/dev/null
    done
done

ask=(--evaluator mcq --benchmarks langgame-val "${data[@]}" --checkpoint-dir "$out/checkpoints")
for parent in canonical stochastok; do
    stochastok eval "langgame-from-$parent"-{0,1,2} "${ask[@]}" --contamination --tokenization uniform:0.5 --samples 2 --aggregate
done
stochastok eval langgame-from-{canonical,stochastok}-0 "${ask[@]}" --by-kind --contamination --paired --report "$out/langgame-report"
