"""What every process keeps: derivatives, inverses, transitions. And the law of EDM, written down anew."""

import numpy as np
import pytest
import torch
from implementations import CPU, PROCESSES

from undrift.process import EDM, FromSchedule, RectifiedFlow, check_process

each = pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)


def inside(process, count=9):
    return torch.linspace(process.t_min, process.t_max, count + 2, dtype=torch.float64, device=CPU)[1:-1]


@each
def test_derivatives_equal_autograd(process, agrees):
    t = inside(process)
    found, expected = [], []
    for name in ("alpha", "sigma"):
        at = t.clone().requires_grad_()
        value = getattr(process, name)(at)
        slope = torch.autograd.grad(value.sum(), at)[0] if value.requires_grad else torch.zeros_like(t)
        expected.append(slope.numpy())
        found.append(getattr(process, name + "_dot")(t).numpy())
    agrees(type(process), "alpha', sigma'", "automatic differentiation", found, expected, rtol=1e-10, atol=1e-11)


@each
def test_log_snr_is_decreasing_and_inverted(process, agrees):
    t = inside(process)
    log_snr = process.log_snr(t)
    expected = np.log(process.alpha(t).detach().numpy() ** 2 / process.sigma(t).numpy() ** 2)
    agrees(type(process), "lambda", "log(alpha^2 / sigma^2)", log_snr, expected, rtol=1e-11, atol=1e-11)
    assert (log_snr.diff() < 0).all()
    back = torch.stack([process.t_of_log_snr(log_snr), process.t_of_ratio(process.ratio(t))])
    agrees(type(process), "t of lambda, t of ratio", "t", back, torch.stack([t, t]), rtol=1e-11)
    torch.testing.assert_close(process.ratio(t), torch.exp(-log_snr / 2), rtol=1e-11, atol=0)


@each
def test_slope_of_log_snr_drift_and_diffusion(process, agrees):
    """lambda' by autograd of log(alpha^2 / sigma^2); f and g^2 rebuild the two derivatives."""
    t = inside(process).requires_grad_()
    (expected,) = torch.autograd.grad((2 * (process.alpha(t) / process.sigma(t)).log()).sum(), t)
    t = t.detach()
    agrees(
        type(process), "lambda'", "automatic differentiation", process.log_snr_dot(t), expected, rtol=1e-9, atol=1e-9
    )
    f, g2, sigma = process.drift(t), process.diffusion_squared(t), process.sigma(t)
    torch.testing.assert_close(f * process.alpha(t), process.alpha_dot(t), rtol=1e-10, atol=1e-12)
    # d sigma^2 / dt = 2 f sigma^2 + g^2
    left, right = 2 * f * sigma**2 + g2, 2 * sigma * process.sigma_dot(t)
    agrees(type(process), "2 f sigma^2 + g^2", "Särkkä & Solin (2019), eq. 5.51", left, right, rtol=1e-9, atol=1e-10)
    assert (g2 > 0).all()


@each
def test_posteriors_are_those_of_three_gaussian_numbers(process, agrees):
    """q(x_s | x_t, x) by conditioning the joint Gaussian of (x_s, x_t) given x, from nothing but alpha and sigma."""
    times, found, expected = inside(process), [], []
    for s, t in ((times[2], times[6]), (times[0], times[8]), (times[4], times[5])):
        a_s, a_t, v_s, v_t = (
            float(v) for v in (process.alpha(s), process.alpha(t), process.sigma(s) ** 2, process.sigma(t) ** 2)
        )
        shared = a_t / a_s * v_s  # cov(x_s, x_t | x)
        law = process.posterior(s, t)
        found.append([float(v) for v in (law.from_noisy, law.from_clean, law.variance)])
        expected.append([shared / v_t, a_s - shared / v_t * a_t, v_s - shared**2 / v_t])
    agrees(type(process), "q(x_s | x_t, x)", "conditioning in numpy", found, expected, rtol=1e-7)
    np.testing.assert_allclose(np.array(found)[:, 0], np.array(expected)[:, 0], rtol=1e-9)


@each
def test_both_ends_are_finite(process):
    first, last = (torch.tensor(v, dtype=torch.float64, device=CPU) for v in (process.t_min, process.t_max))
    middle = (first + last) / 2
    for s, t in ((first, last), (first, middle), (middle, last), (first, first), (last, last)):
        law, posterior = process.transition(s, t), process.posterior(s, t)
        values = [law.alpha, law.variance, posterior.from_noisy, posterior.from_clean, posterior.variance]
        assert all(bool(torch.isfinite(v)) for v in values), (float(s), float(t), values)
    for end in (first, last):
        stay, posterior = process.transition(end, end), process.posterior(end, end)
        assert [float(stay.alpha), float(stay.variance)] == [1, 0]
        assert [float(posterior.from_noisy), float(posterior.from_clean), float(posterior.variance)] == [1, 0, 0]
        for name in ("alpha", "sigma", "alpha_dot", "sigma_dot"):
            assert torch.isfinite(getattr(process, name)(end)), name


