"""lm-evaluation-harness with the model `stochastok`, which reads requests in other tokenizations (extra `lm-eval`).

The harness finds no models outside of its own package, so its command line is started from here; it is the same in
everything else:

    python -m stochastok_cli.integrations.lm_eval --model stochastok \\
        --model_args pretrained=CHECKPOINT,tokenization=uniform:0.5,seed=3 --tasks arc_easy

In Python, importing this module registers the model for `lm_eval.simple_evaluate(model="stochastok", …)`. The arguments
are those of `RetokenizingLM`.
"""

import os
import sys

from stochastok_cli.errors import UserError, cannot_import

try:
    from lm_eval.api.registry import model_registry, register_model

    from stochastok_cli.evaluation.harness.retokenizing_lm import RetokenizingLM
except ImportError as error:
    missing = cannot_import("this model", "lm_eval", "lm-eval", error)
    if __name__ != "__main__":
        raise missing from None
    print(f"error: {missing}", file=sys.stderr)
    sys.exit(missing.exit_code)

__all__ = ["RetokenizingLM", "main"]

NAME = "stochastok"

if NAME not in model_registry:
    register_model(NAME)(RetokenizingLM)


def main() -> None:
    """The harness's command line `lm_eval`, which also knows the model `stochastok`."""
    from lm_eval.__main__ import cli_evaluate

    try:
        cli_evaluate()
    except UserError as error:
        if os.environ.get("LMEVAL_LOG_LEVEL", "").upper() == "DEBUG":
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
