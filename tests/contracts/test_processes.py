"""What every process keeps: derivatives, inverses, transitions. And the law of EDM, written down anew."""

import numpy as np
import pytest
import torch
from implementations import CPU, PROCESSES

from undrift.process import EDM

each = pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)


def inside(process, count=9):
    return torch.linspace(process.t_min, process.t_max, count + 2, dtype=torch.float64, device=CPU)[1:-1]


@each
@pytest.mark.parametrize("name", ["alpha", "sigma"])
def test_derivatives_equal_autograd(process, name):
    t = inside(process).requires_grad_()
    value = getattr(process, name)(t)
    if value.requires_grad:
        (expected,) = torch.autograd.grad(value.sum(), t)
    else:
        expected = torch.zeros_like(t)
    torch.testing.assert_close(getattr(process, name + "_dot")(t), expected, rtol=1e-13, atol=1e-13)


@each
def test_log_snr_is_decreasing_and_inverted(process):
    t = inside(process)
    log_snr = process.log_snr(t)
    expected = np.log(process.alpha(t).detach().numpy() ** 2 / process.sigma(t).numpy() ** 2)
    np.testing.assert_allclose(log_snr.numpy(), expected, rtol=1e-12)
    assert (log_snr.diff() < 0).all()
    torch.testing.assert_close(process.t_of_log_snr(log_snr), t, rtol=1e-12, atol=0)
    torch.testing.assert_close(process.t_of_ratio(process.ratio(t)), t, rtol=1e-12, atol=0)
    torch.testing.assert_close(process.ratio(t), torch.exp(-log_snr / 2), rtol=1e-12, atol=0)


@each
def test_transitions_compose(process):
    """q(t|r) is q(t|s) after q(s|r): factors multiply, and the first variance is carried by the square of the second."""
    r, s, t = inside(process)[[1, 4, 7]]
    first, second, both = process.transition(r, s), process.transition(s, t), process.transition(r, t)
    torch.testing.assert_close(both.alpha, first.alpha * second.alpha)
    torch.testing.assert_close(both.variance, second.alpha**2 * first.variance + second.variance)
    assert second.variance > 0
    start = torch.full_like(t, process.t_min)
    from_start = process.transition(start, t)
    torch.testing.assert_close(from_start.alpha * process.alpha(start), process.alpha(t))
    variance = from_start.variance + (from_start.alpha * process.sigma(start)) ** 2
    torch.testing.assert_close(variance, process.sigma(t) ** 2)


@each
def test_each_element_has_the_value_that_it_has_alone_in_float64(process):
    t = inside(process)[:6].reshape(2, 3)
    names = ("alpha", "sigma", "alpha_dot", "sigma_dot", "ratio", "log_snr")
    for name in names:
        alone = torch.stack([getattr(process, name)(one) for one in t.flatten()]).reshape(2, 3)
        torch.testing.assert_close(getattr(process, name)(t), alone, rtol=1e-15, atol=0)
        assert alone.dtype == torch.float64


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
