"""Writes what a sweep found into its folder, and prints it."""

import pathlib

from experiments.sweeps import outcome, report_page, summary
from triplet_jax.runs import files


def write(workdir: pathlib.Path) -> tuple[str, ...]:
    """Writes summary.csv, summary.md and report.html, and prints the table.

    Args:
      workdir: of the sweep.

    Returns:
      The names of the files.

    Raises:
      InputError: there is no sweep in this folder, or no run of it is finished.
    """
    found = outcome.read(workdir)
    written = {
        "summary.csv": found.summary.to_csv(index=False),
        "summary.md": summary.markdown(found),
        "report.html": report_page.render(found),
    }
    for name, text in written.items():
        files.write_text(workdir / name, text)
    summary.show(found)
    for name in written:
        print(f"written to {workdir / name}")
    return tuple(written)
