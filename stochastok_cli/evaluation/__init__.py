"""What a model is asked: multiple choice, addition, and how well it predicts text."""

from stochastok_cli.evaluation.evaluators import Evaluator, Extras, counts, evaluate, evaluate_models, load_evaluators

__all__ = ["Evaluator", "Extras", "counts", "evaluate", "evaluate_models", "load_evaluators"]
