"""The law of windows against dense conditioning of one Gaussian, in numpy alone."""

import numpy as np
import pytest

from undrift.data.linear import folds
from undrift.data.waves import rings, turned
from undrift.data.window_fit import Left, fit_law, fit_window_laws
from undrift.data.window_law import WindowLaw

RNG = np.random.default_rng(0)
VARIABLES, FRAMES, CELLS, MAPS = 2, 4, 9, 3
MODES = np.linalg.qr(RNG.normal(size=(VARIABLES * CELLS, MAPS)))[0].T
ROOT = RNG.normal(size=(FRAMES * MAPS, FRAMES * MAPS))
AMPLITUDES = ROOT @ ROOT.T / 6 + 0.2 * np.eye(FRAMES * MAPS)
LAG = np.abs(np.subtract.outer(np.arange(FRAMES), np.arange(FRAMES)))


def dense(own, correlation, within):
    """The covariance of a window in the order (frame, variable, cell); ``within`` multiplies what the maps leave."""
    maps = np.kron(np.eye(FRAMES), MODES)
    return maps.T @ AMPLITUDES @ maps + own * np.kron(correlation, within)


def conditioned(covariance, r, known):
    """Mean and standard deviation of all numbers given the known ones."""
    x, k = np.moveaxis(r, 1, 0).ravel(), np.moveaxis(known, 1, 0).ravel()
    gain = np.linalg.solve(covariance[np.ix_(k, k)] + 1e-12 * np.eye(k.sum()), covariance[k]).T
    mean, variance = gain @ x[k], np.diag(covariance) - (gain * covariance[:, k]).sum(1)
    return (np.moveaxis(v.reshape(FRAMES, VARIABLES, CELLS), 0, 1) for v in (mean, np.sqrt(np.maximum(variance, 0))))


@pytest.mark.parametrize("frames", [[0], [0, 3], [1, 2, 3], []])
def test_given_whole_frames(frames):
    own, correlation = 0.3, 0.8**LAG
    law = WindowLaw(MODES, AMPLITUDES, np.full((VARIABLES, CELLS), own), np.stack([correlation] * VARIABLES))
    known = np.zeros((VARIABLES, FRAMES, CELLS), dtype=bool)
    known[:, frames] = True
    r = RNG.normal(size=known.shape)
    beside = np.eye(VARIABLES * CELLS) - MODES.T @ MODES  # what the maps leave has no part along them
    mean, std = conditioned(dense(own, correlation, beside), r, known)
    got_mean, got_std = law.given(r, known)
    np.testing.assert_allclose(got_mean[~known], mean[~known], atol=1e-8)
    assert (got_mean[known] == r[known]).all() and (got_std[known] == 1).all()
    # the law has the variance of what is left alike in all cells: exact in the mean over them
    left = [(v**2).mean((0, 2)) - own * s for v, s in ((got_std, 1), (std, 1 - MAPS / (VARIABLES * CELLS)))]
    if not frames:
        np.testing.assert_allclose(*left, rtol=1e-9)


def test_given_parts_of_frames_that_are_independent_in_time():
    """Where the model of factor analysis holds, it is exact."""
    own, correlation = 0.3, np.eye(FRAMES)
    law = WindowLaw(MODES, AMPLITUDES, np.full((VARIABLES, CELLS), own), np.stack([correlation] * VARIABLES))
    known = RNG.random((VARIABLES, FRAMES, CELLS)) < 0.4
    r = RNG.normal(size=known.shape)
    mean, std = conditioned(dense(own, correlation, np.eye(VARIABLES * CELLS)), r, known)
    got_mean, got_std = law.given(r, known)
    np.testing.assert_allclose(got_mean[~known], mean[~known], atol=1e-8)
    np.testing.assert_allclose(got_std[~known], std[~known], rtol=1e-8)


