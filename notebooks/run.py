"""Run a chapter with other parameters.

This is papermill, except that a misspelt parameter is an error instead of a warning.

\b
python notebooks/run.py 04_reconstruction_table results/table.ipynb \\
    -p dataset acdc -p root data/ACDC -y 'accelerations: [4, 8]'
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import NoReturn

import click
import papermill
import yaml
from traitlets.config import Config

PAIR = "One parameter; the value is read as YAML."
MAPPING = "Several parameters as a YAML mapping, for lists."


@click.command(help=__doc__)
@click.argument("chapter")
@click.argument("output", type=click.Path(dir_okay=False))
@click.option("-p", "pairs", nargs=2, multiple=True, metavar="NAME VALUE", help=PAIR)
@click.option("-y", "mapping", default="{}", help=MAPPING)
def main(
    chapter: str, output: str, pairs: tuple[tuple[str, str], ...], mapping: str
) -> None:
    source = Path(__file__).parent / f"{chapter.removesuffix('.ipynb')}.ipynb"
    if not source.exists():
        chapters = [path.stem for path in source.parent.glob("*.ipynb")]
        refuse("chapter", chapter, chapters)
    try:
        parameters = dict(yaml.safe_load(mapping) or {})
        parameters |= {name: yaml.safe_load(value) for name, value in pairs}
    except (yaml.YAMLError, TypeError, ValueError) as error:
        message = " ".join(str(error).split())
        raise click.UsageError(f"parameters are not YAML: {message}") from error
    known = papermill.inspect_notebook(str(source))
    for name in parameters:
        if name not in known:
            refuse(f"parameter of {source.stem}", name, known)
    Path(output).parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="prom-") as folder:
        papermill.execute_notebook(
            str(source),
            output,
            parameters=parameters,
            progress_bar=False,
            request_save_on_cell_execute=False,
            config=kernel_of_its_own(folder),
        )


def kernel_of_its_own(folder: str) -> Config:
    """Settings by which a kernel is reached through files in ``folder``.

    Network ports are found free first and taken later, so that two kernels that start
    together may find the same. Windows has no such files, and takes ports.
    """
    config = Config()
    if os.name == "posix":
        config.KernelManager.transport = "ipc"
        config.KernelManager.ip = f"{folder}/kernel"
    return config


def refuse(kind: str, name: str, known: Iterable[str]) -> NoReturn:
    """Say what is not known, and what was perhaps meant."""
    # Imported here, since importing prom takes seconds, for each run of a sweep.
    from prom.errors import unknown

    raise click.UsageError(str(unknown(kind, name, known)))


if __name__ == "__main__":
    main()
