"""The learning rate against hand values, what is due, and which checkpoints go."""

import pytest

from stochastok_cli.config import DatasetConfig, OptimizerConfig, TrainingConfig, load_config
from stochastok_cli.errors import UserError
from stochastok_cli.training.plan import _checkpoints_at_once
from stochastok_cli.training.schedules import (
    checkpoint_is_due,
    checkpoints_to_delete,
    count_checkpoints,
    evaluation_is_due,
    expand_prop,
    learning_rate,
    log_is_due,
    next_checkpoint,
    permanent_checkpoint_is_due,
)


@pytest.mark.parametrize(
    ("config", "iteration", "expected"),
    [
        ("pretraining", 0, 0.0),
        ("pretraining", 2500, 3e-4),
        ("pretraining", 5000, 6e-4),
        ("pretraining", 20000, 3.3e-4),  # halfway down
        ("pretraining", 30000, 9.617e-5),  # the published runs end here, above min_lr
        ("pretraining", 35000, 6e-5),
        ("pretraining", 90000, 6e-5),
        ("speedrun", 50, 4e-3),
        ("speedrun", 420, 8e-3),
        ("speedrun", 1400, 1.6e-4),
        ("instruction_tuning", 250, 5e-5),
        ("instruction_tuning", 3000, 1.603e-5),
    ],
)
def test_learning_rates_of_the_shipped_configurations(config, iteration, expected):
    trainer = load_config(config).trainer
    assert learning_rate(iteration, trainer.optimizer, trainer.training) == pytest.approx(expected, rel=1e-3, abs=1e-12)


def test_without_decay_the_rate_stays_and_without_warm_up_it_starts_at_the_top():
    training = TrainingConfig(warmup_iters=10, lr_decay_iters=100)
    held = OptimizerConfig(lr=1e-3, decay_lr=False)
    assert [learning_rate(i, held, training) for i in (5, 10, 1000)] == [5e-4, 1e-3, 1e-3]
    assert learning_rate(0, OptimizerConfig(lr=1e-3), TrainingConfig(warmup_iters=0)) == 1e-3


def test_warm_up_stable_decay():
    training = TrainingConfig(warmup_iters=10, max_iters=100)
    wsd = OptimizerConfig(lr=1.0, min_lr=0.2, schedule="wsd", wsd_decay_iters=20)
    rates = [learning_rate(i, wsd, training) for i in (5, 10, 79, 80, 90, 99, 100, 500)]
    assert rates == pytest.approx([0.5, 1.0, 1.0, 1.0, 0.6, 0.24, 0.2, 0.2])


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [("constant", [0.4] * 5), ("linear", [0.4, 0.3, 0.2, 0.0, 0.0]), ("cosine", [0.4, 0.341421, 0.2, 0.0, 0.0])],
)
def test_p_of_the_expansion(schedule, expected):
    dataset = DatasetConfig(expand_prop=0.4, expand_schedule=schedule)
    training = TrainingConfig(max_iters=100)
    assert [expand_prop(i, dataset, training) for i in (0, 25, 50, 100, 500)] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("iterations", [0, 91])
def test_a_decay_fits_between_warm_up_and_end(iterations):
    options = ["schedule=wsd", f"wsd_decay_iters={iterations}"]
    overrides = ["trainer.training.max_iters=100", "trainer.training.warmup_iters=10"]
    with pytest.raises(UserError, match=r"wsd_decay_iters = \d+ must be in \[1, 90\]"):
        load_config("pretraining", [*overrides, *(f"trainer.optimizer.{option}" for option in options)])


@pytest.mark.parametrize(("iterations", "warmup"), [(1, 100), (2, 5000)])
def test_a_warm_up_leaves_room_for_the_decay(iterations, warmup):
    overrides = ["trainer.optimizer.schedule=wsd", f"trainer.optimizer.wsd_decay_iters={iterations}"]
    overrides += ["trainer.training.max_iters=100", f"trainer.training.warmup_iters={warmup}"]
    with pytest.raises(UserError, match=rf"warmup_iters = {warmup} must be below max_iters \(100\)"):
        load_config("pretraining", overrides)


def test_what_is_due_when():
    training = TrainingConfig(max_iters=25, log_interval=10, eval_interval=12, checkpoint_interval=20)
    assert [n for n in range(26) if log_is_due(n, training)] == [10, 20, 25]
    assert [n for n in range(26) if evaluation_is_due(n, training)] == [0, 12, 24, 25]
    assert [n for n in range(26) if checkpoint_is_due(n, training)] == [20, 25]


@pytest.mark.parametrize("interval", [1, 4, 6, 7, 25, 30])
@pytest.mark.parametrize("permanent", [None, 1, 4, 5, 6, 12, 25, 30])
def test_permanent_checkpoints_are_saved_and_counted_beside_the_others(interval, permanent):
    training = TrainingConfig(
        max_iters=25, checkpoint_interval=interval, permanent_checkpoint_interval=permanent, keep_checkpoints=1
    )
    for first in (1, 5, 24, 25, 26):
        due = [n for n in range(first, 26) if checkpoint_is_due(n, training)]
        stay = [n for n in due if permanent_checkpoint_is_due(n, training)]
        multiples = {*range(0, 26, interval), *range(0, 26, permanent or 26), 25}
        assert due == sorted(n for n in multiples if n >= first)
        assert next_checkpoint(first - 1, training) == (due or [25])[0]
        assert count_checkpoints(first, 25, training) == (len(due), len(stay))
        assert _checkpoints_at_once(first - 1, training) == len(stay) + min(len(due) - len(stay), 3)


def test_the_latest_and_the_best_checkpoint_stay():
    losses = {10: 3.0, 20: 1.0, 30: None, 40: 2.0, 50: 2.5}
    assert checkpoints_to_delete(losses, keep=2) == [10, 30]  # 20 is the best
    assert checkpoints_to_delete(losses, keep=1) == [10, 30, 40]
    assert checkpoints_to_delete(losses, keep=5) == checkpoints_to_delete(losses, keep=None) == []
    assert checkpoints_to_delete(losses, keep=1, permanent=[30, 50]) == [10, 40]
    assert checkpoints_to_delete({1: None, 2: None}, keep=1) == [1]
    assert checkpoints_to_delete({1: 2.0, 2: 2.0, 3: 3.0}, keep=1) == [2]  # of equals the earlier


def test_a_loss_that_is_no_number_is_never_the_best():
    nan, infinite = float("nan"), float("inf")
    assert checkpoints_to_delete({1: 2.0, 2: nan, 3: 1.5, 4: 3.0}, keep=1) == [1, 2]
    assert checkpoints_to_delete({1: nan, 2: 2.0, 3: 3.0}, keep=1) == [1]
    assert checkpoints_to_delete({1: -infinite, 2: 2.0, 3: 3.0}, keep=1) == [1]
    assert checkpoints_to_delete({1: nan, 2: infinite, 3: nan}, keep=1) == [1, 2]
