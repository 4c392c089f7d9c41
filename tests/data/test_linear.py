"""The linear predictor against its normal equations, written down anew."""

import numpy as np
import pytest

from undrift.data.linear import Given, LinearPredictor, folds
from undrift.data.stencil import Stencil, StencilSums

RNG = np.random.default_rng


def reader(base, coarse, features, target):
    def read(rows):
        return Given(base[rows], None if coarse is None else coarse[rows], features[rows]), target[rows]

    return read


def ridge_by_hand(x, y, x_new, penalty):
    """Centred ridge by its normal equations; the penalty is in units of the largest eigenvalue of x'x."""
    mean, centre = x.mean(0), y.mean(0)
    gram = (x - mean).T @ (x - mean)
    strength = penalty * np.linalg.eigvalsh(gram)[-1]
    weights = np.linalg.solve(gram + strength * np.eye(len(gram)), (x - mean).T @ (y - centre))
    return centre + (x_new - mean) @ weights


def problem(n=60, p=6, cells=(3, 4), noise=0.5, seed=0):
    rng = RNG(seed)
    x = rng.normal(size=(n, p)) * np.linspace(0.3, 2, p)
    weights = rng.normal(size=(p, 1, *cells))
    base = rng.normal(size=(n, 1, *cells))
    target = 3 + base + np.tensordot(x, weights, 1) + noise * rng.normal(size=(n, 1, *cells))
    return x, base, target


@pytest.fixture(scope="module")
def fitted():
    x, base, target = problem()
    fold = folds(60, 5)
    return (
        x,
        base,
        target,
        fold,
        LinearPredictor.fit(reader(base, None, x, target), fold, factor=None, periodic=[False, False]),
    )


PENALTIES = np.geomspace(1e-7, 1, 29)


def hand_errors(x, y, fold):
    """Squared error by penalty of a cross-validation with a plain loop."""
    out = []
    for penalty in PENALTIES:
        error = 0.0
        for k in range(fold.max() + 1):
            guess = ridge_by_hand(x[fold != k], y[fold != k], x[fold == k], penalty)
            error += ((y[fold == k] - guess) ** 2).sum()
        out.append(error)
    return np.array(out)


def test_folds_are_contiguous_and_even():
    fold = folds(23, 5)
    assert (np.diff(fold) >= 0).all()
    assert np.bincount(fold).tolist() == [5, 5, 5, 4, 4]
    assert folds(3, 5).tolist() == [0, 1, 2]


def test_all_and_out_of_fold_predictions_equal_a_hand_loop(fitted):
    x, base, target, fold, predictor = fitted
    assert predictor.stages == ["base", "ridge"]
    y = (target - base).reshape(len(x), -1)
    penalty = PENALTIES[np.argmin(hand_errors(x, y, fold))]
    expected = base + ridge_by_hand(x, y, x, penalty).reshape(target.shape)
    got = predictor.predict(Given(base, None, x))
    np.testing.assert_allclose(got, expected, atol=2e-6)
    for k in range(5):
        rows = fold == k
        left = base[rows] + ridge_by_hand(x[~rows], y[~rows], x[rows], penalty).reshape(-1, *target.shape[1:])
        out = predictor.predict(Given(base[rows], None, x[rows]), fold[rows])
        np.testing.assert_allclose(out, left, atol=2e-6)
    mixed = RNG(3).permutation(len(x))
    whole = predictor.predict(Given(base, None, x), fold)
    np.testing.assert_array_equal(predictor.predict(Given(base[mixed], None, x[mixed]), fold[mixed]), whole[mixed])


def test_scores_are_the_cross_validated_mean_squares(fitted):
    x, base, target, fold, predictor = fitted
    y = (target - base).reshape(len(x), -1)
    assert predictor.scores["base"] == pytest.approx((y**2).mean(), rel=1e-9)
    assert predictor.scores["ridge"] == pytest.approx(hand_errors(x, y, fold).min() / y.size, rel=1e-5)


def test_a_window_is_the_slice_of_the_whole(fitted):
    x, base, _, fold, predictor = fitted
    window = (slice(1, 3), slice(0, 2))
    whole = predictor.predict(Given(base, None, x), fold)
    part = predictor.predict(Given(base, None, x), fold, window)
    np.testing.assert_allclose(part, whole[:, :, 1:3, 0:2], atol=1e-12)