def test_what_is_left_goes_on_in_time_cell_by_cell():
    """Without maps each cell is a series of its own: known at other frames than its neighbour."""
    correlation = 0.7**LAG
    law = WindowLaw(np.zeros((0, CELLS)), np.zeros((0, 0)), RNG.random((1, CELLS)) + 0.5, correlation[None])
    known = np.zeros((1, FRAMES, CELLS), dtype=bool)
    known[0, 0, :4] = known[0, 2, 2:6] = True
    r = RNG.normal(size=known.shape)
    mean, std = law.given(r, known)
    # a Markov series: between frames 0 and 2 by both, after frame 2 by it alone, decaying as 0.7^k
    cell = 3
    both = np.linalg.solve(correlation[np.ix_([0, 2], [0, 2])], correlation[[0, 2], 1]) @ r[0, [0, 2], cell]
    assert mean[0, 1, cell] == pytest.approx(both, rel=1e-10)
    assert mean[0, 3, cell] == pytest.approx(0.7 * r[0, 2, cell], rel=1e-10)
    assert std[0, 3, cell] == pytest.approx(np.sqrt(law.own[0, cell] * (1 - 0.7**2)), rel=1e-10)
    assert mean[0, 3, 1] == pytest.approx(0.7**3 * r[0, 0, 1], rel=1e-10)
    assert (mean[0, :, 8] == 0).all() and std[0, :, 8] == pytest.approx(np.sqrt(law.own[0, 8]))


def test_many_known_cells_that_are_alike_count_for_few():
    alike, own = 0.5, 1.0
    modes = np.full((1, CELLS), CELLS**-0.5)
    law = WindowLaw(modes, np.eye(1) * 4.0, np.full((1, CELLS), own), np.ones((1, 1, 1)), alike)
    known = np.arange(CELLS)[None, None] < 4
    r = np.ones((1, 1, CELLS))
    noise = own * (1 + alike * 3)
    amplitude = 4 * CELLS**-0.5 / noise / (1 / 4.0 + 4 / CELLS / noise)
    assert law.given(r, known)[0][0, 0, -1] == pytest.approx(amplitude * CELLS**-0.5, rel=1e-10)


def of_waves(cells, maps):
    """A law of waves that are forgotten each in its own time, whose maps are the longest ones, and its covariance."""
    ring, lag = rings((cells,), (True,)), np.abs(np.subtract.outer(np.arange(FRAMES), np.arange(FRAMES)))
    size, basis = np.bincount(ring), turned(np.eye(cells), (True,)).T
    share = size / (1.0 + np.arange(size.size)) ** 3
    share[np.unique(ring[:maps])] = 0
    share = np.maximum(share / share.sum(), 1e-12)
    memory = np.stack([(0.95 * np.exp(-0.06 * k)) ** lag for k in range(size.size)])
    root = RNG.normal(size=(FRAMES * maps, FRAMES * maps))
    amplitudes, own = root @ root.T / max(FRAMES * maps, 1) + 0.3 * np.eye(FRAMES * maps), 1.7
    correlation = np.einsum("r,rst->st", share, memory)
    law = WindowLaw(
        basis[:maps], amplitudes, np.full((1, cells), own), correlation[None], 0.1, (cells,), (True,), share[None],
        memory[None],
    )  # fmt: skip
    power = own * cells * (share / size)[ring, None, None] * memory[ring]
    covariance = np.einsum("wst,wi,wj->sitj", power, basis, basis).reshape(FRAMES * cells, -1)
    long = np.kron(np.eye(FRAMES), basis[:maps])
    return law, covariance + long.T @ amplitudes @ long


@pytest.mark.parametrize("maps", [0, 3])
def test_whole_frames_that_lack_a_few_cells(maps):
    """Mean and spread are those of dense conditioning on what is known; of one cell alone nearly all was lost."""
    cells = 48
    law, covariance = of_waves(cells, maps)
    r = np.linalg.cholesky(covariance + 1e-9 * np.eye(len(covariance))) @ RNG.normal(size=len(covariance))
    r, known = r.reshape(1, FRAMES, cells), np.zeros((1, FRAMES, cells), dtype=bool)
    known[:, :2] = True
    known[0, 0, 7] = known[0, 1, [7, 8, 30]] = False
    flat, k = r.ravel(), known.ravel()
    gain = np.linalg.solve(covariance[np.ix_(k, k)] + 1e-10 * np.eye(k.sum()), covariance[k]).T
    posterior = covariance - gain @ covariance[k]
    mean, std = law.given(np.where(known, r, 0.0), known)
    np.testing.assert_allclose(mean[~known], (gain @ flat[k])[~k], atol=2e-3)
    np.testing.assert_allclose(std[~known] ** 2, np.maximum(np.diag(posterior)[~k], 0.02**2), rtol=0.02)
    before = law._by_cells(np.where(known, r, 0.0), known)[0]
    assert np.sqrt(((before - mean)[:, 2:] ** 2).mean()) > 0.1 * r.std()
    many = known.copy()
    many[0, 1, :20] = False  # a part of the window that is asked
    np.testing.assert_array_equal(law.given(r, many)[0][~many], law._by_cells(r, many)[0][~many])


