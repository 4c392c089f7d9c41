"""Predictors side by side: each channel as if it were alone, from the inputs that held-out folds prefer."""

import numpy as np
import pytest

from undrift.data import predictors
from undrift.data.linear import Given, LinearPredictor, folds
from undrift.data.predictors import Predictors

N, SHAPE = 80, (2, 8, 12)


def problem(seed: int = 0):
    """Rain that follows its own blocks alone, and a wind that follows its own and those of the rain."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(size=(N, 2, 2, 3))
    base = np.repeat(np.repeat(coarse, 4, 2), 4, 3)
    pattern = rng.normal(size=(2, 8, 12))
    u = 0.05 * rng.normal(size=(N, *SHAPE))
    u[:, 0] += base[:, 0] + pattern[0] * coarse[:, 0, :1, :1]
    u[:, 1] += base[:, 1] + pattern[1] * coarse[:, 0, 1:, 2:]
    given = Given(base, coarse, np.zeros((N, 0)))

    def read(rows):
        return Given(base[rows], coarse[rows], given.features[rows]), u[rows]

    return read, given, u


def fitted(read, fold, base=(0, 1)) -> Predictors:
    return Predictors.fit(read, fold, base, factor=(4, 4), periodic=(False, False), designs={})


def test_each_channel_takes_the_inputs_that_it_needs():
    read, given, u = problem()
    fold = folds(N, 5)
    found = fitted(read, fold)
    assert [(p.channels, p.inputs) for p in found.parts] == [((0,), (0,)), ((1,), None)]
    error = ((found.predict(given, fold) - u) ** 2).mean((0, 2, 3))
    together = LinearPredictor.fit(read, fold, factor=(4, 4), periodic=(False, False))
    joint = ((together.predict(given, fold) - u) ** 2).mean((0, 2, 3))
    assert error[0] < joint[0] and error[1] <= joint[1] * 1.01  # and neither is far above the noise that was added
    np.testing.assert_allclose(error, 0.05**2, rtol=0.5)
    assert found.error == pytest.approx(error.mean(), rel=1e-6)


def test_a_channel_is_predicted_as_if_it_were_alone():
    read, given, _ = problem()
    fold = folds(N, 5)
    found = fitted(read, fold)

    def alone(rows):
        part, u = read(rows)
        return Given(part.base[:, :1], part.coarse[:, :1], part.features), u[:, :1]

    one = LinearPredictor.fit(alone, fold, factor=(4, 4), periodic=(False, False))
    own = Given(given.base[:, :1], given.coarse[:, :1], given.features)
    window = (slice(1, 6), slice(3, 4))
    for which in (fold, None):
        wanted = one.predict(own, which)[:, 0]
        np.testing.assert_array_equal(found.predict(given, which)[:, 0], wanted)
        np.testing.assert_array_equal(found.predict(given, which, window)[:, 0], wanted[:, 1:6, 3:4])


def test_what_does_not_fit_in_memory_has_one_predictor_for_all(monkeypatch):
    read, given, _ = problem()
    fold = folds(N, 5)
    monkeypatch.setattr(predictors, "_HELD", 0)
    found = fitted(read, fold)
    assert [(p.channels, p.inputs) for p in found.parts] == [((0, 1), None)]
    together = LinearPredictor.fit(read, fold, factor=(4, 4), periodic=(False, False))
    np.testing.assert_array_equal(found.predict(given), together.predict(given))
    told = found.described(["a", "b"])
    assert told["a"] == told["b"] and told["a"]["mean squared error"] == together.scores


def test_many_channels_have_one_predictor(monkeypatch):
    read, _, _ = problem()
    monkeypatch.setattr(predictors, "_APART", 1)
    assert [(p.channels, p.inputs) for p in fitted(read, folds(N, 5)).parts] == [((0, 1), None)]


def test_a_channel_of_which_nothing_is_given_is_predicted_from_all():
    read, _, _ = problem()
    found = fitted(read, folds(N, 5), base=(None, 1))
    assert found.parts[0].inputs is None


def test_they_come_back_from_their_arrays():
    read, given, _ = problem()
    found = fitted(read, folds(N, 5))
    again = Predictors.from_arrays(found.to_arrays(), found.to_list(), SHAPE)
    np.testing.assert_array_equal(again.predict(given), found.predict(given))
    assert again.stages == found.stages == ["base", "ridge"]
    told = again.described(["pr", "u"])
    assert told == found.described(["pr", "u"])
    assert {k: v["from"] for k, v in told.items()} == {"pr": "its own field", "u": "all that is given"}
    base = Predictors.base(SHAPE)
    np.testing.assert_array_equal(base.predict(given), given.base)


@pytest.mark.parametrize(
    ("reach", "seen"), [(0, [(0,), (1,), (2,), (3,)]), (1, [(0, 1), (0, 1, 2), (1, 2, 3), (2, 3)])]
)
def test_a_frame_of_a_sequence_is_predicted_from_the_frames_that_it_needs(reach, seen):
    """A pattern that follows the frame's own blocks, or those of the frame after it too; the rest is noise."""
    rng, pattern = np.random.default_rng(1), np.random.default_rng(2).normal(size=(8, 12))
    coarse = rng.normal(size=(N, 4, 2, 3))
    base = np.repeat(np.repeat(coarse, 4, 2), 4, 3)
    follows = coarse[:, :, :1, 1:2] + (np.roll(coarse, -1, 1)[:, :, 1:, :1] if reach else 0)
    u = base + pattern * follows + 0.05 * rng.normal(size=(N, 4, 8, 12))
    if reach:
        u[:, 3] = base[:, 3] + pattern * coarse[:, 3, :1, 1:2]
    fold = folds(N, 5)

    def read(rows):
        return Given(base[rows], coarse[rows], np.zeros((len(rows), 0))), u[rows]

    found = Predictors.fit(read, fold, (0, 1, 2, 3), factor=(4, 4), periodic=(False, False), designs={}, frames=4)
    assert [(part.channels, part.inputs) for part in found.parts] == [((t,), seen[t]) for t in range(4)]
    assert found.error == pytest.approx(0.05**2, rel=0.5)
    again = Predictors.from_arrays(found.to_arrays(), found.to_list(), (4, 8, 12))
    part = Given(base, coarse, np.zeros((N, 0)))
    np.testing.assert_array_equal(again.predict(part), found.predict(part))