@pytest.mark.parametrize(("noise", "low", "high"), [(0.02, 0, 1e-5), (6.0, 3e-2, 1.1)])
def test_the_penalty_follows_the_noise(noise, low, high):
    """Clean data are hardly shrunk, noise is: the chosen penalty is that of the hand-made cross-validation."""
    x, base, target = problem(n=40, p=12, noise=noise, seed=4)
    fold = folds(40, 5)
    predictor = LinearPredictor.fit(reader(base, None, x, target), fold, factor=None, periodic=[False, False])
    y = (target - base).reshape(40, -1)
    penalty = PENALTIES[np.argmin(hand_errors(x, y, fold))]
    assert low <= penalty <= high
    expected = base + ridge_by_hand(x, y, x, penalty).reshape(target.shape)
    np.testing.assert_allclose(predictor.predict(Given(base, None, x)), expected, atol=1e-4)


def test_the_ridge_is_left_away_where_it_does_not_help():
    rng = RNG(0)
    base = rng.normal(size=(30, 1, 4))
    target = base + 0.1 * rng.normal(size=base.shape)
    target -= (target - base).mean(0)
    predictor = LinearPredictor.fit(
        reader(base, None, rng.normal(size=(30, 9)), target), folds(30, 5), factor=None, periodic=[False]
    )
    assert predictor.stages == ["base"]
    np.testing.assert_array_equal(predictor.predict(Given(base, None, rng.normal(size=(30, 9)))), base)


def test_nothing_given_leaves_the_mean():
    rng = RNG(0)
    target = 5 + rng.normal(size=(30, 1, 4))
    empty, base = np.zeros((30, 0)), np.zeros((30, 1, 4))
    fold = folds(30, 5)
    predictor = LinearPredictor.fit(reader(base, None, empty, target), fold, factor=None, periodic=[False])
    np.testing.assert_allclose(predictor.predict(Given(base[:1], None, empty[:1]))[0], target.mean(0), rtol=1e-6)
    left = predictor.predict(Given(base[:1], None, empty[:1]), fold[:1])[0]
    np.testing.assert_allclose(left, target[fold != 0].mean(0), rtol=1e-6)


def test_a_constant_covariate_is_harmless():
    target = RNG(0).normal(size=(30, 1, 4)) + 2
    base, same = np.zeros((30, 1, 4)), np.zeros((30, 1))
    predictor = LinearPredictor.fit(reader(base, None, same, target), folds(30, 5), factor=None, periodic=[False])
    np.testing.assert_allclose(predictor.predict(Given(base[:1], None, same[:1]))[0], target.mean(0), rtol=1e-6)


def test_missing_targets_count_as_the_mean_and_do_not_pull_to_zero():
    """Half of one cell is missing at random: its mean comes from what is known of it."""
    rng = RNG(1)
    n = 4000
    x = rng.normal(size=(n, 1))
    target = np.stack([700 + 2 * x, 700 + 2 * x], -1)  # two cells, the same law
    target[rng.random(n) < 0.5, 0, 1] = np.nan
    base = np.zeros((n, 1, 2))
    predictor = LinearPredictor.fit(reader(base, None, x, target), folds(n, 5), factor=None, periodic=[False])
    at = predictor.predict(Given(np.zeros((2, 1, 2)), None, np.array([[0.0], [1.0]])))[:, 0]
    np.testing.assert_allclose(at[:, 0], [700, 702], atol=1e-3)
    assert at[0, 1] == pytest.approx(700, abs=0.15)  # a mean over zeros would give 350
    assert at[1, 1] - at[0, 1] == pytest.approx(1, abs=0.1)  # half of the slope, for half of it is as good as the mean
    always = np.where(np.arange(2) == 1, np.nan, target)
    masked = LinearPredictor.fit(reader(base, None, x, always), folds(n, 5), factor=None, periodic=[False])
    np.testing.assert_allclose(masked.predict(Given(base, None, x))[..., 0], 700 + 2 * x, atol=1e-3)
    assert (masked.predict(Given(base + 5, None, x))[..., 1] == 5).all(), "what was never known is the base"


# the stencil


