"""Each process against its paper's formula, written down anew in numpy."""

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from undrift.process import (
    EDM,
    NCSN,
    VE,
    Cosine,
    DiscreteBetas,
    FromSchedule,
    FromSDE,
    LinearBeta,
    LinearLogSNR,
    RectifiedFlow,
    SubVP,
)
from undrift.process.panels import Integral

CPU = torch.device("cpu")
T = np.linspace(0.003, 0.997, 23)


def tensor(values):
    return torch.tensor(values, dtype=torch.float64, device=CPU)


def pair(process, t=T):
    return process.alpha(tensor(t)).numpy(), process.sigma(tensor(t)).numpy()


B = 0.1 * T + 19.9 * T**2 / 2
COSINE = np.cos((T + 0.008) / 1.008 * np.pi / 2) ** 2 / np.cos(0.008 / 1.008 * np.pi / 2) ** 2
LAMBDA = 13.3 - 18.3 * T
SONG = "Song et al. (2021)"
FORMULAS = {
    f"{SONG}, eq. 11": (LinearBeta(), np.exp(-B / 2), np.sqrt(1 - np.exp(-B))),
    f"{SONG}, eq. 12": (SubVP(), np.exp(-B / 2), 1 - np.exp(-B)),
    f"{SONG}, eq. 9": (VE(0.01, 50), np.ones(23), 0.01 * 5000**T),
    "Nichol & Dhariwal (2021), eq. 17": (Cosine(), np.sqrt(COSINE), np.sqrt(1 - COSINE)),
    "cosine and sine": (Cosine(0), np.cos(np.pi * T / 2), np.sin(np.pi * T / 2)),
    "sigmoid of a line": (LinearLogSNR(), np.sqrt(1 / (1 + np.exp(-LAMBDA))), np.sqrt(1 / (1 + np.exp(LAMBDA)))),
    "Liu et al. (2022)": (RectifiedFlow(), 1 - T, T),
    "Karras et al. (2022)": (EDM(), np.ones(23), T / (1 - T)),
}


@pytest.mark.parametrize("paper", FORMULAS)
def test_alpha_and_sigma_are_those_of_the_paper(paper, agrees):
    process, *expected = FORMULAS[paper]
    agrees(type(process), "alpha, sigma", paper, pair(process), expected, rtol=1e-11)


def test_betas_agree_with_the_cumulative_product_at_every_node(agrees):
    betas = np.linspace(1e-4, 0.02, 1000)
    bar = np.cumprod(1 - betas)
    process = DiscreteBetas()
    alpha, sigma = pair(process, np.arange(1, 1001) / 1000)
    agrees(DiscreteBetas, "alpha^2 at all 1000 nodes", "Ho et al. (2020), eq. 4", alpha**2, bar, rtol=1e-12)
    agrees(DiscreteBetas, "sigma^2 at all 1000 nodes", "Ho et al. (2020), eq. 4", sigma**2, 1 - bar, rtol=2e-12)
    assert process.nodes.tolist() == pytest.approx(np.arange(1, 1001) / 1000)
    assert process.step_index(process.nodes).tolist() == pytest.approx(np.arange(1000), abs=1e-9)
    # Ho et al.'s q(x_t | x_{t-1}) = N(sqrt(1 - beta) x, beta)
    law = process.transition(process.nodes[:-1], process.nodes[1:])
    found, expected = np.stack([law.alpha**2, law.variance]), np.stack([1 - betas[1:], betas[1:]])
    agrees(DiscreteBetas, "q(x_t | x_{t-1}), all steps", "Ho et al. (2020), eq. 2", found, expected, rtol=1e-9)


def test_a_run_of_ddpm_ends_at_its_first_step(agrees):
    process = DiscreteBetas([0.05, 0.1, 0.2, 0.3])
    first = torch.tensor(process.t_min, dtype=torch.float64, device=CPU)
    agrees(DiscreteBetas, "t_min, and sigma^2 there", "1 / N, and the first beta", [process.t_min, process.sigma(first) ** 2],
           [0.25, 0.05], rtol=1e-12)  # fmt: skip


def test_ddpm_is_not_the_linear_beta_process(measured):
    end = tensor([1.0])
    ratio = float((DiscreteBetas().alpha(end) / LinearBeta().alpha(end)) ** 2)
    expected = np.prod(1 - np.linspace(1e-4, 0.02, 1000)) / np.exp(-10.05)
    measured(
        DiscreteBetas, "last alpha^2, over LinearBeta's", "the product over exp(-10.05)", expected, ratio, within=1e-9
    )
    assert 0.92 < ratio < 0.94


def test_between_the_nodes_lambda_stays_between_theirs():
    """Also where the betas jump, where an interpolation that is not monotone overshoots."""
    process = DiscreteBetas([0.001, 0.001, 0.9, 0.001, 0.001, 0.9])
    t = torch.linspace(process.t_min, 1, 5001, dtype=torch.float64, device=CPU)
    assert (process.log_snr(t).diff() < 0).all()


@pytest.mark.parametrize("count", [5, 12])
def test_levels_of_ncsn_are_a_geometric_sequence(count, agrees):
    process = NCSN(0.01, 1.0, count)
    levels = process.sigma(process.nodes)
    agrees(NCSN, f"{count} levels", "numpy's geomspace", levels, np.geomspace(0.01, 1.0, count), rtol=1e-12)


