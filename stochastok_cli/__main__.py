"""The program `stochastok`, and `python -m stochastok_cli`, which `torchrun -m stochastok_cli train …` starts too."""

from stochastok_cli.cli import interruption


def main() -> None:
    """Imports and runs the application; Ctrl-C ends it with one line also while it is imported."""
    interruption.end_at_once()
    from stochastok_cli.cli import app

    app.main()


if __name__ == "__main__":
    main()
