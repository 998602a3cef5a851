import pytest
from helpers import train_config

from ijepa.training.curves import cooldown, interpolate, warmup
from ijepa.training.schedule import EMASchedule, training_schedule
from ijepa.util.errors import UserError


def test_shapes():
    assert [interpolate("linear", 2, 4, step, 4) for step in range(6)] == [2, 2.5, 3, 3.5, 4, 4]
    assert interpolate("cosine", 2, 4, 2, 4) == pytest.approx(3)
    assert interpolate("cosine", 2, 4, 1, 4) == pytest.approx(3 - 0.5**0.5)
    assert interpolate("constant", 2, 4, 3, 4) == 2


def test_warmup_reaches_the_peak_and_the_end():
    values = [warmup("cosine", 0.2, 1.0, 0.1, step, 4, 10) for step in range(11)]
    assert values[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert values[-1] == pytest.approx(0.1)
    assert values[4:] == sorted(values[4:], reverse=True)


def test_before_the_cooldown_nothing_depends_on_the_length():
    short, long = ([cooldown(0.0, 1.0, 0.0, step, 5, 10, total) for step in range(total + 1)] for total in (30, 80))
    assert short[:21] == long[:21]
    assert short[20:] == pytest.approx([1 - step / 10 for step in range(11)])


def make(*overrides, images=1000):
    config = train_config("data=digits", "data.batch_size=100", *overrides)
    return training_schedule(config.schedule, config.optimizer, config.data.batch_size, images, EMASchedule)


def test_epochs_and_steps():
    by_epochs = make("schedule.epochs=5", "schedule.warmup_epochs=1.5")
    assert (by_epochs.max_steps, by_epochs.warmup_steps) == (50, 15)
    by_steps = make("schedule.epochs=5", "schedule.max_steps=40", "schedule.warmup_steps=7")
    assert (by_steps.max_steps, by_steps.warmup_steps) == (40, 7)
    assert make("schedule.epochs=0.001", "schedule.warmup_epochs=0").max_steps == 1


def test_learning_rate_per_256():
    plain, ruled = make("optimizer.lr=1e-3"), make("optimizer.lr=1e-3", "optimizer.lr_per_256=true")
    assert plain.peak_lr == 1e-3
    assert ruled.peak_lr == pytest.approx(1e-3 * 100 / 256)
    assert ruled.lr(0) / plain.lr(0) == pytest.approx(100 / 256)


@pytest.mark.parametrize("name", ["cosine", "linear", "constant", "cooldown"])
def test_every_schedule(name):
    run = make(f"schedule={name}", "schedule.epochs=20", "schedule.warmup_epochs=2")
    rates = [run.lr(step) for step in range(run.max_steps)]
    assert max(rates) == pytest.approx(run.peak_lr)
    assert rates[19] == pytest.approx(run.peak_lr)
    assert rates[-1] == pytest.approx(run.peak_lr * (1 if name == "constant" else 0.001))
    assert 0 <= run.weight_decay(100) <= 0.4
    assert 0.99 < run.momentum(100) < 1


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (["schedule.epochs=2"], "schedule.warmup_epochs=4.0"),
        (["schedule.max_steps=10", "schedule.warmup_steps=11"], "schedule.warmup_steps=11"),
        (["schedule=cooldown", "schedule.epochs=6"], "schedule.cooldown_epochs=4.0"),
        (["schedule.epochs=null"], "schedule.epochs"),
    ],
)
def test_lengths_that_do_not_fit(overrides, key):
    with pytest.raises(UserError) as caught:
        make(*overrides)
    assert str(caught.value).startswith(key)
