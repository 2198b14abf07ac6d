"""Evaluation: multiple choice, addition, bits per byte of text, and activations inside a model.

`run.evaluate` evaluates checkpoints, `base.Evaluator` is what an evaluator implements, `scoring.LM` is a model as
evaluators see it.
"""
