"""The prediction of latents given more: frames of their window, or the states before them.

Each function also tells what the network sees of what is given so.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from undrift.data.encoded import Predicted
from undrift.data.lead_law import LeadLaws
from undrift.data.motion_law import Ahead, MotionLaws
from undrift.data.window_law import WindowLaws

__all__ = ["given_frames", "given_states", "unsure_of_coarse"]

Fields = dict[str, np.ndarray]


def given_frames(
    laws: WindowLaws,
    motion: MotionLaws | None,
    r: np.ndarray,
    there: np.ndarray,
    prediction: Predicted,
    fold: np.ndarray | None,
    window: Sequence[slice],
    ahead: Sequence[Ahead | None],
) -> tuple[Predicted, Fields]:
    """Of windows given parts of them.

    Args:
        laws: of windows.
        motion: law of their frames after the past, or None.
        r: residuals (n, C, *window) of what is known.
        there: where it is.
        prediction: what they are residuals from.
        fold: of each window, whose law was fitted without it; None for that of all.
        window: part of space.
        ahead: what their motion tells of each.
    """
    mean, std = laws.given(r, there, fold, window)
    after = _updated(prediction, mean, std)
    fields = {"asked": ~there, "frames": np.where(there, r, 0.0)}
    if motion is not None:
        carried, reached = motion.put(ahead, there, fold, after.mean, after.std)
        carried = np.where(reached, (carried - prediction.mean) / prediction.std, 0)
        doubt = np.where(there, 0, np.log(after.std / prediction.std))
        fields |= {"carried": carried, "reached": reached, "doubt": doubt}
    fields["expected"] = np.where(there, 0.0, (after.mean - prediction.mean) / prediction.std)
    return after, {k: v.astype(np.float32) for k, v in fields.items()}


def unsure_of_coarse(
    after: Predicted, fields: Fields, before: Predicted, there: np.ndarray, unsure: np.ndarray | None
) -> tuple[Predicted, Fields]:
    """Of windows given parts of them and a coarse sequence that is missing in part.

    Args:
        after: the prediction given these parts.
        fields: what the network sees of them.
        before: the prediction without them.
        there: where windows are known, (n, C, *window).
        unsure: standard deviation that missing coarse values leave, same shape; None where none is missing.
    """
    if unsure is not None:
        after = replace(after, std=np.where(there, after.std, np.hypot(after.std, unsure)))
    doubt = np.where(there, 0, np.log(after.std / before.std)).astype(np.float32)
    expected = fields.pop("expected")
    return after, fields | {"doubt": doubt, "expected": expected}


def given_states(
    laws: LeadLaws,
    r: np.ndarray,
    there: np.ndarray,
    lags: np.ndarray,
    prediction: Predicted,
    fold: np.ndarray | None,
    window: Sequence[slice],
) -> tuple[Predicted, Fields]:
    """Of states given those before them.

    Args:
        laws: of states after a lead.
        r: residuals (n, P, C, *window) of the given states, the initial one last.
        there: where they are known.
        lags: leads in steps of the record, (n,).
        prediction: of the asked states by themselves.
        fold: of each, as of :func:`given_frames`.
        window: part of space.
    """
    mean, std = laws.given(r, there, lags, fold, window)
    fields = {"initial": r.reshape(len(r), -1, *r.shape[3:]), "expected": mean.astype(np.float32)}
    return _updated(prediction, mean, std), fields


def _updated(prediction: Predicted, mean: np.ndarray, std: np.ndarray) -> Predicted:
    """Of latents whose standardised residuals have this mean and standard deviation."""
    return replace(prediction, mean=prediction.mean + prediction.std * mean, std=prediction.std * std)
