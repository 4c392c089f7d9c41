"""A model of one step: a network that learns where the flow of a many-step denoiser ends."""

import pytest
import torch

from undrift.denoise.denoiser import Denoiser
from undrift.denoise.estimate import Estimate, along
from undrift.denoise.exact import Mixture
from undrift.infer import sample
from undrift.nets import MLP
from undrift.process import EDM
from undrift.solve.ancestral import DDIM
from undrift.solve.grid import EvenTime
from undrift.tasks.batch import Condition
from undrift.train.settings import Settings
from undrift.train.tensors import fit

TEACHER = Mixture([[-1.5, 0.0], [1.5, 1.0]], 0.5, process=EDM(sigma_max=20.0))


class OneStep(Denoiser):
    """The end of the path through x_t, in place of a mean: an estimate of the kind "end"."""

    def __init__(self, net):
        self.net, self.process = net, TEACHER.process

    def __call__(self, x_t, t, condition=None):
        sigma = along(self.process.sigma(t), x_t)
        x = self.net(x_t / torch.hypot(sigma, torch.ones_like(sigma)), t.to(x_t.dtype))
        return Estimate(x, (x_t - x) / sigma, self.process, t, kind="end")


def distance(batch, model, key):
    """Luhman & Luhman (2021), https://arxiv.org/abs/2101.02388, eq. 7: the teacher's end against the student's."""
    start = batch.condition.vectors["start"]
    t = torch.full((len(start),), model.process.t_max, dtype=torch.float64)
    return (model(start, t).x - batch.x).square().sum(1), {}


def test_one_call_ends_where_the_flow_does():
    starts = 20 * torch.randn(9000, 2, generator=torch.Generator().manual_seed(0))
    ends = sample(TEACHER, starts, nfe=30).x
    torch.manual_seed(0)
    student = OneStep(MLP(2, width=64, layers=2))
    fit(
        student.net,
        distance,
        ends[:8000],
        Condition(vectors={"start": starts[:8000]}),
        model=student,
        settings=Settings(steps=800, learning_rate=5e-3, weight_decay=0.0),
    )
    draw = sample(student, starts[8000:], nfe=1, solver=DDIM(), grid=EvenTime())
    assert draw.nfe == 1 and student(starts[:1], torch.tensor([0.5], dtype=torch.float64)).kind == "end"
    with pytest.raises(TypeError, match="an end point has no score"):
        _ = student(starts[:1], torch.tensor([0.5], dtype=torch.float64)).score
    error = (draw.x - ends[8000:]).square().sum(1)
    spread = ends.var(0).sum()
    assert error.mean() < 0.01 * spread
    # and the law of what it draws: shares of the two modes within 4 binomial standard errors
    right = (draw.x[:, 0] > 0).double().mean()
    assert abs(right - 0.5) < 4 * 0.5 / 1000**0.5
