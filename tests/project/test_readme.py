"""The README's headline table is the recorded results and the paper's table, not typed numbers."""

from __future__ import annotations

from pathlib import Path

from prom.runs import results

PROJECT = Path(__file__).parents[2]
ACCELERATIONS = (4, 8, 16, 32)


def headline() -> list[str]:
    """The rows of the table."""
    published = results.read(PROJECT / "data/paper/table1_reconstruction.csv").query("dataset == 'ACDC' and method == 'prom'")
    recorded = results.read(PROJECT / "data/recorded/acdc_reconstruction.csv").fillna({"variant": ""})
    recorded = recorded.query("pattern == 'points'").rename(columns={"psnr": "psnr_db"})
    ten = recorded.query("method == 'paper' and members == 10 and variant == 'members=1'")
    recorded = recorded.query("options == '{}' and variant == ''")
    ours = recorded.query("method == 'polished'")
    seeds = ours.groupby("acceleration")["seed"].nunique()
    assert seeds.nunique() == 1
    rows = []
    for label, runs, mark in (
        ("paper, ProM (10 members)", published, ""),
        ("paper's recipe, images in [0, 1], average of 10 members", ten.query("options == '{}'"), ""),
        ("paper's recipe, images times 0.3, average of 10 members", ten.query("options == '{\"scale\": 0.3}'"), ""),
        ("energy oracle", recorded.query("method == 'energy'"), ""),
        ("conjugate-aware energy, closed form", recorded.query("method == 'conjugate_energy'"), ""),
        (f"ours, polished, mean over {seeds.iloc[0]} seeds", ours, "**"),
    ):
        mean = runs.groupby("acceleration")[["psnr_db", "ssim"]].mean()
        cells = [f"{mark}{mean.loc[a, 'psnr_db']:.2f}{mark} / {mean.loc[a, 'ssim']:.3f}" for a in ACCELERATIONS]
        rows.append(f"| {label} | {' | '.join(cells)} |")
    return rows


def test_headline_table_is_what_was_recorded():
    readme = (PROJECT / "README.md").read_text()
    for row in headline():
        assert row in readme