@pytest.mark.parametrize(("shape", "factor"), [((6,), (3,)), ((4, 6), (2, 3)), ((2, 4, 6), (2, 1, 3))])
def test_blocks_and_back(shape, factor):
    fine = RNG(0).normal(size=(3, 2, *shape))
    blocks = Stencil.to_blocks(fine, factor)
    assert blocks.shape == (3, *(n // f for n, f in zip(shape, factor)), 2 * int(np.prod(factor)))
    np.testing.assert_array_equal(Stencil.from_blocks(blocks, factor, 2), fine)
    corner = tuple(slice(0, f) for f in factor)
    np.testing.assert_array_equal(blocks[1, *(0,) * len(shape)].reshape(2, *factor), fine[1, :, *corner])


def test_neighbourhoods_on_both_kinds_of_edge():
    coarse = np.arange(12.0).reshape(1, 1, 3, 4)
    view = Stencil.neighbourhoods(coarse, np.array([[5.0]]), 1, [False, True])
    assert view.shape == (1, 3, 4, 9 + 1 + 1)
    np.testing.assert_array_equal(view[0, 0, 0, :9].reshape(3, 3), [[3, 0, 1], [3, 0, 1], [7, 4, 5]])
    np.testing.assert_array_equal(view[0, 1, 2, 9:], [5.0, 1.0])


def local_map(n=40, factor=3, seed=0):
    """Fine cells as fixed combinations of a coarse cell and its right neighbour, plus an offset; periodic."""
    coarse = RNG(seed).normal(size=(n, 1, 4, 5))
    own, beside = RNG(99).normal(size=(2, factor, factor))
    fine = np.kron(coarse, own[None, None]) + np.kron(np.roll(coarse, -1, 3), beside[None, None]) + 0.7
    return coarse, fine


def test_the_stencil_recovers_a_local_linear_map():
    coarse, fine = local_map()
    base, features = np.zeros_like(fine), np.zeros((len(fine), 0))
    predictor = LinearPredictor.fit(
        reader(base, coarse, features, fine), folds(40, 5), factor=(3, 3), periodic=[True, True]
    )
    assert predictor.stages[:2] == ["base", "stencil"]
    new_coarse, new_fine = local_map(n=5, seed=8)
    guess = predictor.predict(Given(base[:5], new_coarse, features[:5]))
    assert np.abs(guess - new_fine).max() < 1e-4 * new_fine.std()


def test_masked_blocks_do_not_weaken_the_stencil():
    coarse, fine = local_map(n=30)
    land = np.zeros(fine.shape[2:], dtype=bool)
    land[:6] = True
    holes = np.where(land, np.nan, fine)
    base, features = np.zeros_like(fine), np.zeros((len(fine), 0))
    predictor = LinearPredictor.fit(
        reader(base, coarse, features, holes), folds(30, 5), factor=(3, 3), periodic=[True, True]
    )
    assert "stencil" in predictor.stages
    guess = predictor.predict(Given(base, coarse, features))
    assert np.abs((guess - fine)[:, :, 6:]).max() < 1e-3 * fine.std()


def test_arrays_round_trip():
    coarse, fine = local_map(n=30)
    fine = fine + RNG(5).normal(size=fine.shape)
    base, features = np.zeros_like(fine), RNG(1).normal(size=(30, 2))
    fold = folds(30, 5)
    predictor = LinearPredictor.fit(reader(base, coarse, features, fine), fold, factor=(3, 3), periodic=[True, False])
    again = LinearPredictor.from_arrays(predictor.to_arrays(), predictor.scores, predictor.shape)
    assert again.stages == predictor.stages and len(predictor.stages) > 1
    given = Given(base, coarse, features)
    for which in (None, fold):
        np.testing.assert_array_equal(again.predict(given, which), predictor.predict(given, which))


def test_out_of_fold_residuals_are_honest_and_residuals_of_the_fit_are_not():
    """p = 15 of n = 60: in-sample residuals of least squares have 1 - p / n of the noise's variance."""
    rng = RNG(2)
    n, p, cells = 60, 15, 400
    weights = rng.normal(size=(p, cells))
    draw = lambda n: (lambda x: (x, (x @ weights + rng.normal(size=(n, cells)))[:, None]))(rng.normal(size=(n, p)))  # noqa: E731
    x, y = draw(n)
    base, fold = np.zeros_like(y), folds(n, 10)
    predictor = LinearPredictor.fit(reader(base, None, x, y), fold, factor=None, periodic=[False])
    inside = (y - predictor.predict(Given(base, None, x))).var()
    honest = (y - predictor.predict(Given(base, None, x), fold)).var()
    new_x, new_y = draw(400)
    test = (new_y - predictor.predict(Given(np.zeros_like(new_y), None, new_x))).var()
    assert inside < 0.85
    assert abs(test - n / (n - p - 1)) < 0.15  # the expected error of least squares on new data, with centring
    # 1/10 less data makes the folds' errors a little larger; 5 standard errors over 60 rows
    assert abs(honest / test - 1) < 0.08 + 5 * np.sqrt(2 / (n * cells))


def test_more_numbers_than_samples_are_the_same_ridge():
    """Each fold's ridge of 50 numbers from 30 samples, which is fitted in rotated coordinates."""
    rng = RNG(7)
    x, y = rng.normal(size=(30, 50)) + 3, rng.normal(size=(30, 12))
    y += x[:, :12]
    fold = folds(30, 5)
    predictor = LinearPredictor.fit(
        reader(np.zeros((30, 1, 12)), None, x, y[:, None]), fold, factor=None, periodic=[False]
    )
    penalty = PENALTIES[np.argmin(hand_errors(x, y, fold))]
    new = rng.normal(size=(4, 50)) + 3
    for k in range(6):
        keep = fold != k
        got = predictor.predict(Given(np.zeros((4, 1, 12)), None, new), np.full(4, k))[:, 0]
        np.testing.assert_allclose(got, ridge_by_hand(x[keep], y[keep], new, penalty), atol=2e-6)


def by_hand_with_gaps(x, left, penalty):
    """Ridge of every cell, whose missing values count as its mean: (mean of x, mean, weights)."""
    centre = np.nanmean(left, 0)
    mean = x.mean(0)
    gram = (x - mean).T @ (x - mean)
    right = (x - mean).T @ np.where(np.isfinite(left), left - centre, 0)
    return mean, centre, np.linalg.solve(gram + penalty * np.linalg.eigvalsh(gram)[-1] * np.eye(len(gram)), right)


def test_a_ridge_behind_a_stencil_with_gaps_equals_its_normal_equations():
    """Every trial's cross-validated error, and predictions of samples with gaps in a few cells, in a plain loop."""
    rng = RNG(11)
    coarse, fine = local_map(n=45)
    far = np.kron(coarse[:, :, ::-1, ::-1], np.ones((3, 3)))
    fine = fine + 0.5 * far + 0.05 * rng.normal(size=fine.shape)
    fine[rng.random(fine.shape) < 0.01] = np.nan
    fine[:, :, 0, 0] = np.nan
    base, features = 0.1 * rng.normal(size=fine.shape), rng.normal(size=(45, 1))
    fold = folds(45, 5)
    predictor = LinearPredictor.fit(reader(base, coarse, features, fine), fold, factor=(3, 3), periodic=[True, True])
    assert predictor.stages == ["base", "stencil", "ridge"]
    sums = StencilSums(5, (3, 3), [True, True])
    for k in range(5):
        sums.add(k, coarse[fold == k], features[fold == k], (fine - base)[fold == k])
    stencils = sums.solve()
    x = Given(base, coarse, features).flat()
    for weight in (0.5, 1.0):
        errors = np.zeros(len(PENALTIES))
        for i, penalty in enumerate(PENALTIES):
            for k in range(5):
                keep = fold != k
                left = (fine - base - weight * stencils[k].predict(coarse, features)).reshape(45, -1)
                with np.testing.suppress_warnings() as quiet:
                    quiet.filter(RuntimeWarning)
                    mean, centre, weights = by_hand_with_gaps(x[keep], left[keep], penalty)
                errors[i] += np.nansum((left[~keep] - centre - (x[~keep] - mean) @ weights) ** 2)
        expected = errors.min() / np.isfinite(fine).sum()
        assert predictor.scores[f"stencil x {weight:g} + ridge"] == pytest.approx(expected, rel=1e-9)
