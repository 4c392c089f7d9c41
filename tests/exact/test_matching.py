"""Objectives on a Gaussian: their values, and what a linear network learns by them, against closed forms in numpy."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from undrift.denoise.denoiser import Denoiser, FromCallable
from undrift.denoise.estimate import Estimate
from undrift.objective import (
    SNR,
    ContinuousVLB,
    DiscreteVLB,
    EDMWeight,
    FlowMatching,
    ImplicitScoreMatching,
    Likelihood,
    LogNormal,
    MinSNR,
    ScoreMatching,
    Simple,
    Uniform,
    bits_per_dimension,
)
from undrift.process import EDM, Bridge, DataToData, DiscreteBetas, LinearBeta, MinibatchOT, RectifiedFlow
from undrift.tasks.batch import Batch, Condition

CPU = torch.device("cpu")
MEAN = np.array([0.7, -0.4])
COVARIANCE = np.array([[1.0, 0.5], [0.5, 0.6]])
T = 0.45


def gaussian(count, seed=0):
    rng = np.random.default_rng(seed)
    return torch.tensor(rng.multivariate_normal(MEAN, COVARIANCE, size=count), device=CPU)


def numbers(process, t):
    t = torch.tensor(t, dtype=torch.float64, device=CPU)
    return [float(f(t)) for f in (process.alpha, process.sigma, process.alpha_dot, process.sigma_dot)]


class Linear(torch.nn.Module):
    def __init__(self, size=2):
        super().__init__()
        self.theta = torch.nn.Parameter(torch.zeros(size, size + 1, dtype=torch.float64, device=CPU))

    def forward(self, x, t):
        return x @ self.theta[:, :-1].T + self.theta[:, -1]


def trained(objective, process, predicts, x):
    """A linear network trained to convergence with one key, and the standard errors of its coefficients.

    All losses are quadratic in the coefficients, so that differences give the gradients of each sample exactly.
    """
    net = Linear(x.shape[1])
    noise = getattr(getattr(objective, "coupling", None), "noise", None)
    model = Denoiser.from_callable(net, predicts=predicts, process=process, noise=noise)
    batch = Batch.of(x)
    optimizer = torch.optim.LBFGS(
        net.parameters(), max_iter=200, tolerance_grad=1e-12, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def closure():
        optimizer.zero_grad()
        loss = objective(batch, model, 3)[0].mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    found = net.theta.detach().clone()
    size = found.numel()

    def losses(shift):
        net.theta.data = found + shift.reshape(found.shape)
        return objective(batch, model, 3)[0].detach()

    eye = torch.eye(size, dtype=torch.float64, device=CPU)
    gradients = torch.stack([(losses(e) - losses(-e)) / 2 for e in eye])
    at = {(i, j): losses(eye[i] + eye[j]).mean() for i in range(size) for j in range(i, size)}
    one, zero = [losses(e).mean() for e in eye], losses(torch.zeros(size, dtype=torch.float64)).mean()
    hessian = torch.zeros(size, size, dtype=torch.float64)
    for (i, j), value in at.items():
        hessian[i, j] = hessian[j, i] = value - one[i] - one[j] + zero
    bread = torch.linalg.pinv(hessian)
    error = (bread @ torch.cov(gradients) @ bread / len(x)).diagonal().sqrt()
    return found.numpy(), error.reshape(found.shape).numpy()


def regression(target_mean, target_noisy, noisy_mean, noisy):
    """``E[F | x_t] = M x_t + m`` of jointly Gaussian (F, x_t), as (2, 3)."""
    m = target_noisy @ np.linalg.inv(noisy)
    return np.concatenate([m, (target_mean - m @ noisy_mean)[:, None]], 1)


def exact_coefficients(process, predicts):
    """Of what is predicted, from the covariances of x and z with x_t."""
    a, s, a_dot, s_dot = numbers(process, T)
    noisy = a**2 * COVARIANCE + s**2 * np.eye(2)
    p_x, p_z = {
        "eps": (0, 1),
        "x": (1, 0),
        "v": (-s, a),
        "velocity": (a_dot, s_dot),
        "score": (0, -1 / s),
    }[predicts]
    return regression(p_x * MEAN, p_x * a * COVARIANCE + p_z * s * np.eye(2), a * MEAN, noisy)


AT = Uniform(T, T)
MATCHING = {
    "simple": (ScoreMatching(Simple("eps"), AT), "eps", LinearBeta()),
    "SNR": (ScoreMatching(SNR(1), AT), "v", LinearBeta()),
    "min-SNR": (ScoreMatching(MinSNR(2), AT), "x", LinearBeta()),
    "EDM": (ScoreMatching(EDMWeight(1.0), AT), "x", EDM(5.0)),
    "likelihood": (ScoreMatching(Likelihood(), AT), "score", LinearBeta()),
    "exact trace": (ImplicitScoreMatching(Simple("score"), AT), "score", LinearBeta()),
    "sliced": (ImplicitScoreMatching(Simple("score"), AT, slices=2), "score", LinearBeta()),
    "flow": (FlowMatching(times=AT), "velocity", RectifiedFlow()),
    "discrete bound": (DiscreteVLB(torch.tensor([T - 1e-4, T], dtype=torch.float64)), "eps", LinearBeta()),
    "continuous bound": (ContinuousVLB(Uniform(T - 0.01, T + 0.01)), "v", LinearBeta()),
}


@pytest.mark.parametrize("name", MATCHING)
def test_a_linear_network_learns_the_exact_score_of_a_gaussian(name, measured):
    objective, predicts, process = MATCHING[name]
    found, error = trained(objective, process, predicts, gaussian(8000))
    expected = exact_coefficients(process, predicts)
    worst = float(np.abs((found - expected) / error).max())
    of = ScoreMatching if isinstance(objective, ScoreMatching) else type(objective)
    measured(of, f"trained linear net, {name}", "the exact score (standard errors)", "≤ 4.5", worst, most=4.5)
    assert error.max() < 0.1 and np.abs(expected).max() > 0.2  # a fault of a factor would be seen
    if isinstance(objective, ScoreMatching):
        weight = objective.weight
        measured(type(weight), "trained linear net", "the exact score (standard errors)", "≤ 4.5", worst, most=4.5)


@pytest.mark.parametrize("process", [RectifiedFlow(), LinearBeta()], ids=["straight", "curved"])
def test_flow_matching_between_two_gaussians_with_a_bridge(process, measured):
    """Independent draws of two data sets, and noise between them: the velocity's regression on x_t."""
    other_mean, spread = np.array([-1.0, 0.5]), 0.7
    other = torch.tensor(np.random.default_rng(5).normal(other_mean, spread, size=(20000, 2)), device=CPU)
    bridge, t = Bridge(0.5), 0.3  # where gamma and its slope are far from each other
    objective = FlowMatching(DataToData(other), bridge, Uniform(t, t))
    found, error = trained(objective, process, "velocity", gaussian(8000))
    a, s, a_dot, s_dot = numbers(process, t)
    gamma, slope = 0.5 * math.sin(math.pi * t) ** 2, 0.5 * math.pi * math.sin(2 * math.pi * t)
    eye = np.eye(2)
    noisy = a**2 * COVARIANCE + (s**2 * spread**2 + gamma**2) * eye
    cross = a_dot * a * COVARIANCE + (s_dot * s * spread**2 + slope * gamma) * eye
    expected = regression(a_dot * MEAN + s_dot * other_mean, cross, a * MEAN + s * other_mean, noisy)
    worst = float(np.abs((found - expected) / error).max())
    measured(
        FlowMatching, f"two data sets with a bridge, {type(process).__name__}", "regression (standard errors)",
        "≤ 4.5", worst, most=4.5,
    )  # fmt: skip
    assert error.max() < 0.1


