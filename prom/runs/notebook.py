"""One run of a sweep: a notebook with other parameters, by papermill (extra ``sweep``).

This is papermill, except that a misspelt parameter is an error instead of a warning::

    python -m prom.runs.notebook reconstruction run.ipynb -p dataset mni_brain -p method energy -y '{"acceleration": 4}'
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import click
import papermill
import yaml
from traitlets.config import Config

from prom.errors import InputError, unknown
from prom.files import check_writable

LONGEST_SOCKET = 103  # bytes of the name of a socket that every Unix takes
FOLDER = Path(__file__).with_name("notebooks")
HELP = """Run the notebook of a sweep with other parameters: reconstruction or segmentation.

This is papermill, except that a misspelt parameter is an error instead of a warning.

\b
python -m prom.runs.notebook reconstruction run.ipynb \\
    -p dataset mni_brain -p method energy -y '{"acceleration": 4}'
"""
PAIR = "One parameter; a word is taken as it is, and any other value is read as YAML."
MAPPING = "Several parameters as a YAML mapping, for lists."


def command(folder: Path, kind: str, text: str) -> click.Command:
    """The command line that runs a notebook of ``folder`` with other parameters.

    Parameters
    ----------
    folder
        Where the notebooks lie: ``name.ipynb`` is found by its name.
    kind
        What one of them is called in messages.
    text
        The help.

    >>> command(FOLDER, "notebook", "Run one.").params[0].make_metavar(None)
    'NOTEBOOK'
    """

    @click.command(help=text)
    @click.argument("name", metavar=kind.upper())
    @click.argument("output", type=click.Path(dir_okay=False))
    @click.option("-p", "pairs", nargs=2, multiple=True, metavar="NAME VALUE", help=PAIR)
    @click.option("-y", "mapping", default="{}", help=MAPPING)
    def main(name: str, output: str, pairs: tuple[tuple[str, str], ...], mapping: str) -> None:
        notebooks = {path.stem: path for path in folder.glob("*.ipynb")}
        source = notebooks.get(name.removesuffix(".ipynb"))
        if source is None:
            raise click.UsageError(str(unknown(kind, name, notebooks)))
        check_output(source, output)
        known = papermill.inspect_notebook(str(source))
        words = [name for name, parameter in known.items() if parameter["inferred_type_name"] == "str"]
        try:
            parameters = dict(_parsed(mapping) or {})
            quoted = ("'", '"')
            parameters |= {name: text if name in words and not text.startswith(quoted) else _parsed(text) for name, text in pairs}
        except (yaml.YAMLError, TypeError, ValueError) as error:
            message = " ".join(str(error).split())
            raise click.UsageError(f"parameters are not YAML: {message}") from error
        for parameter in parameters:
            if parameter not in known:
                raise click.UsageError(str(unknown(f"parameter of {source.stem}", parameter, known)))
        execute(source, output, parameters)

    return main


def check_output(source: Path, output: str) -> None:
    """Refuse what is no name of a notebook, what cannot be written, and the notebook that is run."""
    if not output.endswith(".ipynb"):
        raise click.UsageError(f"output {output}: must end in .ipynb")
    if os.path.exists(output) and os.path.samefile(source, output):
        raise click.UsageError(f"output {output}: would overwrite the notebook that is run; name another")
    folder = Path(output).absolute().parent
    while not folder.exists():
        folder = folder.parent
    try:
        check_writable(folder / Path(output).name)
    except InputError as error:
        raise click.UsageError(str(error)) from error


def _parsed(text: str) -> object:
    """Read as JSON where it is that, else as YAML, for which 1e-05 is a word, as is half of a character that JSON writes in two."""
    try:
        return json.loads(text)
    except ValueError:
        return yaml.safe_load(text)


def execute(source: Path, output: str | os.PathLike, parameters: dict[str, object]) -> None:
    """Run the notebook ``source`` with ``parameters`` in this folder, and write it with its outputs to ``output``."""
    Path(output).parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="prom-") as folder:
        papermill.execute_notebook(
            str(source),
            os.fspath(output),
            parameters=parameters,
            progress_bar=False,
            request_save_on_cell_execute=False,
            config=kernel_of_its_own(folder),
        )


def kernel_of_its_own(folder: str) -> Config:
    """Settings by which a kernel is reached through files in ``folder``.

    Network ports are found free first and taken later, so that two kernels that start together may find the same. Windows has no such
    files, and takes ports; so does a folder whose name is too long for them.

    >>> kernel_of_its_own("folder").KernelManager.transport if os.name == "posix" else "ipc"
    'ipc'
    """
    config = Config()
    if os.name == "posix" and len(os.fsencode(f"{folder}/kernel-00")) <= LONGEST_SOCKET:
        config.KernelManager.transport = "ipc"
        config.KernelManager.ip = f"{folder}/kernel"
    return config


if __name__ == "__main__":
    command(FOLDER, "notebook", HELP)()
