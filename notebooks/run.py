"""Run a chapter with other parameters: papermill, except that a misspelt parameter is an error instead of a warning.

python notebooks/run.py 04_reconstruction_table results/table.ipynb -p dataset acdc -p root data/ACDC -y 'accelerations: [4, 8]'
"""

from __future__ import annotations

from pathlib import Path

import click
import papermill
import yaml

from prom.errors import unknown


@click.command(help=__doc__)
@click.argument("chapter")
@click.argument("output", type=click.Path(dir_okay=False))
@click.option("-p", "plain", nargs=2, multiple=True, metavar="NAME VALUE", help="One parameter; the value is read as YAML.")
@click.option("-y", "mapping", default="{}", help="Several parameters as a YAML mapping, for lists.")
def main(chapter: str, output: str, plain: tuple[tuple[str, str], ...], mapping: str) -> None:
    source = Path(__file__).parent / f"{chapter.removesuffix('.ipynb')}.ipynb"
    if not source.exists():
        raise click.UsageError(str(unknown("chapter", chapter, (p.stem for p in source.parent.glob("*.ipynb")))))
    try:
        parameters = {**(yaml.safe_load(mapping) or {}), **{name: yaml.safe_load(value) for name, value in plain}}
    except (yaml.YAMLError, TypeError) as error:
        raise click.UsageError(f"parameters are not YAML: {' '.join(str(error).split())}") from error
    known = papermill.inspect_notebook(str(source))
    for name in parameters:
        if name not in known:
            raise click.UsageError(str(unknown(f"parameter of {source.stem}", name, known)))
    Path(output).parent.mkdir(parents=True, exist_ok=True)
    papermill.execute_notebook(str(source), output, parameters=parameters, progress_bar=False)


if __name__ == "__main__":
    main()
