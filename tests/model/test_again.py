"""A training that is at its best early is done again, and the better of both is kept."""

import pytest

from undrift.distributions.again import annealed
from undrift.train.settings import Settings, Trained


def trained(settings, best_step, best_loss, last, steps=1000, seconds=10.0):
    return Trained(
        net=None, steps=steps, seconds=seconds, startup_seconds=0.0, saving_seconds=0.0, images=0,
        images_per_second=0.0, skipped=0, stop="", best_step=best_step, best_loss=best_loss,
        history=[(best_step, best_loss), (steps, last)],
    )  # fmt: skip


def run(settings, first, *others):
    """The net (which training it is of), how it went, and the settings of all trainings."""
    asked = []

    def once(settings):
        asked.append(settings)
        if len(asked) == 1:
            return 1, first
        best, loss, last = others[len(asked) - 2]
        return len(asked), trained(settings, best, loss, last, steps=settings.steps, seconds=settings.steps / 100)

    return *annealed(once, settings), asked


BUDGET = Settings(budget=100.0, patience=5, worse=0.02)


@pytest.mark.parametrize(("loss", "kept"), [(0.4, 2), (0.6, 1)])
def test_the_second_is_a_little_longer_than_until_the_best_and_kept_where_it_is_better(loss, kept):
    net, how, asked = run(BUDGET, trained(BUDGET, 500, 0.5, 0.53), (650, loss, loss))
    assert (net, how.best_loss) == (kept, min(loss, 0.5))
    assert len(asked) == 2 and (asked[1].steps, asked[1].budget, asked[1].patience) == (650, None, None)


def test_a_second_that_was_at_its_best_early_too_is_followed_by_a_third():
    net, how, asked = run(BUDGET, trained(BUDGET, 500, 0.5, 0.9), (100, 0.45, 0.6), (130, 0.42, 0.42))
    assert (net, how.best_loss) == (3, 0.42) and [one.steps for one in asked] == [None, 650, 130]


def test_it_takes_no_longer_than_there_is_time():
    first = trained(BUDGET, 900, 0.5, 0.9, seconds=91.0)  # 9 s are left: 0.9 * 9 * 1000 / 91 steps
    assert len(run(BUDGET, first)[2]) == 1  # 89 steps are not worth while
    first = trained(BUDGET, 150, 0.5, 0.9, seconds=91.0)
    assert run(BUDGET, first, (89, 0.4, 0.4))[2][1].steps == 89


@pytest.mark.parametrize(("settings", "last"), [(BUDGET, 0.51), (Settings(steps=1000, worse=0.02), 0.9)])
def test_a_training_that_stays_about_as_good_or_counts_its_steps_is_the_only_one(settings, last):
    net, _, asked = run(settings, trained(settings, 500, 0.5, last))
    assert net == 1 and len(asked) == 1
