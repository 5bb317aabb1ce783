"""What a sweep found: a table, and a page that needs no network, from the files of its runs."""

import pathlib

import rich.console
import rich.table

from experiments.sweeps import page
from experiments.sweeps.findings import Findings, best_of_in_words, p_in_words, plus_minus, read
from triplet_jax.runs import files


def write(workdir: pathlib.Path) -> None:
    """Writes summary.csv, summary.md and report.html, and prints the table.

    Raises:
      InputError: there is no sweep in this folder, or no run of it is finished.
    """
    findings = read(workdir)
    files.write_text(workdir / "summary.csv", findings.summary.to_csv(index=False))
    files.write_text(workdir / "summary.md", markdown(findings))
    files.write_text(workdir / "report.html", page.render(findings))
    show(findings)
    for name in ("summary.csv", "summary.md", "report.html"):
        print(f"written to {workdir / name}")


def show(findings: Findings) -> None:
    """Prints a table for each setting."""
    console = rich.console.Console()
    for setting, header, rows, pixels in _tables(findings):
        table = rich.table.Table(
            *header,
            title=setting or None,
            caption=f"mean ± 95% over seeds; raw pixels {pixels:.3f}",
        )
        for row in rows:
            table.add_row(*row)
        console.print(table)
    for line in _remarks(findings):
        console.print(line, soft_wrap=True, highlight=False)


def markdown(findings: Findings) -> str:
    """The same for a document: a table for each setting, and what all of it cost."""
    parts = []
    for setting, header, rows, pixels in _tables(findings):
        lines = [header, ["---"] * len(header), *rows]
        title = f"{setting}; raw pixels {pixels:.3f}".removeprefix("; ")
        parts.append("\n".join([f"{title}\n", *(f"| {' | '.join(line)} |" for line in lines)]))
    done = findings.runs[findings.runs.state == "done"]
    remarks = [
        *_remarks(findings),
        f"{len(done)} runs of {done.steps.min():,} to {done.steps.max():,} steps,"
        f" {done.seconds.sum() / 60:.1f} minutes.",
    ]
    return "\n\n".join([*parts, "\n".join(f"- {line}" for line in remarks)]) + "\n"


def _tables(findings):
    """Of each setting: its name, the header and the rows of its table, and raw pixels' score."""
    sweep, metric = findings.sweep, findings.sweep["metric"]
    for setting, rows in findings.summary.groupby("setting", sort=False):
        troubles = [name for name in ("collapsed", "failed") if rows[name].any()]
        header = ["arm", metric, f"minus {sweep['reference']}", "p (Holm)", *troubles]
        cells = [
            [
                row["arm"],
                plus_minus(row[metric], row["ci95_low"], row["ci95_high"]),
                plus_minus(row["difference"], row["difference_low"], row["difference_high"], "+"),
                p_in_words(row["p_holm"]),
                *(
                    f"{row[name]} of {row['runs'] + row['failed']}" if row[name] else ""
                    for name in troubles
                ),
            ]
            for row in rows.to_dict("records")
        ]
        yield setting, header, cells, rows.raw_pixels.mean()


def _remarks(findings):
    """What stands below the tables."""
    best = [best_of_in_words(row) for row in findings.best_of.to_dict("records")]
    failed = findings.runs[findings.runs.state == "failed"].to_dict("records")
    return best + [f"failed: {row['name']}: {row['error']}" for row in failed]
