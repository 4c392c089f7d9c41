"""A training that is at its best early is done again, and the better of both is kept."""

import pytest

from undrift.distributions.again import annealed
from undrift.train.settings import Settings, Trained


def trained(settings, stop, best_step, best_loss, steps=1000, seconds=10.0):
    return Trained(
        net=None, steps=steps, seconds=seconds, startup_seconds=0.0, saving_seconds=0.0, images=0,
        images_per_second=0.0, skipped=0, stop=stop, best_step=best_step, best_loss=best_loss,
    )  # fmt: skip


def run(first, second_loss, settings):
    asked = []

    def once(settings):
        asked.append(settings)
        return len(asked), first if len(asked) == 1 else trained(settings, "steps", settings.steps, second_loss)

    return annealed(once, settings), asked


BUDGET = Settings(budget=100.0, patience=15, validate_every=0.01)


@pytest.mark.parametrize(("second_loss", "kept"), [(0.4, 2), (0.6, 1)])
def test_the_second_is_a_little_longer_than_until_the_best_and_kept_where_it_is_better(second_loss, kept):
    (net, how), asked = run(trained(BUDGET, "patience", 500, 0.5), second_loss, BUDGET)
    assert (net, how.best_loss) == (kept, min(second_loss, 0.5))
    second = asked[1]
    assert (second.steps, second.budget, second.patience) == (650, None, None)


def test_it_takes_no_longer_than_there_is_time():
    first = trained(BUDGET, "patience", 900, 0.5, seconds=91.0)  # 9 s are left: 0.9 * 9 * 1000 / 91 steps
    assert len(run(first, 0.4, BUDGET)[1]) == 1  # 89 steps are not worth while
    first = trained(BUDGET, "patience", 150, 0.5, seconds=91.0)
    assert run(first, 0.4, BUDGET)[1][1].steps == 89


@pytest.mark.parametrize(
    ("settings", "stop"), [(BUDGET, "budget"), (Settings(steps=1000, patience=3), "patience")]
)  # fmt: skip
def test_a_training_that_used_its_time_or_counts_its_steps_is_the_only_one(settings, stop):
    (net, _), asked = run(trained(settings, stop, 500, 0.5), 0.4, settings)
    assert net == 1 and len(asked) == 1
