"""A study that processes share: who gets which trial, and what becomes of those that are killed."""

import pytest

from tests.support import small_studies


def points(shared):
    return {record.number: record.params for record in shared.records()}


def test_a_trial_that_was_left_goes_on_with_its_number_and_point(tmp_path):
    study = small_studies.made()
    first = small_studies.shared(study, tmp_path)
    with first.claim(2) as asked:  # it ends without an ending, as a process that is killed
        pass
    second = small_studies.shared(study, tmp_path)
    with second.claim(1) as left:
        assert [trial.number for trial in left] == [0, 1]
        assert [trial.point for trial in left] == [trial.point for trial in asked]
        second.tell(0, 0.5)
    with first.claim(1) as still:  # with what was asked for together, so that it trains together
        assert [trial.number for trial in still] == [0, 1]
        first.tell(0, 0.1)  # it has ended
        first.tell(1, 0.6)
    assert [record.value for record in second.records("COMPLETE")] == [0.5, 0.6]


def test_processes_share_the_trials_and_begin_no_more(tmp_path):
    study = small_studies.made(trials=5)
    one, two = (small_studies.shared(study, tmp_path) for _ in range(2))
    with one.claim(3) as of_one, two.claim(3) as of_two, one.claim(3) as of_nobody:
        numbers = [[trial.number for trial in trials] for trials in (of_one, of_two, of_nobody)]
        assert numbers == [[0, 1, 2], [3, 4], []]
    assert len(one.records("RUNNING")) == 5


def test_a_process_that_is_killed_while_it_asks_leaves_a_whole_trial(tmp_path):
    study = small_studies.made()
    one = small_studies.shared(study, tmp_path)
    one._records.ask()
    one._records.ask().suggest_float("optimizer.learning_rate", 1e-4, 1e-2, log=True)
    for number in (0, 1):
        with small_studies.shared(study, tmp_path).claim(1) as (trial,):
            assert trial.number == number
            assert trial.point.keys() == dict(small_studies.SPACE).keys()
            one.tell(number, 0.5)


def test_the_first_trial_is_the_config_of_the_study(tmp_path):
    study = small_studies.made()
    with small_studies.shared(study, tmp_path).claim(1) as (trial,):
        assert trial.point == {"optimizer.learning_rate": 1e-3, "mining.miner": "semi_hard"}
    study.run.mining.miner = "batch_all"
    with small_studies.shared(study, tmp_path / "other").claim(1) as (trial,):
        assert trial.point["mining.miner"] != "batch_all"


def test_random_points_are_the_same_with_any_number_of_processes(tmp_path):
    study = small_studies.made(sampler="random", trials=4)
    alone = small_studies.shared(study, tmp_path / "alone")
    with alone.claim(4):
        pass
    for _ in range(4):
        one = small_studies.shared(study, tmp_path / "several")
        with one.claim(1) as (trial,):
            one.tell(trial.number, 0.5)
    assert points(one) == points(alone)
    assert len({point["optimizer.learning_rate"] for point in points(one).values()}) == 4


@pytest.mark.parametrize("pruner", ["median", "hyperband"])
def test_bad_trials_are_given_up(tmp_path, pruner):
    fields = {"train.steps": 90, "evaluate.every": 10}
    study = small_studies.made(pruner=pruner, startup=2, trials=30, run=fields)
    shared = small_studies.shared(study, tmp_path)
    for number in range(30):
        with shared.claim(1):
            steps = range(10, 90, 10)
            goes_on = all(shared.report(number, at, 1 - number / 50) for at in steps)
            (shared.tell(number, 1 - number / 50) if goes_on else shared.tell_pruned(number))
    pruned = [record.number for record in shared.records("PRUNED")]
    assert len(pruned) > 5
    assert 0 not in pruned
