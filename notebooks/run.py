"""Run a chapter with other parameters: papermill, except that a misspelt parameter is an error instead of a warning.

python notebooks/run.py 04_reconstruction_table results/table.ipynb -p dataset acdc -p root data/ACDC -y 'accelerations: [4, 8]'
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


@click.command(help=__doc__)
@click.argument("chapter")
@click.argument("output", type=click.Path(dir_okay=False))
@click.option(
    "-p",
    "plain",
    nargs=2,
    multiple=True,
    metavar="NAME VALUE",
    help="One parameter; the value is read as YAML.",
)
@click.option(
    "-y",
    "mapping",
    default="{}",
    help="Several parameters as a YAML mapping, for lists.",
)
def main(
    chapter: str, output: str, plain: tuple[tuple[str, str], ...], mapping: str
) -> None:
    source = Path(__file__).parent / f"{chapter.removesuffix('.ipynb')}.ipynb"
    if not source.exists():
        refuse(
            "chapter", chapter, [path.stem for path in source.parent.glob("*.ipynb")]
        )
    try:
        parameters = {
            **(yaml.safe_load(mapping) or {}),
            **{name: yaml.safe_load(value) for name, value in plain},
        }
    except (yaml.YAMLError, TypeError) as error:
        raise click.UsageError(
            f"parameters are not YAML: {' '.join(str(error).split())}"
        ) from error
    known = papermill.inspect_notebook(str(source))
    for name in parameters:
        if name not in known:
            refuse(f"parameter of {source.stem}", name, known)
    Path(output).parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="prom-") as folder:
        kernel = Config()
        if (
            os.name == "posix"
        ):  # network ports are found free first and taken later: two kernels that start together may find the same
            kernel.KernelManager.transport, kernel.KernelManager.ip = (
                "ipc",
                f"{folder}/kernel",
            )
        papermill.execute_notebook(
            str(source),
            output,
            parameters=parameters,
            progress_bar=False,
            config=kernel,
        )


def refuse(kind: str, name: str, known: Iterable[str]) -> NoReturn:
    """Say what is not known, and what was perhaps meant."""
    from prom.errors import (
        unknown,
    )  # here, as importing prom takes seconds, and hundreds of runs of a sweep would wait for them

    raise click.UsageError(str(unknown(kind, name, known)))


if __name__ == "__main__":
    main()
