"""Couplings by optimal transport, of whole batches and among like conditions, and batches that bring their pairs."""

import itertools

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.optimize import linear_sum_assignment

from undrift.denoise.denoiser import Denoiser
from undrift.objective import FlowMatching, ScoreMatching, Uniform
from undrift.process import EDM, ConditionalOT, DataToData, Independent, MinibatchOT, RectifiedFlow
from undrift.process.coupling import condition_weight
from undrift.tasks.batch import Batch, Condition
from undrift.train.settings import Settings
from undrift.train.tensors import fit


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(shape, seed):
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64)


def test_transport_on_a_line_sorts():
    x, base = 3 + 2 * normal((300, 1), 1), DataToData(normal((400, 1), 2))
    z = MinibatchOT(base)(x, generator(3))
    order = x.flatten().argsort()
    assert bool((z.flatten()[order].diff() >= 0).all())
    assert sorted(z.flatten().tolist()) == sorted(base(x, generator(3)).flatten().tolist())


def test_transport_of_gaussians_costs_their_distance(measured):
    """W2^2 of N(m, S) and N(0, 1) is |m|^2 + tr(S + 1 - 2 S^(1/2)); of finite batches it is above, by less for more."""
    factor, mean = np.array([[1.5, 0.4], [0.4, 0.7]]), np.array([2.0, -1.0])
    exact = float(mean @ mean + np.trace(factor @ factor + np.eye(2) - 2 * factor))

    def cost(coupling, rows, seed):
        x = torch.tensor(mean) + normal((rows, 2), seed) @ torch.tensor(factor)
        return float(((x - coupling(x, generator(1000 + seed))) ** 2).sum(1).mean())

    found = np.array([cost(MinibatchOT(), 500, seed) for seed in range(8)])
    error = found.std(ddof=1) / np.sqrt(len(found))
    beyond = 0.05  # 500 points of the plane know their law that well: the distance of two such samples of N(0, 1)
    measured(MinibatchOT, "mean squared displacement of two Gaussians", "their W2^2", exact, found.mean(),
             within=beyond + 4 * error)  # fmt: skip
    alone = np.array([cost(Independent(), 500, seed) for seed in range(8)])
    apart = float(mean @ mean + np.trace(factor @ factor) + 2)
    assert abs(alone.mean() - apart) < 4 * alone.std(ddof=1) / np.sqrt(8)


@pytest.mark.parametrize("seed", [40, 50, 60])
def test_conditional_transport_is_the_best_of_all_permutations(seed, measured):
    x, c, base = normal((6, 2), seed), normal((6, 1), seed + 1), DataToData(normal((9, 2), seed + 2))
    drawn, share = base(x, generator(seed)), 0.4
    far = (x[:, None] - drawn[None]).square().sum(2).numpy()
    apart = (c[:, None] - c[None]).square().sum(2).numpy()
    weight = condition_weight(far, apart, share)
    orders = list(itertools.permutations(range(6)))
    costs = [sum(far[i, j] + weight * apart[i, j] for i, j in enumerate(order)) for order in orders]
    best = orders[int(np.argmin(costs))]
    z = ConditionalOT(base, share)(x, generator(seed), c)
    torch.testing.assert_close(z, drawn[list(best)])
    cost = float((x - z).square().sum()) + weight * sum(apart[i, j] for i, j in enumerate(best))
    measured(ConditionalOT, "cost of six pairs", "all 720 permutations", min(costs), cost, within=1e-9)


@pytest.mark.parametrize("share", [0.02, 0.05, 0.2])
def test_the_weight_of_a_condition_is_that_of_the_share(share):
    x, z, c = normal((200, 2), 8), normal((200, 2), 9), normal((200, 1), 10)
    far = (x[:, None] - z[None]).square().sum(2).numpy()
    apart = (c[:, None] - c[None]).square().sum(2).numpy()
    weight = condition_weight(far, apart, share)
    assert np.mean(far + weight * apart <= np.diag(far)[:, None]) == pytest.approx(share, abs=1e-4)
    assert condition_weight(far, apart, 1.0) == 0
    assert weight > condition_weight(far, apart, 2 * share) > 0


def test_conditional_transport_weighs_a_condition_by_that_weight():
    x, c, base = normal((80, 2), 30), normal((80, 1), 31), DataToData(normal((80, 2), 32))
    drawn = base(x, generator(33))
    far = (x[:, None] - drawn[None]).square().sum(2).numpy()
    apart = (c[:, None] - c[None]).square().sum(2).numpy()
    best = linear_sum_assignment(far + condition_weight(far, apart, 0.1) * apart)[1]
    torch.testing.assert_close(ConditionalOT(base, 0.1)(x, generator(33), c), drawn[best])


