"""Run a chapter with other parameters.

This is papermill, except that a misspelt parameter is an error instead of a warning.

\b
python notebooks/run.py 04_reconstruction_table results/table.ipynb \\
    -p dataset acdc -p root data/ACDC -y 'accelerations: [4, 8]'
"""

from __future__ import annotations

from pathlib import Path

from prom.runs.notebook import command

main = command(Path(__file__).parent, "chapter", __doc__)

if __name__ == "__main__":
    main()
