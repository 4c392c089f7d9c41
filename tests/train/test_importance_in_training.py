"""What a loss counts where some windows are drawn more often than others."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from undrift.config import Config
from undrift.tasks.batch import Batch
from undrift.train.settings import Settings
from undrift.train.state import TrainState
from undrift.train.step import take_step


def test_each_loss_counts_what_its_draw_is_worth():
    batch = replace(Batch.of(torch.tensor([[1.0], [2.0], [4.0]])), importance=torch.tensor([0.5, 2.0, 0.25]))
    net = nn.Linear(1, 1, bias=False)

    def objective(batch, net, key):
        return net.weight.sum() * batch.x[:, 0], {}

    with torch.no_grad():
        net.weight.fill_(3.0)
    state = TrainState(net, Settings(steps=1))
    outcome = take_step(state, objective, batch, rate=0.0, clip=1e9, seed=0, device=torch.device("cpu"))
    assert outcome.loss == pytest.approx(3 * (0.5 * 1 + 2 * 2 + 0.25 * 4) / 3)
    assert outcome.gradient_norm == pytest.approx((0.5 * 1 + 2 * 2 + 0.25 * 4) / 3)
    assert batch.to("cpu").importance is not None


def test_a_share_is_a_setting_of_the_training():
    assert Config().train.wet is None
    with pytest.raises(ValueError, match="wet"):
        Config().train.wet = 1.0
