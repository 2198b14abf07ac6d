#!/usr/bin/env bash
# Three questions about StochasTok that the papers leave open. Is a copy that was expanded once as good as text that is expanded
# anew whenever it is drawn? Do methods differ when they make documents equally long? What does it cost: text that is
# expanded needs more tokens for the same bytes, so a model is also trained for so many more iterations.
# The options are in settings.sh.
set -euo pipefail
source "$(dirname "$0")/settings.sh"
methods=(stochastok bpe-dropout uniform)
# On the fly; for more iterations, so that it reads as many bytes as `canonical`; on copies with the growth of stochastok-0.1.
kinds=(canonical stochastok-0.1 longer-stochastok-0.1 "${methods[@]/#/copy-}")

# of_report METHODS FIELD OPTION…: a field of `stochastok expand --report`, by method.
of_report() {
    stochastok expand corpus-tokenized "${here[@]}" --report --method "$1" "${@:3}" --quiet --json |
        python -c 'import json, sys; print(*(row[sys.argv[1]] for row in json.load(sys.stdin)))' "$2"
}
tokenize_corpus
make_langgame langgame
growth=$(of_report stochastok growth --expand-prop 0.1)
for method in "${methods[@]}"; do
    p=0.1
    [[ $method == stochastok ]] || p=$(of_report "$method" p --match-growth "$growth")
    locked "copy-$method" stochastok expand corpus-tokenized "${here[@]}" --method "$method" --expand-prop "$p" --out-name "copy-$method" --quiet >/dev/null
done
compare() {
    local parent=$1-$2 more
    case $1 in
        copy-*) pretrain "$parent" canonical "$2" "trainer.dataset.name=$1" ;;
        longer-*)
            read -ra more <<<"$(iterations "$(python -c "print(round($pretrain_iterations * $growth))")")"
            pretrain "$parent" "${1#longer-}" "$2" "${more[@]}"
            ;;
        *) parent=pretrain-$1-$2 && pretrain "$parent" "$1" "$2" ;;
    esac
    tune "langgame-from-$1-$2" "$parent" langgame "$2"
    evaluate bits "$parent" --evaluator bits_per_byte --benchmarks corpus-tokenized
    mkdir -p "$out/evaluations/bits-by-kind" && cp "$out/evaluations/bits/$parent.json" "$out/evaluations/bits-by-kind/ablation-$1-$2.json"
}
over_seeds compare "${kinds[@]}"
summarize "$figure" "LangGame: expanded copies, equal growth, equal bytes (growth of stochastok-0.1: $growth)" langgame-from "${kinds[*]}" \
    --from "$runs" --metric mcq/langgame-val/normalized_accuracy --last
summarize "$figure-bits-per-byte" "Bits per byte of validation text in its canonical tokenization" ablation "${kinds[*]}" \
    --from "$out/evaluations/bits-by-kind" --metric bits_per_byte/corpus-tokenized
