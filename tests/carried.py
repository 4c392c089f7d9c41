"""A flow of points integrated by hand: what its log-density is held against."""

import copy

import numpy as np
import torch

from undrift.distributions.point_flow import PointFlow


def carried_back(flow, y, steps):
    """Where the learned velocity carries points (n, D) from t = 0 to 1, and the integral of its divergence, (n,).

    By the classical Runge-Kutta method in double precision.
    """
    denoiser = PointFlow("flow-matching", copy.deepcopy(flow.net).double()).denoiser

    def velocity(x, t):
        x = x.detach().requires_grad_()
        t = min(max(t, 1e-7), 1 - 1e-9)
        with torch.enable_grad():
            v = (x - denoiser(x, torch.full((len(x),), t, dtype=torch.float64)).x) / t
            trace = sum(torch.autograd.grad(v[:, i].sum(), x, retain_graph=True)[0][:, i] for i in range(x.shape[1]))
        return v.detach(), trace.detach()

    x, change, h = torch.from_numpy(y), 0.0, 1 / steps
    for t in np.arange(steps) * h:
        v1, r1 = velocity(x, t)
        v2, r2 = velocity(x + h / 2 * v1, t + h / 2)
        v3, r3 = velocity(x + h / 2 * v2, t + h / 2)
        v4, r4 = velocity(x + h * v3, t + h)
        x, change = x + h / 6 * (v1 + 2 * v2 + 2 * v3 + v4), change + h / 6 * (r1 + 2 * r2 + 2 * r3 + r4)
    return x.numpy(), change.numpy()
