"""What every objective keeps: a loss for each sample, fixed by its key, blind to missing cells and to other samples."""

from dataclasses import replace

import pytest
import torch
from implementations import CPU, TIMES, net, objectives

from undrift.objective import LogNormal
from undrift.process import EDM, NCSN, VE, LinearLogSNR
from undrift.tasks.batch import Batch, Condition

CASES = objectives()
each = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def batch(count=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 2, 4, 6, generator=generator, device=CPU)
    fields = {"given": torch.randn(count, 1, 4, 6, generator=generator, device=CPU)}
    vectors = {"covariates": torch.randn(count, 2, generator=generator, device=CPU).softmax(1)}
    fold = torch.arange(count, device=CPU) % 2
    return Batch(x, Condition(fields, vectors), torch.ones_like(x), fold)


@each
def test_one_loss_for_each_sample_fixed_by_the_key(case):
    net_, data = net(), batch()
    model = case.model(net_)
    loss, facts = case.loss(data, model, 7)
    assert loss.shape == (len(data),) and torch.isfinite(loss).all()
    assert torch.equal(case.loss(data, model, 7)[0], loss)
    assert torch.equal(case.loss(data, model, 8)[0], loss) is not case.random
    assert all(not value.requires_grad for value in facts.values())


@each
def test_another_sample_changes_nothing(case):
    net_, data = net(), batch()
    model = case.model(net_)
    x = data.x.clone()
    x[1:] += 5
    first, second = case.loss(data, model, 7)[0], case.loss(replace(data, x=x), model, 7)[0]
    torch.testing.assert_close(first[0], second[0], rtol=1e-5, atol=1e-6)
    assert ((first - second).abs()[1:] > 1e-3).all()


@pytest.mark.parametrize(
    "case", [c for c in CASES.values() if c.of_cells], ids=[k for k, c in CASES.items() if c.of_cells]
)
def test_cells_without_weight_are_no_target(case):
    """The gradient of the loss by the net's output is zero there, and there only."""
    data = batch()
    data.weight[:, :, :2] = 0
    seen = []

    class Watched(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = net()

        def forward(self, x, t, vector):
            seen.append(self.inner(x, t, vector))
            seen[-1].retain_grad()
            return seen[-1]

    case.loss(data, case.model(Watched()), 7)[0].sum().backward()
    gradient = seen[0].grad
    assert (gradient[:, :, :2] == 0).all() and (gradient[:, :, 2:] != 0).all()


@each
def test_the_gradient_is_that_of_finite_differences(case):
    net_, data = net(), batch()
    model = case.model(net_)
    parameter = net_.last.conv.weight
    case.loss(data, model, 7)[0].mean().backward()
    step = 0.1 * parameter.grad / parameter.grad.norm()
    slope = float((parameter.grad * step).sum())
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            parameter.add_(sign * step)
            values.append(float(case.loss(data, model, 7)[0].mean()))
            parameter.sub_(sign * step)
    assert (values[0] - values[1]) / 2 == pytest.approx(slope, rel=1e-2)


@pytest.mark.parametrize("times", TIMES.values(), ids=TIMES)
def test_a_law_of_times_stays_inside_the_process(times):
    process = EDM(5.0)
    t = times(500, process, torch.Generator("cpu").manual_seed(0))
    assert t.dtype == torch.float64 and t.shape == (500,)
    assert ((t >= process.t_min) & (t <= process.t_max)).all() and len(t.unique()) > 400
    assert torch.equal(t, times(500, process, torch.Generator("cpu").manual_seed(0)))


@pytest.mark.parametrize("process", [EDM(80.0, 0.5), NCSN(0.5, 1.0), LinearLogSNR(2.0, -2.0), VE()])
def test_a_law_stays_inside_a_process_that_ends_before_the_data(process):
    t = LogNormal()(10_000, process, torch.Generator("cpu").manual_seed(0))
    assert t.min() >= process.t_min and t.max() <= process.t_max
