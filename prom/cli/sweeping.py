"""``prom sweep``: many runs, and one table."""

from __future__ import annotations

import shlex
import signal
import sys
from functools import partial

import click

import prom
from prom import options
from prom.cli.common import example
from prom.cli.types import real, whole
from prom.errors import InputError
from prom.kspace import patterns


class Lists(click.Command):
    """Takes ``--methods energy default`` for ``--methods energy --methods default``, which is all that click knows."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        repeatable = {name for option in self.params if getattr(option, "multiple", False) for name in option.opts}
        spread, current = [], None
        for arg in args:
            if arg.startswith("-"):
                current = arg if arg in repeatable else None
            elif current and spread[-1] != current:
                spread.append(current)
            spread.append(arg)
        return super().parse_args(ctx, spread)


@click.command(
    "sweep",
    cls=Lists,
    epilog=example(
        "prom sweep reconstruction --dataset acdc --root data/ACDC --methods energy default equispaced \\",
        "    --patterns points columns --accelerations 4 8 16 32 --seeds 10 --jobs 2",
        "prom sweep segmentation --dataset acdc --root data/ACDC --network net.pt --methods energy polished task-polished \\",
        "    --accelerations 8 16 32 --seeds 3 --jobs 2",
    ),
)
@click.argument("kind")
@click.option("--dataset", required=True, help="A registered name, or a folder or file of your own images.")
@click.option("--root", help="The folder of a registered data set. [default: data/<its folder>, or below $PROM_DATA]")
@click.option("--set", "settings", multiple=True, metavar="OPTION=VALUE ...", help="Set options of the data set's reader.")
@click.option(
    "--methods",
    multiple=True,
    default=["energy", "default"],
    show_default=True,
    help="Baselines, recipes and their variants, as paper:members=1; task-NAME is learnt through the network.",
)
@click.option(
    "--patterns",
    "names",
    multiple=True,
    default=["points"],
    show_default=True,
    help=f"What masks switch on: {', '.join(patterns.PATTERNS)}; the still ones for the baseline repeated of series.",
)
@click.option("--accelerations", multiple=True, type=real(), default=[4, 8, 16, 32], show_default=True, help="The nominal accelerations.")
@click.option(
    "--seeds", type=whole("[1, 1e6]"), default=1, show_default=True, help="The number of seeds (0, 1, ...) of every random method."
)
@click.option("--ensembles", multiple=True, help="Also average the solutions of the first 2, 3, ... seeds of these METHODS.")
@click.option("--network", help="For segmentation: the file of the network, as 'prom segment train' writes it.")
@click.option(
    "--tuning-steps", type=whole("[0, 1e9]"), default=0, show_default=True, help="For segmentation: fine-tune the network to each mask."
)
@click.option("--jobs", type=whole("[1, 1e6]"), default=1, show_default=True, help="The number of runs at a time, each with one thread.")
@click.option("--executor", default="local", show_default=True, help="local, or slurm, where every run is a job of a cluster.")
@click.option("--snakemake", default="", metavar="OPTIONS", help="Further options for Snakemake, in quotes.")
@click.option("--output", "-o", default="results/sweep", show_default=True, help="The folder for records, logs and the table.")
def sweep_command(kind, dataset, settings, jobs, executor, snakemake, **what) -> None:
    """Run many methods, accelerations and seeds, and make one table: KIND is reconstruction or segmentation.

    You can interrupt a sweep and resume it with the same command, within a long descent too. Runs that fail do not stop the others;
    they are named at the end, with exit code 1. Scores are those of zero-filled images, or of the network's regions in them. Sweeps need
    the extra 'sweep': pip install 'prom-mri[sweep]'.
    """
    try:
        more = shlex.split(snakemake)
    except ValueError as error:
        raise InputError(f"snakemake {snakemake!r}: cannot be split into options ({error}); close every quotation mark") from error
    sweep = prom.sweep
    sweep.check_possible(executor)
    for number in (signal.SIGTERM, signal.SIGHUP):  # as ^C, or Snakemake would go on alone
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, signal.default_int_handler)
    plan = sweep.plan(kind, dataset, options=options.parse_all(settings, partial(prom.datasets.parse_option, dataset)), **what)
    for method, pattern in plan.left_out:
        click.echo(f"left out: {method} cannot make {pattern} in a sweep")
    failed = sweep.run(plan, jobs, executor, more)
    table = sweep.collect(plan)
    if len(table):
        click.echo(f"{sweep.summary(table)}\n\nwrote {plan.table}: {len(table)} of {len(plan.runs)} runs")
    if failed:
        click.echo(f"prom: {len(failed)} of {len(plan.runs)} runs failed; run the same command to try them again", err=True)
        for name, reason in failed.items():
            click.echo(f"  {name}: {reason}", err=True)
        jobs_too = "" if executor == "local" else "; of the cluster's jobs: .snakemake/*_logs/rule_run/<run>"
        click.echo(f"  logs and notebooks: {plan.folder}/<run>.log and <run>.ipynb; of Snakemake: {sweep.LOG}{jobs_too}", err=True)
        sys.exit(1)