def series(count, cells=12):
    """Windows of four frames of two travelling waves in red noise, and of what is white in time."""
    at = np.arange(count + FRAMES)
    patterns = np.stack([np.cos(2 * np.pi * np.arange(cells) / cells), np.sin(2 * np.pi * np.arange(cells) / cells)])
    angle, wave = 0.5, np.zeros((len(at), 2))
    turn = 0.95 * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    rng = np.random.default_rng(1)
    for t in range(1, len(at)):
        wave[t] = turn @ wave[t - 1] + rng.normal(size=2) * np.sqrt(1 - 0.95**2)
    x = wave @ patterns + 0.3 * rng.normal(size=(len(at), cells))
    return np.stack([x[i : i + FRAMES] for i in range(count)])[:, None], turn, patterns


def test_the_law_that_is_fitted_predicts_a_travelling_wave():
    """Its maps have to know of each other; the error of one step nears that of the rule that made the record."""
    r, _, patterns = series(1000)
    laws, errors = fit_window_laws(r, folds(len(r), 5), maps=True)
    best = min(errors, key=lambda choice: errors[choice])
    assert best[0] > 0 and best[1] > 0
    fresh = series(1800)[0][1000:]
    known = np.zeros(fresh.shape[1:], dtype=bool)
    known[:, :2] = True
    found = np.stack([laws.laws[2].given(x, known)[0] for x in fresh])
    error = ((found - fresh)[:, :, 2] ** 2).mean()
    # the best that the last frame allows: both amplitudes are seen with an error of 0.3^2 / (12 / 2)
    seen = 0.09 / 6 / (1 + 0.09 / 6)
    least = 0.09 + (1 - 0.95**2 * (1 - seen)) * 2 * (patterns**2).mean()
    assert error < 1.1 * least
    assert error > 0.9 * least


def test_what_is_left_is_measured_beside_maps_that_did_not_see_it():
    """Twelve maps of noise explain their own samples, and no others: variance 1 stays."""
    rng = np.random.default_rng(0)
    r = rng.normal(size=(60, 1, 2, 40))
    laws, _ = fit_window_laws(r, folds(60, 5), maps=True)
    total = laws.laws[-1].own.mean() + np.trace(laws.laws[-1].covariance) / 2 / 40
    modes = np.linalg.svd(r.reshape(-1, 40), full_matrices=False)[2][:20]
    assert Left.of(r, modes).own.mean() < 0.42
    assert 0.9 < total < 1.1  # what the maps explain of windows that they did not see, and what they leave of them


def test_waves_are_forgotten_each_in_its_own_time():
    """A long wave that stays and a short one that goes: each goes on with its own correlation, and so does the std."""
    frames, cells, count = 3, 16, 4000
    rng, at = np.random.default_rng(0), np.arange(cells)
    waves = np.stack([np.cos(2 * np.pi * at / cells), np.sin(2 * np.pi * at / cells), (-1.0) ** at])
    stays = np.array([0.9, 0.9, 0.2])
    a = rng.normal(size=(count + frames, 3))
    for t in range(1, len(a)):
        a[t] = stays * a[t - 1] + np.sqrt(1 - stays**2) * a[t]
    x = a @ waves
    r = np.stack([x[i : i + frames] for i in range(count)])[:, None]
    left = [Left.of(part, np.zeros((0, cells)), (cells,), (True,)) for part in np.array_split(r, 4)]
    law = fit_law(np.zeros((count, frames, 0)), np.zeros((0, cells)), Left.mean(left), 0, 1.0, (cells,), (True,))
    known = np.zeros((1, frames, cells), dtype=bool)
    known[:, 0] = True
    for wave, stay in zip(waves, stays):
        mean, std = law.given(np.stack([wave, 0 * wave, 0 * wave])[None], known)
        np.testing.assert_allclose(mean[0, 1], stay * wave, atol=0.06)
        np.testing.assert_allclose(mean[0, 2], stay**2 * wave, atol=0.06)
    unknown = 2 / 2 * (1 - 0.9**2) + (1 - 0.2**2)  # variance of each cell: 1 of the long waves and 1 of the short
    assert std[0, 1].mean() == pytest.approx(np.sqrt(unknown), rel=0.03)
    assert law.part((slice(0, 4),)).given(np.zeros((1, frames, 4)), known[..., :4])[0].shape == (1, frames, 4)