def test_classes_are_never_crossed_and_z_tells_nothing_of_them(measured):
    """Each x has a z that was drawn for its class, so that the law of z is the same in both: not so by plain transport."""
    rng = np.random.default_rng(0)
    c = torch.tensor(rng.choice([-1.0, 1.0], size=(1000, 1)))
    x = 3 * c + 0.5 * normal((1000, 1), 11)
    base = DataToData(normal((1000, 1), 12))
    drawn, z = base(x, generator(13)), ConditionalOT(base)(x, generator(13), c)
    for one in (-1.0, 1.0):
        rows = (c == one).flatten()
        assert sorted(z[rows].flatten().tolist()) == sorted(drawn[rows].flatten().tolist())
        order = x[rows].flatten().argsort()
        assert bool((z[rows].flatten()[order].diff() >= 0).all())
    p = stats.ks_2samp(z[c > 0].numpy(), z[c < 0].numpy()).pvalue
    measured(ConditionalOT, "p of z of two classes", "one law, Kolmogorov and Smirnov", "≥ 1e-3", p, least=1e-3)
    other = MinibatchOT(base)(x, generator(13))
    assert stats.ks_2samp(other[c > 0].numpy(), other[c < 0].numpy()).pvalue < 1e-100


def test_the_z_of_a_number_are_hardly_told_by_it():
    """The correlation of z with c is .9 by plain transport, and small of a small share."""
    c = normal((800, 1), 14)
    x = 2 * c + 0.3 * normal((800, 1), 15)

    def told(coupling):
        z = coupling(x, generator(16), c)
        return abs(float(np.corrcoef(z.flatten(), c.flatten())[0, 1])), float((x - z).square().mean())

    plain, alone, some = told(MinibatchOT()), told(Independent()), told(ConditionalOT(share=0.02))
    assert plain[0] > 0.9
    assert some[0] < alone[0] + 0.05
    assert plain[1] < some[1] < alone[1]


def test_a_matched_flow_of_gaussians_is_straight():
    """Of N(2, 1/4) each velocity is z - x = z / 2 - 2: a network of it ends where x is by one step or by many."""
    x = 2 + 0.5 * normal((600, 1), 17)
    z = MinibatchOT()(x, generator(18))
    t = torch.linspace(0, 1, 9, dtype=torch.float64)
    paths = (1 - t) * x + t * z
    slope = np.polyfit(paths[:, 8], paths[:, 0], 1)
    np.testing.assert_allclose(slope, [0.5, 2.0], atol=0.08)
    across = paths - (1 - t) * (0.5 * z + 2) - t * z
    assert float(across.square().mean().sqrt()) < 0.08
    alone = Independent()(x, generator(18))
    assert float((x - 0.5 * alone - 2).square().mean().sqrt()) > 0.4


def test_a_batch_brings_its_pairs():
    """The loss is that of the pairs: x_t and the velocity are of the batch's own z."""
    x, z = normal((6, 2), 19), normal((6, 2), 20)
    seen = []

    def network(x_t, t):
        seen.append((x_t, t))
        return torch.zeros_like(x_t)

    model = Denoiser.from_callable(network, predicts="velocity", process=RectifiedFlow())
    loss, _ = FlowMatching()(Batch.of(x, z=z), model, 0)
    torch.testing.assert_close(loss, (z - x).square().mean(1))
    ((x_t, t),) = seen
    torch.testing.assert_close(x_t, (1 - t[:, None]) * x + t[:, None] * z)
    with pytest.raises(ValueError, match="has a coupling of its own; use FlowMatching"):
        FlowMatching(MinibatchOT())(Batch.of(x, z=z), model, 0)
    noisy = Denoiser.from_callable(network, predicts="eps", process=EDM())
    with pytest.raises(ValueError, match="needs z that does not know x"):
        ScoreMatching()(Batch.of(x, z=z), noisy, 0)


def test_pairs_stay_pairs_in_a_training():
    """Of z = 3 x a linear velocity 2 x_t / (1 + 2 t) is learned at t = 1/2 with slope 1, whichever rows are drawn."""
    x = normal((200, 1), 21).float()
    net = torch.nn.Linear(1, 1)
    model = Denoiser.from_callable(lambda x_t, t: net(x_t), predicts="velocity", process=RectifiedFlow())
    objective = FlowMatching(times=Uniform(0.5, 0.5))
    settings = Settings(steps=300, learning_rate=0.1, weight_decay=0.0, ema=0.05)
    fit(net, objective, x, z=3 * x, model=model, settings=settings, batch=64)
    np.testing.assert_allclose([net.weight.item(), net.bias.item()], [1.0, 0.0], atol=1e-3)
    with pytest.raises(ValueError, match=r"z is \(199, 1\), expected the shape of x"):
        fit(net, objective, x, z=x[1:], model=model, settings=Settings(steps=1))


def test_what_conditional_transport_cannot_do_is_refused():
    x = normal((4, 1), 22)
    with pytest.raises(ValueError, match=r"nothing is; use MinibatchOT\(\)"):
        ConditionalOT()(x, generator())
    with pytest.raises(ValueError, match=r"differs in all 4 rows; type ConditionalOT\(share=0.05\)"):
        ConditionalOT()(x, generator(), x)
    with pytest.raises(ValueError, match="share is 0, expected above 0"):
        ConditionalOT(share=0)
    with pytest.raises(ValueError, match="base is MinibatchOT, whose z know x"):
        ConditionalOT(MinibatchOT())
    model = Denoiser.from_callable(lambda x_t, t, given=None: x_t, predicts="velocity", process=RectifiedFlow())
    told = Condition({"map": torch.ones(4, 1, dtype=torch.float64)})
    assert torch.isfinite(FlowMatching(ConditionalOT())(Batch.of(x, told), model, 0)[0]).all()