def test_matched_pairs_in_one_dimension_give_the_map_of_sorted_values():
    """Minibatch transport of N(0, 1) to N(m, c^2) in large batches: x = m + c z, so x_t determines the velocity."""
    x = 2.0 + 0.5 * torch.tensor(np.random.default_rng(2).normal(size=(400, 1)), device=CPU)
    found, _ = trained(FlowMatching(MinibatchOT(), times=AT), RectifiedFlow(), "velocity", x)
    slope = (1 - 0.5) / ((1 - T) * 0.5 + T)
    # velocity = z - x = (1 - c) z - m and x_t = ((1 - t) c + t) z + (1 - t) m
    np.testing.assert_allclose(found, [[slope, -2.0 - slope * (1 - T) * 2.0]], atol=0.25)


def test_a_coupling_that_knows_x_is_refused_where_something_is_given():
    """Of x = 3 c + z / 2 with c = -1, 1 the z that are matched to x say what c is, those of a draw do not."""
    rng = np.random.default_rng(3)
    c = torch.tensor(rng.choice([-1.0, 1.0], size=(400, 1)), device=CPU)
    x = 3 * c + 0.5 * torch.tensor(rng.normal(size=(400, 1)), device=CPU)
    z = MinibatchOT()(x, torch.Generator().manual_seed(0))
    assert float((z * c).mean()) == pytest.approx(math.sqrt(2 / math.pi), abs=0.1)  # E |z|: the half it is from
    model = FromCallable(lambda x_t, t, given=None: x_t, predicts="velocity", process=RectifiedFlow())
    for given in (Condition(vectors={"sign": c}), Condition({"sign": c})):
        with pytest.raises(ValueError, match="MinibatchOT, whose z knows x, and 'sign' is given"):
            FlowMatching(MinibatchOT())(Batch.of(x, given), model, 0)
        assert torch.isfinite(FlowMatching()(Batch.of(x, given), model, 0)[0]).all()
    assert torch.isfinite(FlowMatching(MinibatchOT())(Batch.of(x), model, 0)[0]).all()


