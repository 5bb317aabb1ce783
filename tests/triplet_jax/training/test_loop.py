from triplet_jax.training import loop


def test_a_schedule_says_what_happens_after_which_step():
    schedule = loop.Schedule(steps=25, log_every=10, telemetry_every=4, evaluate_every=12)
    steps = range(1, 26)
    assert [s for s in steps if schedule.logs(s)] == [10, 20, 25]
    assert [s for s in steps if schedule.evaluates(s)] == [12, 24, 25]
    assert [s for s in steps if schedule.measures(s)] == [4, 8, 12, 16, 20, 24]


def test_telemetry_that_is_off_is_never_measured():
    schedule = loop.Schedule(steps=5, log_every=1, telemetry_every=0, evaluate_every=1)
    assert not any(schedule.measures(step) for step in range(1, 6))
