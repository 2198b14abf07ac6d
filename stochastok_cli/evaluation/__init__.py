"""What a model is asked: multiple choice, addition, and how well it predicts text."""

from stochastok_cli.evaluation.evaluators import Evaluator, counts, evaluate, load_evaluators

__all__ = ["Evaluator", "counts", "evaluate", "load_evaluators"]
