import base64

import numpy as np

from undrift.report import training
from undrift.report.training import LOG_RATIO_EDGES, training_plots


def test_bins_of_noise_are_those_of_the_loss():
    """The edges repeated here, because the report may not import torch, are the ones the losses were binned by."""
    from undrift.objective import denoising

    assert LOG_RATIO_EDGES == denoising.LOG_RATIO_EDGES
    centres = np.log(training._centres())
    assert np.all((centres[1:-1] > LOG_RATIO_EDGES[:-1]) & (centres[1:-1] < LOG_RATIO_EDGES[1:]))
    assert centres[0] < LOG_RATIO_EDGES[0] and centres[-1] > LOG_RATIO_EDGES[-1]


def test_rows_as_the_training_logs_them():
    """Validation rows do not enter the training curve, the summary enters neither, empty bins are left out."""
    rows = []
    for i in range(40):
        rows.append({"kind": "train", "step": i, "seconds": i / 2, "loss": 2.0 - i / 50, "loss_by_noise": [None] * 8})
        if i % 10 == 9:
            noise = [None, 0.5, 0.4, 0.3, 0.2, 0.15, 0.12, 0.1]
            rows.append(
                {
                    "kind": "validation",
                    "step": i,
                    "seconds": i / 2,
                    "loss": 50.0,
                    "validation": 50.0,
                    "loss_by_noise": noise,
                }
            )
    rows.append({"kind": "summary", "step": 40, "best_loss": 7.0})
    curve, by_noise = training_plots(rows)
    assert curve.caption == (
        "Loss over 39 steps: 1.98 at first, 1.24 at the end, validation 50.0. "
        "A network that adds nothing to the Gaussian guess it starts from is near 1."
    )
    assert by_noise.caption.startswith("Validation loss")
    assert by_noise.title == "Loss by noise level"
    assert b"<svg" in base64.b64decode(curve.uri.split(",")[1])
    assert list(training._levels(noise)) == training._centres()[1:]


def test_nothing_to_draw():
    """No rows, one row, and rows without losses give no picture and no failure."""
    assert training_plots([]) == [] and training_plots([{"step": 1, "loss": 1.0}]) == []
    assert training_plots([{"step": i, "seconds": i} for i in range(5)]) == []
