"""What the programs share: here the flags of XLA, which every program's test also starts with."""

import os

from experiments import command


def test_flags_of_xla_are_set_and_those_of_the_user_come_last(monkeypatch):
    # Also a reminder: the flags are for versions of jax that are known to take them.
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_scheduler_type=CPU_SCHEDULER_TYPE_DEFAULT")
    command.use_xla_flags()
    *ours, users = os.environ["XLA_FLAGS"].split()
    assert any(flag.endswith("=CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED") for flag in ours)
    assert users.endswith("=CPU_SCHEDULER_TYPE_DEFAULT")
