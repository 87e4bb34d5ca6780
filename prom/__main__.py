"""``python -m prom``: the command line, as ``torchrun -m prom`` starts it."""
# No recorded result depends on this file.

from prom.cli import main

main()
