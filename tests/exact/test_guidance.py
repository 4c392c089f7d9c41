"""Guided denoisers against mixtures whose conditional laws, classifiers and scores are written down here."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from undrift.denoise.denoiser import Denoiser
from undrift.denoise.estimate import Estimate
from undrift.denoise.exact import Gaussian, Mixture
from undrift.guide import ClassifierFree, ClassifierGuidance, NoisyClassifier, Replacement
from undrift.infer import sample
from undrift.nets import MLP
from undrift.objective import CrossEntropy, Dropping, FlowMatching, Uniform
from undrift.process import EDM, Coloured, RectifiedFlow
from undrift.tasks.batch import Batch, Condition
from undrift.train.settings import Settings
from undrift.train.tensors import fit
from undrift.verify.reliability import reliability

CPU = torch.device("cpu")
MEANS = torch.tensor([[-1.5, 0.0], [0.5, 1.0], [1.0, -1.0], [-0.5, 0.5]], dtype=torch.float64, device=CPU)
STDS = torch.tensor([0.4, 0.7, 0.5, 0.9], dtype=torch.float64, device=CPU)
WEIGHTS = torch.tensor([0.3, 0.2, 0.1, 0.4], dtype=torch.float64, device=CPU)
CLASS = torch.tensor([0, 0, 1, 2], device=CPU)  # of each component


def log_joint(x_t, t, process):
    """``log p(x_t, c)``, (B, 3)."""
    alpha, sigma = process.alpha(t)[:, None], process.sigma(t)[:, None]
    variance = alpha**2 * STDS**2 + sigma**2
    square = ((x_t[:, None] - alpha[..., None] * MEANS) ** 2).sum(-1)
    parts = WEIGHTS.log() - square / (2 * variance) - torch.log(2 * math.pi * variance)
    return torch.stack([torch.logsumexp(parts[:, c == CLASS], 1) for c in range(3)], 1)


def gradient(values, x_t):
    return torch.autograd.grad(values.sum(), x_t, retain_graph=True)[0]


class Labelled(Denoiser):
    """The exact denoiser of the class that a one-hot label names, and of all where it is 0."""

    def __init__(self, process):
        self.process = process
        self.laws = [Mixture(MEANS, STDS, WEIGHTS, process)]
        self.laws += [Mixture(MEANS[c == CLASS], STDS[c == CLASS], WEIGHTS[c == CLASS], process) for c in range(3)]

    def __call__(self, x_t: Tensor, t: Tensor, condition: Condition | None = None) -> Estimate:
        label = condition.vectors["label"]
        which = torch.where(label.sum(1) > 0, 1 + label.argmax(1), 0)
        found = [law(x_t, t) for law in self.laws]
        rows = torch.arange(len(x_t), device=CPU)
        x, z = (torch.stack([getattr(f, name) for f in found])[which, rows] for name in "xz")
        return Estimate(x, z, self.process, t)


def problem(count=6):
    generator = torch.Generator().manual_seed(0)
    x_t = torch.randn(count, 2, generator=generator, dtype=torch.float64).requires_grad_()
    t = torch.linspace(0.1, 0.9, count, dtype=torch.float64, device=CPU)
    label = torch.arange(count, device=CPU) % 3
    return x_t, t, label, Condition({}, {"label": torch.nn.functional.one_hot(label, 3).double()})


each = pytest.mark.parametrize("process", [EDM(), RectifiedFlow()], ids=["EDM", "rectified flow"])


@each
@pytest.mark.parametrize("w", [-0.5, 0.0, 2.0])
def test_classifier_free_guidance_mixes_two_scores(process, w, agrees):
    """``(1 + w) grad log p(x_t | c) - w grad log p(x_t)``, Ho & Salimans 2022, eq. 6."""
    x_t, t, label, condition = problem()
    joint = log_joint(x_t, t, process)
    given = gradient(joint[range(6), label], x_t)
    expected = (1 + w) * given - w * gradient(torch.logsumexp(joint, 1), x_t)
    guided = ClassifierFree(Labelled(process), w)
    found = guided(x_t, t, condition)
    against = "autograd of log p(x_t, c)"
    agrees(ClassifierFree, "score", against, found.score.detach(), expected, rtol=1e-11, atol=1e-11)
    alpha, sigma = process.alpha(t)[:, None], process.sigma(t)[:, None]
    x = (x_t + sigma**2 * expected) / alpha
    agrees(
        ClassifierFree, "x, of the same x_t", "Tweedie's formula", found.x.detach(), x.detach(), rtol=1e-11, atol=1e-11
    )
    _, back = guided.pullback(x_t, t, condition)
    push = torch.ones_like(x_t)
    (slope,) = torch.autograd.grad(found.x, x_t, push)
    torch.testing.assert_close(back(push), slope, rtol=1e-11, atol=1e-11)


@each
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_classifier_guidance_adds_the_gradient_of_the_classifier(process, scale, agrees):
    """With the exact classifier and scale 1, the exact conditional score."""
    x_t, t, label, condition = problem()
    joint = log_joint(x_t, t, process)
    marginal, given = gradient(torch.logsumexp(joint, 1), x_t), gradient(joint[range(6), label], x_t)
    law = Mixture(MEANS, STDS, WEIGHTS, process)
    guided = ClassifierGuidance(law, lambda x, at: log_joint(x, at, process) + 3.0, label, scale)
    with torch.no_grad():
        found = guided(x_t, t)
    expected = marginal + scale * (given - marginal)
    agrees(ClassifierGuidance, "score", "autograd of log p(x_t, c)", found.score, expected, rtol=1e-11, atol=1e-12)
    if scale == 1:
        exact = Labelled(process)(x_t, t, condition).x.detach()
        agrees(ClassifierGuidance, "x at scale 1", "the denoiser of the class", found.x, exact, rtol=1e-11, atol=1e-12)


def test_the_pullback_sees_the_curvature_of_the_classifier():
    process, h = EDM(), 1e-5
    x_t, t, label, _ = problem()
    guided = ClassifierGuidance(Mixture(MEANS, STDS, WEIGHTS, process), lambda x, at: log_joint(x, at, process), label)
    push = torch.ones_like(x_t)
    ends = [guided(x_t.detach() + s * h * push, t).x.detach() for s in (1, -1)]
    slope = ((ends[0] - ends[1]) / (2 * h)).sum(1)
    jacobian = torch.stack([guided.pullback(x_t, t)[1](w.expand(6, 2)) for w in torch.eye(2, dtype=torch.float64)], 1)
    torch.testing.assert_close(jacobian.sum((1, 2)), slope, rtol=1e-6, atol=1e-6)


def test_a_guided_run_draws_from_the_class(agrees):
    process = RectifiedFlow()
    law = Mixture(MEANS, STDS, WEIGHTS, process)
    guided = ClassifierGuidance(law, lambda x, at: log_joint(x, at, process), 1)
    x_1 = torch.randn(50, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    draw = sample(guided, x_1, nfe=40)
    # class 1 is one Gaussian, whose flow keeps standardised coordinates
    agrees(
        ClassifierGuidance,
        "the end of a run, 40 calls",
        "the flow of the class",
        draw.x,
        MEANS[2] + STDS[2] * x_1,
        rtol=2e-3,
        atol=2e-3,
    )


def test_a_network_sees_numbers_of_order_one(agrees):
    process, seen = RectifiedFlow(), []
    classifier = NoisyClassifier(lambda x, label: seen.append((x, label)), process, sigma_data=2.0)
    x_t, t, *_ = problem()
    classifier(x_t.detach(), t)
    a, s = 1 - t.numpy(), t.numpy()
    c_in = 1 / np.sqrt(4 * a**2 + s**2)
    agrees(
        NoisyClassifier, "what the network sees", "numpy", seen[0][0], c_in[:, None] * x_t.detach().numpy(), rtol=1e-13
    )
    agrees(NoisyClassifier, "its label of time", "numpy", seen[0][1], np.arctan(s / a), rtol=1e-13)


def test_cross_entropy_of_the_noisy_field(agrees, measured):
    """The loss at what the model was shown, and the law of what it was shown."""
    process, seen = RectifiedFlow(), []
    rng = np.random.default_rng(0)
    x, q = rng.normal(size=(4000, 2)), rng.dirichlet([1.0, 1.0, 1.0], size=4000)

    def model(x_t, t):
        seen.append((x_t, t))
        return torch.stack([x_t[:, 0], x_t[:, 1], t], 1)

    batch = Batch.of(torch.tensor(x), Condition({}, {"label": torch.tensor(q)}))
    loss, facts = CrossEntropy(process)(batch, model, 3)
    x_t, t = (v.numpy() for v in seen[0])
    logits = np.stack([*x_t.T, t], 1)
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    agrees(CrossEntropy, "loss of soft labels", "numpy", loss, -(q * log_p).sum(1), rtol=1e-12)
    assert float(facts["accuracy"]) == pytest.approx((logits.argmax(1) == q.argmax(1)).mean())
    z = ((x_t - (1 - t[:, None]) * x) / t[:, None]).ravel()
    measured(CrossEntropy, "mean of z, standard errors", "0", 0, z.mean() * len(z) ** 0.5, within=4.5)
    measured(CrossEntropy, "variance of z, standard errors", "1", 0, (z.var() - 1) * (len(z) / 2) ** 0.5, within=4.5)


def test_reliability_by_hand():
    found = reliability([0.05, 0.1, 0.3, 0.35, 1.0], [0, 1, 0, 1, 1], bins=4)
    np.testing.assert_allclose(found.probability, [0.075, 0.325, np.nan, 1.0])
    np.testing.assert_allclose(found.frequency, [0.5, 0.5, np.nan, 1.0])
    np.testing.assert_array_equal(found.count, [2, 2, 0, 1])
    first = np.sqrt(0.05 * 0.95 + 0.1 * 0.9) / 2
    second = np.sqrt(0.3 * 0.7 + 0.35 * 0.65) / 2
    np.testing.assert_allclose(found.error, [first, second, np.nan, 0.0])
    with pytest.raises(ValueError, match="2 probabilities and 1 outcomes"):
        reliability([0.1, 0.2], [1])


def drawn(count, seed):
    """Fields and classes of the mixture."""
    generator = torch.Generator().manual_seed(seed)
    which = torch.multinomial(WEIGHTS, count, replacement=True, generator=generator)
    x = MEANS[which] + STDS[which, None] * torch.randn(count, 2, generator=generator, dtype=torch.float64)
    return x.float(), CLASS[which]


def test_a_trained_classifier_is_calibrated(measured):
    """Frequencies by bins of its probabilities, on held-out fields at held-out times, and the probabilities themselves."""
    process = RectifiedFlow()
    torch.manual_seed(0)
    net = MLP(2, width=64, layers=2, embedding=8)
    classifier = NoisyClassifier(net, process, sigma_data=1.2)
    x, label = drawn(20000, 1)
    first = (label == 0).float()
    label = Condition({}, {"label": torch.stack([first, 1 - first], 1)})
    settings = Settings(steps=500, learning_rate=2e-2, weight_decay=0)
    fit(net, CrossEntropy(process), x, label, model=classifier, settings=settings, batch=512)

    x, label = drawn(4000, 2)
    first = (label == 0).float()
    generator = torch.Generator().manual_seed(3)
    t = Uniform()(len(x), process, generator)
    x_t = (
        process.alpha(t)[:, None] * x + process.sigma(t)[:, None] * torch.randn(x.shape, generator=generator)
    ).float()
    with torch.no_grad():
        p = torch.softmax(classifier(x_t, t), 1)[:, 0]
    diagram = reliability(p, first)
    away = np.abs(diagram.frequency - diagram.probability) / diagram.error
    measured(
        CrossEntropy, "largest error of a bin, standard errors", "reliability of a fit", 0, np.nanmax(away), within=3
    )
    assert (diagram.count > 100).sum() >= 8
    exact = torch.softmax(log_joint(x_t.double(), t, process), 1)[:, 0]
    error = float((p - exact).abs().mean())
    measured(
        NoisyClassifier, "probabilities after a fit, mean error", "p(c | x_t) of the mixture", 0, error, within=0.03
    )


def test_dropped_rows_are_drawn_apart_from_times(measured):
    seen = {}

    def inner(batch, model, key):
        seen.update(
            batch=batch,
            t=Uniform(low_discrepancy=False)(len(batch), EDM(), torch.Generator().manual_seed(key)),
            key=key,
        )
        return batch.x.sum(1), {}

    x = torch.randn(8000, 2, generator=torch.Generator().manual_seed(0))
    given = Condition({"map": torch.ones(8000, 1, 3)}, {"label": torch.ones(8000, 2)})
    loss, _ = Dropping(inner, 0.3)(Batch.of(x, given), None, 11)
    assert (
        torch.equal(loss, x.sum(1)) and seen["key"] == 11 and torch.equal(given.fields["map"], torch.ones(8000, 1, 3))
    )
    kept = seen["batch"].condition.vectors["label"][:, 0].double()
    assert set(kept.tolist()) == {0.0, 1.0}
    assert torch.equal(seen["batch"].condition.fields["map"], kept.float()[:, None, None].expand(8000, 1, 3))
    spread = (0.3 * 0.7 / 8000) ** 0.5
    measured(
        Dropping, "share of rows, standard errors", "probability", 0, (0.7 - float(kept.mean())) / spread, within=4.5
    )
    together = float(torch.corrcoef(torch.stack([kept, seen["t"]]))[0, 1]) * 8000**0.5
    measured(Dropping, "correlation with the time, standard errors", "0", 0, together, within=4.5)


def test_one_network_learns_the_law_with_and_without_its_label(measured):
    process = RectifiedFlow()
    torch.manual_seed(0)
    net = MLP(2, width=64, layers=2, vector_features=3, embedding=8)
    network = Denoiser.from_callable(
        lambda x, t, given: net(x, t, given.vector()), predicts="velocity", process=process
    )
    x, label = drawn(20000, 1)
    given = Condition({}, {"label": torch.nn.functional.one_hot(label, 3).float()})
    settings = Settings(steps=600, learning_rate=1e-2, weight_decay=0)
    fit(net, Dropping(FlowMatching(), 0.3), x, given, model=network, settings=settings, batch=512)
    x, label = drawn(2000, 2)
    given = Condition({}, {"label": torch.nn.functional.one_hot(label, 3).float()})
    t = torch.full((2000,), 0.5, dtype=torch.float64, device=CPU)
    x_t = 0.5 * x + 0.5 * torch.randn(x.shape, generator=torch.Generator().manual_seed(3))
    for name, condition in {"with its label": given, "without": given.drop()}.items():
        with torch.no_grad():
            error = (network(x_t, t, condition).x - Labelled(process)(x_t, t, condition).x).square().mean().sqrt()
        measured(Dropping, f"x {name} after a fit, error", "exact denoisers", 0, error, within=0.08)


def test_known_cells_are_what_is_known(agrees):
    """In a Gaussian of independent cells the others are as without; a run ends at the known values."""
    process = RectifiedFlow()
    law = Gaussian([0.5, -1.0, 2.0], [1.0, 4.0, 0.25], process)
    x_t, t = (
        torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64),
        torch.tensor([0.0, 0.3, 0.7, 1.0], dtype=torch.float64),
    )
    known = torch.tensor([[math.nan, 3.0, math.nan]], dtype=torch.float64)
    plain, found = law(x_t, t), Replacement(law, known)(x_t, t)
    x = plain.x.clone()
    x[:, 1] = 3.0
    agrees(Replacement, "x", "what is known, else as without", found.x, x, rtol=1e-15)
    z = plain.z.clone()
    z[1:, 1] = (x_t[1:, 1] - (1 - t[1:]) * 3.0) / t[1:]  # nothing ties it where there is no noise
    agrees(Replacement, "z", "(x_t - alpha x) / sigma", found.z, z, rtol=1e-13)
    draw = sample(Replacement(law, known), x_t, nfe=15).x
    agrees(Replacement, "known cells at the end of a run", "what is known", draw[:, 1], [3.0] * 4, rtol=1e-13)
    agrees(
        Replacement,
        "other cells, independent",
        "a run without",
        draw[:, ::2],
        sample(law, x_t, nfe=15).x[:, ::2],
        rtol=1e-13,
    )
    _, back = Replacement(law, known).pullback(x_t, t)
    assert (back(torch.ones_like(x_t))[:, 1] == 0).all() and (back(torch.ones_like(x_t))[1:3, 0] != 0).all()


def test_what_cannot_guide_is_one_sentence():
    law = Gaussian([0.0], [1.0], EDM())
    x_t, t = torch.zeros(2, 1), torch.full((2,), 0.5, dtype=torch.float64)
    with pytest.raises(ValueError, match="nothing is given, expected a condition"):
        ClassifierFree(law, 1.0)(x_t, t)
    with pytest.raises(ValueError, match="weight is -1"):
        ClassifierFree(law, -1.0)
    with pytest.raises(ValueError, match=r"logits are \(2, 1\), expected \(2, K\) with a K above the label 1"):
        ClassifierGuidance(law, lambda x, t: x, 1)(x_t, t)
    coloured = Gaussian(np.zeros(4), np.ones(4), EDM(), noise=Coloured.isotropic((4,), -1.0))
    with pytest.raises(TypeError, match="the noise is Coloured, expected white noise"):
        ClassifierGuidance(coloured, lambda x, t: x, 1)
    with pytest.raises(ValueError, match="known values are"):
        Replacement(law, torch.zeros(1, 2))(x_t, t)
    with pytest.raises(ValueError, match="no NaN where the mask is true"):
        Replacement(law, torch.full((1, 1), math.nan), torch.ones(1, 1))
    batch = Batch.of(torch.zeros(2, 1), Condition({}, {"label": torch.full((2, 2), 0.7)}))
    with pytest.raises(ValueError, match="no probabilities, expected one-hot"):
        CrossEntropy(EDM())(batch, lambda x, t: x, 0)
    with pytest.raises(ValueError, match="has no vector 'class', expected the classes there; its vectors: label"):
        CrossEntropy(EDM(), "class")(batch, lambda x, t: x, 0)
    with pytest.raises(ValueError, match="probability is 1.5"):
        Dropping(CrossEntropy(EDM()), 1.5)