def test_cells_that_hardly_vary_say_nothing_of_how_alike_cells_are():
    """As those of images that are always black, of which rounding leaves something: no NaN, and no correlation."""
    r = np.random.default_rng(4).normal(size=(40, 1, 2, 30)).astype("f4")
    r[..., 1] = 0.5 * (r[..., 0] + r[..., 2])
    black = r.copy()
    black[..., 5:20] = 0
    modes = np.zeros((0, 30), "f4")
    want = Left.of(black, modes).alike
    for rest in (1e-12 * r[..., 5:20], np.float32(0.1)):
        black[..., 5:20] = rest
        np.testing.assert_allclose(Left.of(black, modes).alike, want, rtol=1e-6)
    assert want > 0.1


def test_maps_are_kept_where_variables_tell_of_each_other():
    """Two variables of the same modes, each cell a Markov series: its own past says all, but nothing of the other's."""
    rng, modes, n = np.random.default_rng(5), np.linalg.qr(np.random.default_rng(4).normal(size=(9, 3)))[0].T, 600
    amplitudes, noise = np.zeros((n + FRAMES, 3)), np.zeros((n + FRAMES, 2, 9))
    for t in range(1, len(amplitudes)):
        amplitudes[t] = 0.9 * amplitudes[t - 1] + np.sqrt(1 - 0.81) * rng.normal(size=3)
        noise[t] = 0.9 * noise[t - 1] + np.sqrt(1 - 0.81) * 0.1 * rng.normal(size=(2, 9))
    x = (2 * amplitudes @ modes)[:, None] + noise
    r = np.stack([np.moveaxis(x[i : i + FRAMES], 0, 1) for i in range(n)])
    laws, errors = fit_window_laws(r, folds(n, 5), maps=True)
    assert min(errors, key=lambda choice: errors[choice])[0] > 0
    known = np.broadcast_to(np.array([True, False])[:, None, None], r.shape[1:])
    error = np.mean([((laws.laws[0].given(w, known)[0] - w)[1] ** 2).mean() for w in r[:100:5]])
    # amplitudes are seen through noise of 0.1^2 in each of three directions, of which nine cells have a third
    assert error < 1.35 * (0.01 + 0.01 * 3 / 9)
    assert error > 0.7 * 0.01


@pytest.mark.parametrize("maps", [True, False])
def test_a_law_that_is_read_from_a_file_predicts_the_same_to_the_bit(maps):
    """Of residuals in single precision, as those of a record are."""
    one = series(120)[0]
    r = np.concatenate([one, one[:, :, ::-1]], 1).astype(np.float32)
    laws, _ = fit_window_laws(r.reshape(len(r), 2, -1, 3, 4), folds(len(r), 3), maps=maps, periodic=(False, True))
    law, cells = laws.laws[-1], (2, r.shape[2], 12)
    assert law.across is not None
    read = WindowLaw.from_arrays(law.to_arrays("law"), "law", (3, 4), (False, True))
    whole = np.broadcast_to(np.arange(cells[1])[:, None] == 0, cells)
    part = np.broadcast_to(np.arange(2)[:, None, None] == 0, cells)
    for known in (whole, part):
        for one, other in zip(law.given(r[5].astype(float), known), read.given(r[5].astype(float), known)):
            assert (one == other).all()
