"""``python -m prom``: the command line, as ``torchrun -m prom`` starts it."""

from prom.cli import main

main()