WEIGHTS = {
    "simple eps": (Simple("eps"), lambda a, s, ad, sd: (a / s) ** 2),
    "simple x": (Simple("x"), lambda a, s, ad, sd: 1.0),
    "simple v": (Simple("v"), lambda a, s, ad, sd: (a**2 + s**2) ** 2 / s**2),
    "simple score": (Simple("score"), lambda a, s, ad, sd: (a / s**2) ** 2),
    "SNR": (SNR(), lambda a, s, ad, sd: (a / s) ** 2),
    "SNR + 1": (SNR(1), lambda a, s, ad, sd: (a / s) ** 2 + 1),
    "SNR + 3": (SNR(3), lambda a, s, ad, sd: (a / s) ** 2 + 3),
    "min-SNR": (MinSNR(2), lambda a, s, ad, sd: min((a / s) ** 2, 2)),
    "EDM": (EDMWeight(0.7), lambda a, s, ad, sd: ((s / a) ** 2 + 0.49) / (s / a * 0.7) ** 2),
    # -SNR' / 2 = -(a / s) (a' s - a s') / s^2
    "likelihood": (Likelihood(), lambda a, s, ad, sd: -a / s * (ad * s - a * sd) / s**2),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_are_those_of_their_papers(name, measured):
    weight, formula = WEIGHTS[name]
    worst = 0.0
    for process in (LinearBeta(), EDM(5.0), RectifiedFlow()):
        t = torch.linspace(0.1, 0.9, 9, dtype=torch.float64, device=CPU)
        expected = np.array([formula(*numbers(process, float(v))) for v in t])
        worst = max(worst, float(np.abs(weight(process, t).numpy() / expected - 1).max()))
    measured(type(weight), f"w(t), {name}", "the paper's formula", 0.0, worst, within=1e-9)


@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.parametrize("law", ["uniform", "log-normal"])
def test_weight_and_law_of_times_together(name, law, measured):
    """One factor c for all times, x_hat = c x_t: its minimiser is a ratio of two integrals over t."""
    weight, formula = WEIGHTS[name]
    process = LinearBeta()
    times = Uniform(0.2, 0.8) if law == "uniform" else LogNormal(0.2, 0.3)
    variance, count = 1.7, 4000
    x = math.sqrt(variance) * torch.tensor(np.random.default_rng(1).normal(size=(count, 1)), device=CPU)

    class Factor(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.c = torch.nn.Parameter(torch.zeros((), dtype=torch.float64, device=CPU))

        def forward(self, x, t):
            return self.c * x

    net = Factor()
    model = Denoiser.from_callable(net, predicts="x", process=process)

    def losses(c):
        net.c.data.fill_(c)
        return ScoreMatching(weight, times)(Batch.of(x), model, 5)[0].detach().numpy()

    zero, one, less = losses(0.0), losses(1.0), losses(-1.0)
    slope, bend = (one - less) / 2, (one + less) / 2 - zero
    found = -slope.mean() / (2 * bend.mean())

    def integral(of):
        def over(t):
            a, s, ad, sd = numbers(process, t)
            if law == "uniform":
                density = 1 / 0.6
            else:
                density = math.exp(-((math.log(s / a) - 0.2) ** 2) / (2 * 0.09)) * (sd / s - ad / a)
            return density * formula(a, s, ad, sd) * of(a, s)

        ends = (0.2, 0.8) if law == "uniform" else (1e-3, 0.9)
        return quad(over, *ends, limit=200, epsabs=1e-10)[0]

    expected = integral(lambda a, s: a * variance) / integral(lambda a, s: a**2 * variance + s**2)
    error = (slope + 2 * found * bend).std() / (2 * bend.mean()) / math.sqrt(count)
    measured(
        type(times), "minimiser over times, every weight", "ratio of integrals over t (standard errors)", 0.0,
        (found - expected) / error, within=4.5,
    )  # fmt: skip
    assert error < 0.05 * expected


def test_stratified_quantiles_cover_and_independent_ones_do_not(measured):
    process = LinearBeta()
    t = Uniform()(100, process, torch.Generator("cpu").manual_seed(0)).sort().values
    strata = (t - process.t_min) / (process.t_max - process.t_min) * 100
    empty = 100 - len(strata.floor().unique())
    measured(Uniform, "empty ones of 100 equal parts", "100 stratified times", 0, empty, within=0.5)
    free = Uniform(low_discrepancy=False)(100, process, torch.Generator("cpu").manual_seed(0)).sort().values
    assert len(((free - process.t_min) / (process.t_max - process.t_min) * 100).floor().unique()) < 80


class Exact(Denoiser):
    """The denoiser of N(0, variance), and its posterior variance where asked, times a factor."""

    def __init__(self, process, variance, known=None):
        self.process, self.variance, self.known = process, variance, known

    def __call__(self, x_t, t, condition=None):
        a, s = (v(t).reshape(-1, 1) for v in (self.process.alpha, self.process.sigma))
        total = a**2 * self.variance + s**2
        x = a * self.variance / total * x_t
        spread = None if self.known is None else self.known * self.variance * s**2 / total * torch.ones_like(x)
        return Estimate(x, (x_t - a * x) / s, self.process, t, variance=spread)


def test_values_of_the_matching_losses(measured):
    """With the exact denoiser: w times the posterior variance; the score's loss is minus w sigma^4/alpha^2 E s^2."""
    variance, count = 1.7, 40000
    x = math.sqrt(variance) * torch.tensor(np.random.default_rng(3).normal(size=(count, 2)), device=CPU)
    process = LinearBeta()
    a, s, ad, sd = numbers(process, T)
    total = a**2 * variance + s**2
    weight, factor = SNR(1), (a / s) ** 2 + 1
    cases = {
        ScoreMatching: (ScoreMatching(weight, AT), factor * variance * s**2 / total),
        ImplicitScoreMatching: (ImplicitScoreMatching(weight, AT), -factor * s**4 / a**2 / total),
        FlowMatching: (FlowMatching(times=AT), (ad - sd * a / s) ** 2 * variance * s**2 / total),
    }
    for kind, (objective, expected) in cases.items():
        loss = objective(Batch.of(x), Exact(process, variance), 1)[0].detach()
        error = float(loss.std()) / math.sqrt(count)
        measured(kind, "value at the exact denoiser", "closed form (standard errors)", 0.0,
                 (float(loss.mean()) - expected) / error, within=4.5)  # fmt: skip
        assert error < 0.01 * abs(expected)


def kl(mean, variance, other_mean, other_variance):
    return (variance / other_variance - 1 - math.log(variance / other_variance)
            + (mean - other_mean) ** 2 / other_variance) / 2  # fmt: skip


@pytest.mark.parametrize("known", [None, 1.0, 3.0])
def test_terms_of_the_discrete_bound(known, measured):
    """Each against the mean over x and x_t of the divergence of two Gaussians, in DDPM's own letters."""
    process, variance, count = DiscreteBetas([0.05, 0.1, 0.2, 0.3, 0.5, 0.7]), 0.8, 40000
    x = math.sqrt(variance) * torch.tensor(np.random.default_rng(4).normal(size=(count, 1)), device=CPU)
    terms, steps = DiscreteVLB(process.nodes).terms(Batch.of(x), Exact(process, variance, known), 2)
    bar = np.cumprod(1 - np.array([0.05, 0.1, 0.2, 0.3, 0.5, 0.7]))
    expected = []
    for i in range(1, 6):
        beta = 1 - bar[i] / bar[i - 1]
        posterior = beta * (1 - bar[i - 1]) / (1 - bar[i])
        from_x = math.sqrt(bar[i - 1]) * beta / (1 - bar[i])
        left = variance * (1 - bar[i]) / (bar[i] * variance + 1 - bar[i])  # of x given x_t
        ours = posterior + (0 if known is None else known * left * from_x**2)
        expected.append(kl(0, posterior, math.sqrt(from_x**2 * left), ours))
    error = steps.std(0).numpy() / math.sqrt(count)
    worst = np.abs(steps.mean(0).numpy() - expected) / np.maximum(error, 1e-12)
    label = "posterior variance" if known is None else f"own variance times {known:g}"
    measured(DiscreteVLB, f"each step's divergence, {label}", "closed form (standard errors)", 0.0, worst.max(),
             within=4.5)  # fmt: skip
    prior = bar[-1] * variance / (2 * (1 - bar[-1]))
    left = variance * (1 - bar[0]) / (bar[0] * variance + 1 - bar[0])
    reconstruction = 0.5 * math.log(2 * math.pi * (1 - bar[0])) + left / (2 * (1 - bar[0]))
    assert float(terms.prior.mean()) == pytest.approx(prior, rel=0.04)
    assert float(terms.reconstruction.mean()) == pytest.approx(reconstruction, abs=0.02)
    loss, facts = DiscreteVLB(process.nodes)(Batch.of(x), Exact(process, variance, known), 6)
    whole = prior + sum(expected) + reconstruction
    assert float(loss.mean()) == pytest.approx(whole, abs=4.5 * float(loss.std()) / math.sqrt(count))
    assert float(facts["bits_per_dimension"]) == pytest.approx(float(loss.mean()) / math.log(2), rel=1e-9)


def test_terms_of_the_continuous_bound(measured):
    process, variance, count, least, most = LinearBeta(), 0.8, 40000, 0.05, 0.6
    x = math.sqrt(variance) * torch.tensor(np.random.default_rng(4).normal(size=(count, 1)), device=CPU)
    terms = ContinuousVLB(Uniform(least, most)).terms(Batch.of(x), Exact(process, variance), 2)

    def integrand(t):
        a, s, ad, sd = numbers(process, t)
        return -a / s * (ad * s - a * sd) / s**2 * variance * s**2 / (a**2 * variance + s**2)

    expected = quad(integrand, least, most)[0]
    error = float(terms.diffusion.std()) / math.sqrt(count)
    measured(ContinuousVLB, "diffusion term", "quadrature (standard errors)", 0.0,
             (float(terms.diffusion.mean()) - expected) / error, within=4.5)  # fmt: skip
    assert error < 0.02 * expected
    a, s, *_ = numbers(process, most)
    assert float(terms.prior.mean()) == pytest.approx(a**2 * variance / (2 * s**2), rel=0.04)
    a, s, *_ = numbers(process, least)
    reconstruction = 0.5 * math.log(2 * math.pi * (s / a) ** 2) + 0.5
    assert float(terms.reconstruction.mean()) == pytest.approx(reconstruction, abs=0.02)
    entropy = 0.5 * math.log(2 * math.pi * math.e * variance)
    gap = prior_gap = float(terms.total.mean()) - entropy
    assert -0.05 < gap < 0.2, prior_gap  # a bound, and tight for little noise


def test_bits_count_known_cells(measured):
    weight = torch.tensor([[1.0, 1.0, 0.0, 1.0]])
    bits = bits_per_dimension(torch.tensor([6.0]), weight)
    measured(bits_per_dimension, "of 6 nats in 3 known cells", "2 / log 2", 2 / math.log(2), bits, within=1e-6)


def test_what_cannot_be_asked_is_one_sentence():
    x, process = gaussian(4), RectifiedFlow()
    model = FromCallable(Linear(), predicts="x", process=process)
    with pytest.raises(ValueError, match="use FlowMatching"):
        ScoreMatching(coupling=MinibatchOT())
    with pytest.raises(ValueError, match="infinite at t = 0"):
        ScoreMatching(SNR(), Uniform(0.0, 0.0))(Batch.of(x), model, 0)
    with pytest.raises(ValueError, match="sigma is 0 at t = 0"):
        ContinuousVLB()(Batch.of(x), model, 0)
    with pytest.raises(ValueError, match=r"a part of \[0, 1\]"):
        DiscreteVLB(torch.tensor([0.5, 1.5]))(Batch.of(x), model, 0)
    with pytest.raises(ValueError, match="expected at least two noise levels"):
        DiscreteVLB(torch.tensor([0.5, 0.2]))
    with pytest.raises(ValueError, match="expected start <= stop"):
        Uniform(0.5, 0.2)
    with pytest.raises(ValueError, match=r"a part of \[0, 1\]"):
        ScoreMatching(times=Uniform(0.5, 2.0))(Batch.of(x), model, 0)
