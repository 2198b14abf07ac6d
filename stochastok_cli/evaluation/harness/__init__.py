"""Tasks of lm-evaluation-harness, on any model and in any tokenization (extra `lm-eval`)."""
