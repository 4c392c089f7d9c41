"""What every denoiser and every guess keeps."""

import pytest
import torch
from implementations import CPU, PROCESSES, constraints, denoisers, guesses, guided, guides

from undrift.denoise.targets import named
from undrift.process import FromSchedule, White
from undrift.tasks.batch import Condition

DENOISERS, GUESSES, CONSTRAINTS = denoisers(), guesses(), constraints()
ALL = DENOISERS | guided() | guides()
each = pytest.mark.parametrize("denoiser", [case.denoiser for case in ALL.values()], ids=ALL)
plain = pytest.mark.parametrize("denoiser", [case.denoiser for case in DENOISERS.values()], ids=DENOISERS)


def problem(denoiser, count=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    t = torch.linspace(0.1, 0.9 * denoiser.process.t_max, count, dtype=torch.float64, device=CPU)
    sigma = denoiser.process.sigma(t).float()[:, None, None, None]
    x_t = torch.randn(count, 2, 4, 6, generator=generator, device=CPU) * (1 + sigma)
    fields = {"given": torch.randn(count, 1, 4, 6, generator=generator, device=CPU)}
    vectors = {"covariates": torch.randn(count, 2, generator=generator, device=CPU)}
    return x_t, t, Condition(fields, vectors)


def start_of(process):
    return torch.tensor(process.t_min, dtype=torch.float64, device=CPU)


@each
@torch.no_grad()
def test_the_pair_explains_the_noisy_field(denoiser):
    """x_t = alpha x + sigma z, in the dtype of x_t."""
    x_t, t, condition = problem(denoiser)
    estimate = denoiser(x_t, t, condition)
    alpha, sigma = (v(t)[:, None, None, None] for v in (denoiser.process.alpha, denoiser.process.sigma))
    torch.testing.assert_close((alpha * estimate.x + sigma * estimate.z).float(), x_t, rtol=1e-5, atol=1e-5)
    assert estimate.x.dtype == estimate.z.dtype == x_t.dtype


@pytest.mark.parametrize("case", ALL.values(), ids=ALL)
@torch.no_grad()
def test_a_row_has_its_own_time_and_its_own_given(case):
    denoiser = case.denoiser
    x_t, t, condition = problem(denoiser)
    together = denoiser(x_t, t, condition)
    for i in range(len(x_t)):
        alone = denoiser(x_t[i : i + 1], t[i : i + 1], condition.index(torch.tensor([i], device=CPU)))
        torch.testing.assert_close(alone.x, together.x[i : i + 1], rtol=1e-5, atol=1e-5)
    if not case.given:
        return
    other = Condition({"given": condition.fields["given"].roll(1, 0)}, condition.vectors)
    assert not torch.allclose(denoiser(x_t, t, other).x, together.x)
    other = Condition(condition.fields, {"covariates": condition.vectors["covariates"].roll(1, 0)})
    assert not torch.allclose(denoiser(x_t, t, other).x, together.x)


@plain
@torch.no_grad()
def test_almost_no_noise_leaves_the_field(denoiser):
    x_t, t, condition = problem(denoiser)
    x_t = torch.randn(x_t.shape, generator=torch.Generator().manual_seed(3), device=CPU)
    estimate = denoiser(x_t, torch.full_like(t, 1e-4), condition)
    torch.testing.assert_close(estimate.x, x_t, rtol=0, atol=3e-3)


@pytest.mark.parametrize("name", [name for name, process in PROCESSES.items() if process.clean(start_of(process))])
@pytest.mark.parametrize("predicts", ["eps", "x", "v", "velocity", "score", "F"])
def test_without_noise_x_is_the_field_over_alpha_whatever_is_predicted(name, predicts):
    """Beside a row with noise, which does not notice."""
    process, x = PROCESSES[name], torch.tensor([[0.3, -2.0]], dtype=torch.float64)
    t = torch.stack([start_of(process), torch.tensor(0.5, dtype=torch.float64)])
    alpha, sigma = process.alpha(t)[:, None] * 0.7, process.sigma(t)[:, None]  # of a process that begins at 0.7 x
    scaled = FromSchedule(lambda t: 0.7 * process.alpha(t), process.sigma, process.t_min, process.t_max)
    x_t = alpha * x + sigma * 1.5
    one = named(predicts)
    prediction = one.of(x.expand(2, 2), torch.full_like(x_t, 1.5), scaled, t)
    prediction[0] = 5.0
    found = one.solve(prediction, x_t, scaled, t, White())
    torch.testing.assert_close(found.x, x.expand(2, 2), rtol=1e-12, atol=1e-12)


@each
def test_the_pullback_carries_gradients_back(denoiser):
    """Against a central difference of the sum of x times a field."""
    x_t, t, condition = problem(denoiser, count=2)
    weight = torch.randn(x_t.shape, generator=torch.Generator().manual_seed(5), device=CPU)
    push = torch.randn(x_t.shape, generator=torch.Generator().manual_seed(6), device=CPU)
    estimate, back = denoiser.pullback(x_t, t, condition)
    torch.testing.assert_close(estimate.x, denoiser(x_t, t, condition).x)
    with torch.no_grad():
        step = 2e-3
        ends = [denoiser(x_t + sign * step * push, t, condition).x.double() for sign in (1, -1)]
        slope = float(((ends[0] - ends[1]) * weight).sum()) / (2 * step)
    assert float((back(weight).double() * push).sum()) == pytest.approx(slope, rel=5e-3, abs=5e-3)


@pytest.mark.parametrize("constraint", CONSTRAINTS.values(), ids=CONSTRAINTS)
def test_a_projection_is_the_nearest_point_of_a_convex_set(constraint):
    """It stays, and every point of the set is on the other side of it: ``(x - P x) . (P y - P x) <= 0``."""
    generator = torch.Generator().manual_seed(7)
    x, y = (3 * torch.randn(4, 2, 4, 6, generator=generator, dtype=torch.float64, device=CPU) for _ in range(2))
    near, other = constraint.project(x), constraint.project(y)
    torch.testing.assert_close(constraint.project(near), near, rtol=1e-7, atol=1e-7)
    assert float(constraint.residual(near).max()) < 1e-7 < 1e-3 < float(constraint.residual(x).min())
    along = ((x - near) * (other - near)).flatten(1).sum(1)
    assert float(along.max()) < 1e-6 * float((x - near).norm() * (other - near).norm())
    alone = torch.cat([constraint.project(row[None]) for row in x])
    torch.testing.assert_close(alone, near, rtol=1e-12, atol=1e-12)
    assert constraint.project(x.float()).dtype == torch.float32


@pytest.mark.parametrize("guess", GUESSES.values(), ids=GUESSES)
def test_a_guess_is_consistent_with_itself(guess):
    """Tweedie: the trace of the posterior covariance is r^2 times the divergence of the denoiser."""
    for r in (0.1, 1.0, 9.0):
        ratio = torch.full((48,), r, dtype=torch.float64, device=CPU)
        basis = torch.eye(48, dtype=torch.float64, device=CPU).reshape(48, 2, 4, 6)
        divergence = guess.denoise(basis, ratio).reshape(48, 48).trace()
        variance = guess.posterior_variance(ratio[:1], 48)
        torch.testing.assert_close(variance[0], r**2 * divergence / 48, rtol=1e-5, atol=0)
    torch.testing.assert_close(guess.posterior_variance(torch.tensor([1e6], **ratio_type()), 48)[0], guess.total(48))


def ratio_type():
    return {"dtype": torch.float64, "device": CPU}
