"""Sets of points of varying size: what pads a set has no weight, no influence, and the score is that of the set."""

import pytest
import torch
from torch import nn

from undrift.denoise.denoiser import Denoiser
from undrift.objective import ScoreMatching, Simple, Uniform
from undrift.process import EDM
from undrift.tasks.batch import Batch, Condition
from undrift.train.loop import train
from undrift.train.settings import Settings
from undrift.train.step import key_of

MOST, SHARED, OWN = 4, 1.0, 0.5  # points of a set; variances of their common centre and of each about it
PROCESS, T = EDM(), 0.5  # sigma = 1


class Pooled(nn.Module):
    """``a x_i + b_n mean x``, over the points that are there."""

    def __init__(self):
        super().__init__()
        self.own = nn.Parameter(torch.zeros((), dtype=torch.float64))
        self.pooled = nn.Parameter(torch.zeros(MOST + 1, dtype=torch.float64))

    def forward(self, x, label, condition):
        there = condition.fields["there"]
        count = there.sum(1, keepdim=True)
        mean = (x * there).sum(1, keepdim=True) / count
        return self.own * x + self.pooled[count.long()] * mean


def sets(number, count=512, pad=0.0):
    """A batch of sets (B, points, 2) of 1 to 4 points, the rest filled with a number."""
    generator = torch.Generator().manual_seed(key_of(0, "sets", number))
    sizes = torch.randint(1, MOST + 1, (count, 1, 1), generator=generator)
    there = (torch.arange(MOST)[None, :, None] < sizes).double()
    centre, each = (torch.randn(count, n, 2, generator=generator, dtype=torch.float64) for n in (1, MOST))
    x = there * (SHARED**0.5 * centre + OWN**0.5 * each) + (1 - there) * pad
    weight = there.expand_as(x)
    return Batch(x, Condition({"there": there}), weight, torch.zeros(count, dtype=torch.long))


def model(net):
    return Denoiser.from_callable(net, predicts="x", process=PROCESS)


OBJECTIVE = ScoreMatching(Simple("x"), Uniform(T, T))


def test_the_minimiser_is_the_posterior_mean_of_a_set_of_each_size():
    net = Pooled()
    settings = Settings(steps=1000, learning_rate=2e-2, weight_decay=0.0, ema=0.2)
    trained = train(net, lambda batch, net, key: OBJECTIVE(batch, model(net), key), sets, settings=settings)
    own = OWN / (OWN + 1)
    assert trained.net.own.item() == pytest.approx(own, abs=0.02)
    for n in range(1, MOST + 1):
        whole = OWN + n * SHARED  # variance of the sum over the points, over n
        assert trained.net.pooled[n].item() == pytest.approx(whole / (whole + 1) - own, abs=0.03), n


def test_what_pads_a_set_changes_nothing():
    net = Pooled()
    with torch.no_grad():
        net.own.fill_(0.3), net.pooled.fill_(0.2)
    empty, full = sets(3), sets(3, pad=1e6)
    losses = [OBJECTIVE(batch, model(net), 7)[0] for batch in (empty, full)]
    assert torch.equal(*losses)
    there = empty.condition.fields["there"].bool().expand_as(empty.x)
    t = torch.full((len(empty),), T, dtype=torch.float64)
    found = [model(net)(batch.x, t, batch.condition).score[there] for batch in (empty, full)]
    assert torch.equal(*found)


def test_the_loss_is_a_mean_over_the_points_that_are_there():
    """With the estimate 0 it is the mean square of the points, whatever the size: sets of one point are not damped."""
    batch = sets(5, count=40_000)
    losses, _ = OBJECTIVE(batch, model(Pooled()), 1)
    sizes = batch.condition.fields["there"].sum((1, 2))
    for n in range(1, MOST + 1):
        assert losses[sizes == n].mean().item() == pytest.approx(SHARED + OWN, rel=0.05)
