"""What a sweep found: a table, and a page that needs no network, from the files of its runs.

python -m experiments.report --workdir=runs/schedules
"""

import pathlib

import rich.console
import rich.table

from experiments import command, page
from experiments.findings import Findings, best_of_in_words, p_in_words, plus_minus, read


def main() -> None:
    workdir = pathlib.Path(command.required(command.WORKDIR, "the folder of a sweep")).absolute()
    write(workdir)


def write(workdir: pathlib.Path) -> None:
    """Writes summary.csv and report.html, and prints the table.

    Raises:
      InputError: there is no sweep in this folder, or no run of it is finished.
    """
    findings = read(workdir)
    findings.summary.to_csv(workdir / "summary.csv", index=False)
    (workdir / "report.html").write_text(page.render(findings))
    show(findings)
    print(f"written to {workdir / 'summary.csv'}\nthe report: {workdir / 'report.html'}")


def show(findings: Findings) -> None:
    """Prints a table for each setting."""
    sweep, metric = findings.sweep, findings.sweep["metric"]
    console = rich.console.Console()
    for setting, rows in findings.summary.groupby("setting", sort=False):
        table = rich.table.Table(
            *("arm", metric, f"minus {sweep['reference']}", "p (Holm)"),
            title=setting or None,
            caption=f"mean ± 95% over seeds; raw pixels {rows.raw_pixels.mean():.3f}",
        )
        troubles = [name for name in ("collapsed", "failed") if rows[name].any()]
        for name in troubles:
            table.add_column(name)
        for row in rows.to_dict("records"):
            started = row["runs"] + row["failed"]
            table.add_row(
                row["arm"],
                plus_minus(row[metric], row["ci95_low"], row["ci95_high"]),
                plus_minus(row["difference"], row["difference_low"], row["difference_high"], "+"),
                p_in_words(row["p_holm"]),
                *(f"{row[name]} of {started}" if row[name] else "" for name in troubles),
            )
        console.print(table)
    for row in findings.best_of.to_dict("records"):
        console.print(best_of_in_words(row), soft_wrap=True, highlight=False)
    for row in findings.runs[findings.runs.state == "failed"].to_dict("records"):
        console.print(f"failed: {row['name']}: {row['error']}", soft_wrap=True, highlight=False)


if __name__ == "__main__":
    command.run(main)
