"""`python -m stochastok_cli`, which `torchrun -m stochastok_cli train …` starts too."""

from stochastok_cli.cli.app import main

if __name__ == "__main__":
    main()
