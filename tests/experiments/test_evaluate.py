"""Which flags of `experiments.evaluate` go together, and that they reach the scores of files."""

import json

import numpy as np

from tests.experiments.run.test_file_scores import written
from tests.experiments.run.test_pair_scores import write_pairs
from tests.support import mains

REFUSED = {
    "": "--workdir is missing: the folder of a trained run, or give --embeddings=FILE.npz",
    "--workdir=w --split=validation": "--split goes with --embeddings",
    "--workdir=w --items=mean": "--items goes with --embeddings",
    "--workdir=w --output=a.json": "--output goes with --embeddings: a run has its result.json",
    "--workdir=w --pairs_root=r": "--pairs_root goes with --pairs",
    "--embeddings=a.npz --workdir=w": "--embeddings evaluates files, in one process: leave out",
    "--embeddings=a.npz --data=d": "leave out --workdir, --data and --coordinator",
    "--embeddings=a.npz --output=a.txt": "--output=a.txt must be a file named *.json",
    "--embeddings=a.npz --rerank=20": "--rerank=20 must be K1,K2,WEIGHT",
    "--pairs=p --table=t.csv": "--table does not go with --pairs: leave it out",
    "--pairs=p --data=d": "--data does not go with --pairs: leave it out",
    "--pairs=p --embeddings=a.npz --workdir=w": "leave out --workdir and --pairs_root",
    "--pairs=p": "--workdir is missing: the folder of a trained run, or give --embeddings=FILE.npz",
    "--pairs=p --workdir=w": "--pairs_root is missing: the folder of the images of --pairs",
    "--pairs=p --workdir=w --pairs_root=r": "--pairs='p' is not a file",
}


def test_flags_that_do_not_go_together_are_refused():
    answers = mains.said("evaluate", *(given.split() for given in REFUSED))
    for (given, expected), answer in zip(REFUSED.items(), answers, strict=True):
        assert answer.startswith("error: ") and expected in answer, (given, answer)


def test_flags_reach_the_scores_of_files(tmp_path):
    path, _ = written(tmp_path, "mine", 2.0)
    rows = [str(i % 2) for i in range(180)]
    (tmp_path / "rows.csv").write_text("\n".join(["lens", *rows]))
    files, table = f"--embeddings={path}", f"--table={tmp_path / 'rows.csv'}"
    output = tmp_path / "scores.json"
    no_items, moved, left_out = mains.said(
        "evaluate",
        [files, "--items=mean"],
        [files, "--expand_queries=2", "--rerank=5,2,0.3"],
        [files, table, "--ignore=lens", f"--output={output}"],
    )
    assert "error: --items=mean needs items" in no_items
    assert "expanded by their 2 nearest" in moved and "neighbours, 5, 2, 0.3" in moved
    assert f"written to {output}" in left_out
    result = json.loads(output.read_text())
    assert result["files"][path]["retrieval"]["queries"] == 180
    assert result["protocol"]["left_out"].endswith("agree with it in lens")


def test_files_are_judged_by_pairs(tmp_path):
    names = ("Ann", "Bob", "Cid")
    x = np.eye(3, dtype=np.float32).repeat(8, 0)
    of_rows = [f"{name}_{i:04}.jpg" for name in names for i in range(1, 9)]
    np.savez(tmp_path / "mine.npz", embeddings=x, names=of_rows)
    write_pairs(tmp_path / "pairs.txt", names, 8)
    output = tmp_path / "scores.json"
    files = [f"--embeddings={tmp_path / 'mine.npz'}", f"--pairs={tmp_path / 'pairs.txt'}"]
    (said,) = mains.said("evaluate", [*files, f"--output={output}"])
    assert f"written to {output}" in said
    (scores,) = json.loads(output.read_text())["scores"].values()
    assert scores["accuracy"] == 1 and scores["same_pairs"] == 3000