SDES = {
    "VP": (FromSDE(lambda t: -(0.1 + 19.9 * t) / 2, lambda t: (0.1 + 19.9 * t).sqrt()), LinearBeta()),
    "constants": (FromSDE(lambda t: -3.0, lambda t: 6.0**0.5), LinearBeta(6.0, 6.0)),
    # Song et al. eq. 12: the diffusion of sub-VP is sqrt(beta (1 - exp(-2 B)))
    "sub-VP": (
        FromSDE(
            lambda t: -(0.1 + 19.9 * t) / 2,
            lambda t: ((0.1 + 19.9 * t) * -torch.expm1(-2 * (0.1 * t + 19.9 * t**2 / 2))).sqrt(),
        ),
        SubVP(),
    ),
}


@pytest.mark.parametrize("name", SDES)
def test_drift_and_diffusion_are_integrated_to_the_last_digits(name, agrees):
    own, known = SDES[name]
    t = np.concatenate([np.geomspace(1e-5, 1e-2, 12), T])
    against = f"{type(known).__name__}, {name}"
    agrees(FromSDE, "alpha, sigma of f and g", against, pair(own, t), pair(known, t), rtol=1e-11)
    for name in ("alpha_dot", "sigma_dot", "drift", "diffusion_squared"):
        got, expected = (getattr(p, name)(tensor(T)).numpy() for p in (own, known))
        np.testing.assert_allclose(got, expected, rtol=1e-9)


def test_a_wiggly_sde_against_quadrature(agrees):
    own = FromSDE(lambda t: torch.sin(30 * t), lambda t: 1.5 + torch.cos(40 * t))
    found, expected = [], []
    for t in (0.01, 0.3, 1.0):
        alpha = np.exp((1 - np.cos(30 * t)) / 30)
        integrand = lambda u: (1.5 + np.cos(40 * u)) ** 2 * np.exp(-2 * (1 - np.cos(30 * u)) / 30)  # noqa: E731
        ratio = quad(integrand, 0, t, epsabs=0, epsrel=1e-12, limit=400)[0]
        found.append(np.ravel(pair(own, [t])))
        expected.append([alpha, alpha * np.sqrt(ratio)])
    agrees(FromSDE, "alpha, sigma of wiggly f and g", "scipy's quad", found, expected, rtol=1e-11)


def test_an_integral_on_panels(agrees):
    """Of a function that is steep at 0, at times that are small beside its range."""
    t = np.concatenate([np.geomspace(1e-6, 1e-2, 9), np.linspace(0.02, 1, 9)])
    found = Integral(lambda u: torch.exp(-5 * u) * torch.cos(20 * u), 1e-5, 1.0, "f")(tensor(t))
    w = -5 + 20j
    agrees(Integral, "integral from 0 to t", "closed form", found, (np.expm1(w * t) / w).real, rtol=1e-12)


def test_a_schedule_of_ones_own_has_the_derivatives_and_the_inverse(agrees):
    own = FromSchedule(lambda t: torch.cos(np.pi / 2 * t), lambda t: torch.sin(np.pi / 2 * t))
    known, names = Cosine(0.0), ("alpha", "sigma", "alpha_dot", "sigma_dot", "log_snr")
    found, expected = (np.stack([getattr(p, name)(tensor(T)) for name in names]) for p in (own, known))
    agrees(FromSchedule, "alpha, sigma, slopes, lambda", "Cosine(0)", found, expected, rtol=1e-10, atol=1e-14)
    level = known.log_snr(tensor(T))
    np.testing.assert_allclose(own.t_of_log_snr(level).numpy(), T, rtol=1e-12)


BAD = {
    "alpha / sigma does not fall between t = 0.5": lambda: FromSchedule(
        lambda t: 1.0, lambda t: torch.sin(np.pi * t) + 1e-3
    ),
    "expected a function made of torch operations": lambda: FromSchedule(
        lambda t: torch.as_tensor(np.cos(1.5 * t.detach().numpy())),
        lambda t: torch.as_tensor(np.sin(1.5 * t.detach().numpy())),
    ),
    "alpha is -0.000": lambda: FromSchedule(lambda t: 1 - 1.5 * t, lambda t: t, t_max=1.0),
    "sigma is nan": lambda: FromSchedule(lambda t: 1 - t, lambda t: t + 0 * (0.5001 - t).sqrt()),
    "expected 0 <= t_min < t_max <= 1": lambda: FromSchedule(lambda t: 1 - t, lambda t: t, 0.5, 0.2),
    "t_min is 0, where sigma is 0": lambda: FromSDE(lambda t: 0.0, lambda t: 1.0, t_min=0.0),
    "drift is not smooth enough": lambda: FromSDE(lambda t: -(t > 1 / 3).double(), lambda t: 1.0),
    "drift is -?inf": lambda: FromSDE(lambda t: -1 / (t - t), lambda t: 1.0),
    "expected 0 < sigma_min < sigma_max": lambda: VE(0.0, 1.0),
    "expected 0 <= sigma_min < sigma_max": lambda: EDM(1.0, 2.0),
    "betas have shape": lambda: DiscreteBetas([0.1, 1.2]),
    "levels is 1": lambda: NCSN(levels=1),
    "t_min is 0": lambda: LinearBeta(t_min=0.0),
    "expected 0 <= beta_min <= beta_max": lambda: LinearBeta(2.0, 1.0),
    "offset is -1": lambda: Cosine(-1.0),
    "expected the first above": lambda: LinearLogSNR(0.0, 1.0),
}


@pytest.mark.parametrize("message", BAD)
def test_what_is_no_process_is_refused(message):
    with pytest.raises(ValueError, match=message):
        BAD[message]()