@each
def test_transitions_compose(process, agrees):
    """q(t|r) is q(t|s) after q(s|r): factors multiply, and the first variance is carried by the square of the second."""
    r, s, t = inside(process)[[1, 4, 7]]
    first, second, both = process.transition(r, s), process.transition(s, t), process.transition(r, t)
    torch.testing.assert_close(both.alpha, first.alpha * second.alpha)
    torch.testing.assert_close(both.variance, second.alpha**2 * first.variance + second.variance)
    found, expected = [], []
    for one, other in ((process.t_min, t), (r, s), (s, t), (r, t)):
        one = torch.as_tensor(one, dtype=torch.float64, device=CPU)
        law = process.transition(one, other)
        factor = float(process.alpha(other)) / float(process.alpha(one))
        found.append([float(law.alpha), float(law.variance)])
        expected.append([factor, float(process.sigma(other)) ** 2 - (factor * float(process.sigma(one))) ** 2])
    agrees(type(process), "q(x_t | x_s)", "Kingma et al. (2021), eq. 20", found, expected, rtol=1e-7)


@each
def test_each_element_has_the_value_that_it_has_alone_in_float64(process):
    t = inside(process)[:6].reshape(2, 3)
    names = ("alpha", "sigma", "alpha_dot", "sigma_dot", "ratio", "log_snr")
    for name in names:
        alone = torch.stack([getattr(process, name)(one) for one in t.flatten()]).reshape(2, 3)
        torch.testing.assert_close(getattr(process, name)(t), alone, rtol=1e-13, atol=0)
        assert alone.dtype == torch.float64


@each
def test_the_check_of_an_own_process_finds_nothing(process):
    check_process(process)


class Own(RectifiedFlow):
    """One's own, with a fault."""


def own(**methods):
    return type("Own", (Own,), methods)()


FAULTY = {
    "t_max of Own are 0.0, None, expected numbers; in the class type t_min, t_max = 0.0, 1.0": own(t_max=None),
    "expected 0 <= t_min < t_max <= 1": own(t_max=1.5),
    "alpha made 1.0 of t, expected Tensor (4097,) of torch.float64": own(alpha=lambda self, t: 1.0),
    "sigma made Tensor (4097,) of torch.float32": own(sigma=lambda self, t: t.float()),
    "alpha is 0 at t = 0, expected a finite number above 0 between t = 0, data, and t = 1, noise": own(
        alpha=lambda self, t: t, sigma=lambda self, t: 1 - t
    ),
    "the derivative of sigma is 2 in the middle, and its values change by 1": own(
        sigma_dot=lambda self, t: torch.full_like(t, 2.0)
    ),
    "the derivative of sigma is inf at t = 0, expected a finite number; type t_min=1e-05": own(
        sigma=lambda self, t: t.sqrt(), sigma_dot=lambda self, t: 0.5 / t.sqrt()
    ),
    "log_snr is that of lambda = ": own(log_snr=lambda self, t: (1 - t).log() - t.log()),
    "ratio is that of lambda = ": own(ratio=lambda self, t: t),
    "t_of_log_snr is that of lambda = ": own(t_of_log_snr=lambda self, log_snr: torch.sigmoid(-log_snr)),
}


@pytest.mark.parametrize("message", FAULTY)
def test_a_fault_of_an_own_process_is_told(message):
    with pytest.raises((ValueError, TypeError)) as caught:
        check_process(FAULTY[message])
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_derivative_that_is_infinite_at_an_end_is_refused_where_it_is():
    for ends, said in (
        ((0.0, 1.0), "alpha is -inf at t = 1, expected a finite number; type t_max=0.99999"),
        ((0.0, 0.9), "sigma is inf at t = 0, expected a finite number; type t_min=1e-05"),
    ):
        with pytest.raises(ValueError) as caught:
            FromSchedule(lambda t: (1 - t).sqrt(), lambda t: t.sqrt(), *ends)
        assert said in str(caught.value)
    FromSchedule(lambda t: (1 - t).sqrt(), lambda t: t.sqrt(), 1e-5, 0.99999)


@pytest.mark.parametrize("sigma_max", [80.0, 5.0])
def test_edm_is_the_data_and_noise_up_to_its_largest(sigma_max):
    process = EDM(sigma_max)
    ends = torch.tensor([process.t_min, process.t_max], dtype=torch.float64, device=CPU)
    assert process.sigma(ends).tolist() == pytest.approx([0.0, sigma_max], rel=1e-12)
    assert process.alpha(ends).tolist() == [1.0, 1.0]
    half = torch.tensor(0.75, dtype=torch.float64, device=CPU)
    assert float(process.sigma(half)) == pytest.approx(3.0)
    assert 0 <= process.t_min < process.t_max <= 1


def test_a_transition_of_edm_has_the_moments_of_the_process():
    """Gaussian data of variance v: x_t has variance v + sigma^2, whether drawn at once or through x_s."""
    s, t = 0.3, 0.7
    sigma_s, sigma_t = 3 / 7, 7 / 3
    law = EDM().transition(torch.tensor(s, dtype=torch.float64), torch.tensor(t, dtype=torch.float64))
    rng = np.random.default_rng(0)
    n, v = 200_000, 2.5
    x = np.sqrt(v) * rng.normal(size=n)
    x_s = x + sigma_s * rng.normal(size=n)
    x_t = float(law.alpha) * x_s + np.sqrt(float(law.variance)) * rng.normal(size=n)
    variance = v + sigma_t**2
    assert abs(x_t.var() - variance) < 5 * variance * np.sqrt(2 / n)
    covariance = np.mean(x_t * x)
    assert abs(covariance - v) < 5 * np.sqrt((v * variance + v**2) / n)
