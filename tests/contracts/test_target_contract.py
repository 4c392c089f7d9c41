"""What every target promises: x and z come back from what is predicted of them, wherever it says anything of them."""

import pytest
import torch
from implementations import PROCESSES, TARGETS

from undrift.denoise.denoiser import Denoiser
from undrift.denoise.targets import Target, target
from undrift.process import EDM, RectifiedFlow, White

CPU = torch.device("cpu")


@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
@pytest.mark.parametrize("name", TARGETS)
def test_x_and_z_come_back_at_both_ends_and_between(name, process):
    one, t = TARGETS[name], torch.linspace(process.t_min, process.t_max, 9, dtype=torch.float64, device=CPU)
    p_x, p_z, scale = one.row(process, t)
    det = process.alpha(t) * p_z - process.sigma(t) * p_x
    says = (det != 0) & (scale != 0)
    assert says[1:-1].all(), "it says nothing of x and z at a time between the ends"
    t = t[says]
    x, z = torch.randn(2, len(t), 3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64, device=CPU)
    x_t = process.alpha(t)[:, None, None] * x + process.sigma(t)[:, None, None] * z
    predicted = one.of(x, z, process, t)
    assert predicted.shape == x.shape
    predicted = torch.cat([predicted] + [torch.zeros_like(x)] * (one.parts - 1), 1)
    found = one.solve(predicted, x_t, process, t, White())
    # what is small beside the other in x_t is known to that share only
    ratio = process.ratio(t)[:, None, None]
    assert ((found.x - x).abs() <= 1e-10 * (1 + ratio)).all()
    assert ((found.z - z).abs() <= 1e-10 * (1 + 1 / ratio)).all()


class Row(Target):
    """``p_x(t) x + p_z(t) z``."""

    def __init__(self, p_x, p_z):
        self.p_x, self.p_z = p_x, p_z

    def row(self, process, t):
        return self.p_x(t), self.p_z(t), torch.ones_like(t)


def test_a_target_that_is_x_t_at_some_time_is_refused():
    both = Row(torch.ones_like, torch.ones_like)  # x + z: 2 x_t in the middle of straight paths, x_t at sigma 1 of EDM
    for process, at in ((RectifiedFlow(), "0.5"), (EDM(), "0.5")):
        with pytest.raises(ValueError, match=f"predicts Row says no more than x_t near t = {at}, .* such as 'v'"):
            Denoiser.from_callable(lambda x, t: x, predicts=both, process=process)
    steep = Row(lambda t: torch.ones_like(t), lambda t: torch.full_like(t, 0.4321))  # alpha / sigma is 1 / 0.4321
    with pytest.raises(ValueError, match="near t = 0.301"):
        target(steep, RectifiedFlow())
    apart = Row(lambda t: torch.ones_like(t), lambda t: -torch.ones_like(t))  # x - z, minus the velocity
    assert target(apart, RectifiedFlow()) is apart
