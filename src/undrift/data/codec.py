"""From labelled fields to residuals of unit scale, and back.

A field x becomes

    r = (T(x) - prediction) / (scale a exp(c)),

where T is each variable's transform. The prediction is made from what is given: it is linear, and bent near the bounds
of a variable, where c is also not 0 (:mod:`undrift.data.curves`). The scale is the standard deviation per cell of
out-of-fold residuals, and the amplitude a says how lively they are in this state. Missing cells become 0
with weight 0. Values at a point mass (dry cells) have no latent of their own: training draws one anew at each step.
:mod:`undrift.data.codec_fit` and :mod:`undrift.data.prediction_fit` fit all this.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import ndtr, ndtri

from undrift.data.amplitude import Activity, clipped, log_amplitude
from undrift.data.coarse_law import CoarseLaw, with_means
from undrift.data.conserve import conserved, over_blocks
from undrift.data.covariates import Covariates
from undrift.data.curves import Curve
from undrift.data.fields import Fields
from undrift.data.given_law import GivenLaw
from undrift.data.grid import Regridder
from undrift.data.layout import Layout
from undrift.data.lead_law import LeadLaws, lead_features
from undrift.data.linear import Given
from undrift.data.member_law import MemberLaw
from undrift.data.members import one_member
from undrift.data.motion_law import Ahead, MotionLaws
from undrift.data.predictors import Predictors
from undrift.data.season import seasonal
from undrift.data.texture import Texture
from undrift.data.transforms import Transform
from undrift.data.window_law import WindowLaw, WindowLaws

__all__ = ["Codec", "Encoded", "Initial", "Predicted", "base_channels"]


@dataclass(frozen=True)
class Encoded:
    """Windows of samples as numbers.

    Attributes:
        x: residuals (n, C, *window), 0 where missing; None when only the given is asked for.
        weight: 1 where x is known, else 0.
        fields: what is given on the target's grid, by name, (n, c, *window).
        vector: covariates, (n, K).
        blocks: means over blocks that whole fields keep, in the target's units, (n, C, *coarse), NaN where none is
            given; None for windows, and where no channel keeps any.
    """

    x: np.ndarray | None
    weight: np.ndarray | None
    fields: dict[str, np.ndarray]
    vector: np.ndarray
    blocks: np.ndarray | None = None


@dataclass(frozen=True)
class Predicted:
    """What is known of latents before a network is asked.

    Attributes:
        mean: the prediction, (n, C, *window).
        std: standard deviation of what it leaves over, same shape.
    """

    mean: np.ndarray
    std: np.ndarray

    def __getitem__(self, index: Any) -> "Predicted":
        """Part of both."""
        return Predicted(self.mean[index], self.std[index])


@dataclass(frozen=True)
class Initial:
    """States that others are asked after.

    Attributes:
        values: in the data's units, (n, P, C, *window), the initial state last, NaN where missing.
        predicted: what the codec predicts of them by themselves, (n P, C, *window).
        lags: lead of each asked state in steps of the record, (n,).
    """

    values: np.ndarray
    predicted: Predicted
    lags: np.ndarray


class Codec:
    """All that turns fields into the network's numbers and back; made by :func:`undrift.data.codec_fit.fit_codec`.

    Attributes:
        layout: of the target.
        given_layout: of what is given, or None.
        members: members of a date that are given together; the linear predictor sees their mean.
        transforms: one per target channel; given_transforms: one per given channel.
        mask: target cells that never have a value, (C, *space).
        given_mask: given cells that never had a value, (G, *coarse), or None.
        predictor: the linear predictors of the latents.
        curves: channel -> how its law departs from the linear prediction, where it does.
        scale: (C, *space).
        amplitude: weights of the features of the amplitude, (C, 3); zeros where residuals are equally lively always.
        gappy: whether given cells are missing now and then; patchy: whether target cells are. The network sees which.
        factor: cells of the target along each dim in a cell of what is given, where the grids are nested, else None.
        conserves: channels, (C,), whose given namesakes are means over blocks; drawn fields keep them.
        window_laws: of windows of which any part may be given, or None.
        coarse_law: of the coarse windows that are given to them, any part of which may be missing, or None.
        lead_laws: of states after a lead time, or None.
        motion_laws: of the frames of windows after their past, where its motion tells more, or None.
        texture: of the draws at point masses of windows, or None where each cell is drawn on its own.
    """

    def __init__(
        self,
        *,
        layout: Layout,
        given_layout: Layout | None,
        regridder: Regridder | None,
        transforms: Sequence[Transform],
        given_transforms: Sequence[Transform],
        covariates: Covariates,
        predictor: Predictors,
        arrays: Mapping[str, np.ndarray],
    ) -> None:
        self.layout, self.given_layout, self.regridder = layout, given_layout, regridder
        self.transforms, self.given_transforms = list(transforms), list(given_transforms)
        self.covariates, self.predictor = covariates, predictor
        self.mask = arrays["mask"].astype(bool)
        self.scale = arrays["scale"]
        self.mean, self.std = arrays["mean"], arrays["std"]  # of latents per cell, to standardise what the network sees
        self.given_mean, self.given_std = arrays.get("given_mean"), arrays.get("given_std")
        self.coarse_mean, self.coarse_std = arrays.get("coarse_mean"), arrays.get("coarse_std")
        self.static = arrays["static"]
        self.given_low, self.given_high = arrays.get("given_low"), arrays.get("given_high")
        self.given_mask = None if "given_mask" not in arrays else arrays["given_mask"].astype(bool)
        self.gappy = bool(arrays.get("gappy", np.zeros(())))
        self.patchy = bool(arrays.get("patchy", np.zeros(())))
        self.factor = tuple(int(f) for f in arrays["factor"]) if "factor" in arrays else None
        self.conserves = arrays.get("conserves", np.zeros(len(transforms))).astype(bool)
        self.linear = bool(arrays.get("linear", np.ones(())))
        self.members = 1 if given_layout is None else given_layout.members
        self.base = base_channels(layout, None if given_layout is None else one_member(given_layout))
        self.amplitude = arrays.get("amplitude", np.zeros((len(transforms), 3)))
        self.curves = {i: Curve.from_arrays(arrays, f"curve_{i}") for i in range(len(transforms))
                       if f"curve_{i}_knots" in arrays}  # fmt: skip
        self.given_law: GivenLaw | MemberLaw | None = None
        if "law_own_modes" in arrays:
            self.given_law = MemberLaw.from_arrays(arrays, self.members)
        elif "law_modes" in arrays:
            self.given_law = GivenLaw(arrays["law_modes"], arrays["law_variances"], float(arrays["law_floor"]))
        self.coarse_law: CoarseLaw | None = None
        self.season = arrays.get("season")  # see :func:`undrift.data.season.fit_season`
        self.window_laws: WindowLaws | None = None
        if "window_modes" in arrays:
            self.window_laws = WindowLaws([WindowLaw.from_arrays(arrays, "window", layout.shape, layout.periodic)])
        self.texture = Texture.from_arrays(arrays, layout.periodic) if "texture_powers" in arrays else None
        self.motion_laws: MotionLaws | None = None
        if "motion_weights" in arrays:
            self.motion_laws = MotionLaws.from_arrays(arrays, layout.periodic)
        self.lead_laws = LeadLaws.from_arrays(arrays, layout.shape) if "lead_modes" in arrays else None
        self.activity_mean, self.activity_centre = arrays.get("activity_mean"), arrays.get("activity_centre")
        self.low = np.array([t.thresholds[0] for t in transforms]).reshape(-1, *[1] * len(layout.space))
        self.high = np.array([t.thresholds[1] for t in transforms]).reshape(-1, *[1] * len(layout.space))

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays that, with the layouts and transforms, make the codec again."""
        out = {"mask": self.mask.astype(np.int8), "scale": self.scale, "mean": self.mean, "std": self.std}
        out |= {"static": self.static, "gappy": np.array(int(self.gappy)), "linear": np.array(int(self.linear))}
        out |= {"amplitude": self.amplitude, "patchy": np.array(int(self.patchy))}
        if self.factor is not None:
            out |= {"factor": np.array(self.factor), "conserves": self.conserves.astype(np.int8)}
        names = ("given_mean", "given_std", "coarse_mean", "coarse_std", "given_low", "given_high")
        for name in (*names, "activity_mean", "activity_centre"):
            value = getattr(self, name)
            if value is not None:
                out[name] = value
        for i, curve in self.curves.items():
            out |= curve.to_arrays(f"curve_{i}")
        if self.season is not None:
            out["season"] = self.season.astype(np.float32)
        if isinstance(self.given_law, MemberLaw):
            out |= self.given_law.to_arrays()
        elif self.given_law is not None:
            law = self.given_law
            out |= {"law_modes": law.modes, "law_variances": law.variances}
            out["law_floor"] = np.array(law.floor)
        if self.window_laws is not None:
            out |= self.window_laws.laws[-1].to_arrays("window")
        if self.lead_laws is not None:
            out |= self.lead_laws.to_arrays()
        if self.motion_laws is not None:
            out |= self.motion_laws.to_arrays()
        if self.texture is not None:
            out |= self.texture.to_arrays()
        if self.given_mask is not None:
            out["given_mask"] = self.given_mask.astype(np.int8)
        return out

    def widened(self, factor: np.ndarray) -> None:
        """Multiply the standard deviation of what is left of each channel, (C,)."""
        self.scale = self.scale * factor.reshape(-1, *[1] * len(self.layout.space))
        if self.motion_laws is not None:
            self.motion_laws = self.motion_laws.widened(factor.reshape(-1, self.layout.frames))

    @property
    def vector_width(self) -> int:
        """Numbers that the network is told beside fields: covariates, and the lead where there is one."""
        return self.covariates.width + (0 if self.lead_laws is None else 2)

    # what is given

    def each(self, values: np.ndarray) -> np.ndarray:
        """Numbers of given channels (G / K, ...) for each of K members, (G, ...)."""
        return np.repeat(values, self.members, axis=0)

    def apart(self, raw: np.ndarray) -> np.ndarray:
        """Given values (n, G, *coarse) member by member, (n, G / K, K, *coarse)."""
        return raw.reshape(len(raw), -1, self.members, *raw.shape[2:])

    def mask_of_given(self, members: int) -> np.ndarray | None:
        """Given cells (G, *coarse) that never have a value where so many members are given."""
        if self.given_mask is None:
            return None
        mask = self.apart(self.each(self.given_mask)[None])[0].copy()
        mask[:, members:] = True
        return mask.reshape(-1, *self.given_mask.shape[1:])

    def singly(self, raw: np.ndarray) -> np.ndarray:
        """Given values (n, G, *coarse) as single members, (n K, G / K, *coarse)."""
        apart = np.moveaxis(self.apart(raw), 2, 1)
        return apart.reshape(-1, *apart.shape[2:])

    def mixed(self, raw: np.ndarray, draw: np.random.Generator) -> np.ndarray:
        """Given values (n, G, *coarse) with their members in an order that is drawn."""
        return self.apart(raw)[:, :, draw.permutation(self.members)].reshape(raw.shape)

    def gaps(self, raw: np.ndarray) -> np.ndarray:
        """Where given values (n, G, *coarse) are missing that are not always missing."""
        missing = np.isnan(raw)
        return missing if self.given_mask is None else missing & ~self.each(self.given_mask)

    def filled(self, raw: np.ndarray, draw: np.random.Generator | None) -> np.ndarray:
        """Given values (n, G, *coarse) with those in gaps drawn given the others, or their mean without a generator."""
        gaps = self.gaps(raw)
        if self.given_law is None or not gaps.any():
            return raw
        assert self.coarse_mean is not None and self.coarse_std is not None
        out = raw.copy()
        for i in np.flatnonzero(gaps.reshape(len(raw), -1).any(1)):
            latent = np.stack([t.continuous(v) for t, v in zip(self.given_transforms, raw[i])])
            centre, width = self.each(self.coarse_mean), self.each(self.coarse_std)
            z = (latent - centre) / width
            if self.given_mask is not None:
                z[self.each(self.given_mask)] = 0.0
            z = self.given_law.fill(z.ravel(), draw).reshape(z.shape)
            latent = centre + width * z
            drawn = np.stack([t.decode(v) for t, v in zip(self.given_transforms, latent)])
            out[i][gaps[i]] = drawn[gaps[i]]
        return out

    def completed(
        self,
        law: CoarseLaw,
        raw: np.ndarray,
        covariates: Mapping[str, np.ndarray],
        fold: np.ndarray | None,
        draw: np.random.Generator | None,
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Coarse windows (n, G, *coarse) with what is known of missing values in their place.

        Also the standard deviation that this leaves of the latents that are predicted from them, (n, C, *space); None
        where nothing is missing.
        """
        gaps = self.gaps(raw)
        if not gaps.any():
            return raw, None
        assert self.regridder is not None and self.coarse_std is not None
        raw, *ends = law.complete(raw, gaps, covariates, fold, draw)
        low, high = (np.stack([t.continuous(v[:, i]) for i, t in enumerate(self.given_transforms)], 1) for v in ends)
        spread = np.where(gaps, (high - low) / 2, 0)
        frames = self.layout.frames
        of_own = np.nan_to_num(self.regridder(spread))
        share = np.nan_to_num(self.regridder(spread / self.coarse_std)) ** 2
        share = np.sqrt(share.reshape(len(raw), -1, frames, *self.layout.shape).mean(1))
        told = np.sqrt(np.maximum(self.std**2 - self.scale**2, 0))  # what other variables explain where all is given
        unsure = [
            told[c] * np.minimum(share[:, c % frames], 1) if source is None else of_own[:, source]
            for c, source in enumerate(self.base)
        ]
        return raw, np.stack(unsure, 1)

    def given_latents(self, raw: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Given values (n, G, *coarse) as latents on both grids, and where the fine ones are missing."""
        assert self.regridder is not None
        fine_raw = self.regridder(raw)
        coarse = np.stack([t.continuous(raw[:, i]) for i, t in enumerate(self.given_transforms)], 1)
        fine = np.stack([t.continuous(fine_raw[:, i]) for i, t in enumerate(self.given_transforms)], 1)
        return coarse, fine, ~np.isfinite(fine)

    def predictors(
        self,
        raw: np.ndarray | None,
        values: Mapping[str, np.ndarray],
        count: int,
    ) -> tuple[Given, np.ndarray | None]:
        """What the linear predictor is given, and the given latents on the target's grid; ``raw`` has no gaps."""
        shape = self.layout.shape
        base = np.zeros((count, len(self.layout.channels), *shape))
        features = self.covariates.basis(values, count)
        if raw is None:
            return Given(base, None, features), None
        coarse, fine, _ = self.given_latents(raw)
        assert self.coarse_mean is not None and self.coarse_std is not None and self.given_mean is not None
        near = self.apart(fine).mean(2)
        for channel, source in enumerate(self.base):
            if source is not None:
                base[:, channel] = np.where(np.isfinite(near[:, source]), near[:, source], self.mean[channel])
        standard = np.nan_to_num((self.apart(coarse).mean(2) - self.coarse_mean) / self.coarse_std)
        return Given(base, standard, features), fine

    def blocks(self, raw: np.ndarray | None) -> np.ndarray | None:
        """Means over blocks that fields keep, (n, C, *coarse), from given values (n, G, *coarse) without gaps."""
        if raw is None or not self.conserves.any():
            return None
        unknown = np.full_like(raw[:, 0], np.nan)
        return np.stack([raw[:, b] if c and b is not None else unknown for b, c in zip(self.base, self.conserves)], 1)

    def activity(self, part: Given) -> tuple[np.ndarray, np.ndarray]:
        """How lively what is given is: of the whole field (n, C), and of each cell (n, C, *space)."""
        assert part.coarse is not None and self.given_layout is not None
        assert self.regridder is not None and self.activity_mean is not None
        activity = Activity(self.base, self.given_layout.periodic, self.regridder, self.activity_mean)
        whole, near = activity(part.coarse)
        return whole, near if self.activity_centre is None else near - self.activity_centre

    def liveliness(
        self, part: Given, mean: np.ndarray, window: Sequence[slice] | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The features of :func:`undrift.data.amplitude.log_amplitude` with linear predictions (n, C, *window)."""
        cut = (slice(None), slice(None), *(window or (slice(None),) * len(self.layout.space)))
        level = clipped((mean - self.mean[None][cut]) / self.std[None][cut] - self._common(part))
        if part.coarse is None:
            return np.zeros(level.shape[:2]), np.zeros_like(level), level
        whole, near = self.activity(part)
        return whole, near[cut], level

    def _common(self, part: Given) -> np.ndarray:
        """What a whole field has in common, (n, C, *ones): 0 where nothing of the same variable is given.

        A record knows it from a few seasons only, so that neither the amplitude nor the network follows it.
        """
        named = np.array([b is not None for b in self.base]).reshape(-1, *[1] * len(self.layout.space))
        return (named * (part.base - self.mean) / self.std).mean(tuple(range(2, part.base.ndim)), keepdims=True)

    def predict(self, part: Given, fold: np.ndarray | None = None, window: Sequence[slice] | None = None) -> Predicted:
        """The prediction and the standard deviation of what it leaves over."""
        mean = self.predictor.predict(part, fold, window)
        cut = (slice(None), *(window or (slice(None),) * len(self.layout.space)))
        owns = {i: self.own(part, i)[cut] for i in self.curves}
        for i, curve in self.curves.items():
            mean[:, i] += curve.moved(owns[i], fold)
        std = np.broadcast_to(self.scale[cut], mean.shape)
        if self.amplitude.any():
            std = std * np.exp(0.5 * log_amplitude(self.amplitude, *self.liveliness(part, mean, window)))
        if self.season is not None:
            std = std * seasonal(self.season, part.features[:, : len(self.season) - 1])[(slice(None), *cut)]
        if self.curves:
            std = std.copy()
        for i, curve in self.curves.items():
            std[:, i] *= curve.widened(owns[i])
        return Predicted(mean, std)

    def own(self, part: Given, channel: int) -> np.ndarray:
        """Latents of what is given of a target channel itself, on its cells, (n, *space), NaN where none ever is.

        Where the grids are nested that of a cell's own block, which interpolation blurs.
        """
        source = self.base[channel]
        assert part.coarse is not None and source is not None and self.regridder is not None
        assert self.coarse_mean is not None and self.coarse_std is not None and self.given_mask is not None
        never = self.given_mask[source]
        if self.factor is None:
            known = self.regridder(np.where(self.given_mask, np.nan, 0.0)[None])[0, source]
            return part.base[:, channel] + known
        latents = self.coarse_mean[source] + self.coarse_std[source] * part.coarse[:, source]
        return over_blocks(np.where(never, np.nan, latents), self.factor)

    def encode(
        self,
        target: Fields | None,
        given: Fields | None,
        rows: np.ndarray,
        *,
        covariates: Mapping[str, np.ndarray],
        fold: np.ndarray | None = None,
        window: Sequence[slice] | None = None,
        draw: np.random.Generator | None = None,
        offered: np.ndarray | None = None,
        known: np.ndarray | None = None,
        initial: Initial | None = None,
        ahead: Sequence[Ahead | None] | None = None,
    ) -> tuple[Encoded, Predicted]:
        """Windows of samples.

        Args:
            target: the target, None when it is not known.
            given: what is given on the trained grid, or pass its values as ``offered``.
            rows: positions of samples in both.
            covariates: name -> values of these rows.
            fold: fold of each row for out-of-fold predictions; None for the final predictor.
            window: part of space.
            draw: generator of the latents at point masses and of given values that are missing.
            offered: given values (n, G, *coarse).
            known: values of windows of frames (n, C, *window), NaN where they are asked; None to leave open what is.
            initial: states that these samples are asked after; None to leave open what is.
            ahead: what their motion tells of each, see :meth:`windowed`.

        Returns:
            The numbers, and what is predicted of the latents.
        """
        raw = offered if offered is not None or given is None else given.read(rows).astype(np.float64)
        raw = raw if raw is None or self.window_laws is None else with_means(self, raw, known)
        there = None if raw is None or self.regridder is None else ~np.isnan(self.regridder(raw))
        blocks, unsure = raw, None
        if raw is not None and self.coarse_law is not None:
            raw, unsure = self.completed(self.coarse_law, raw, covariates, fold, draw)
        elif raw is not None:
            blocks = raw = self.filled(raw, draw)
        part, fine = self.predictors(raw, covariates, len(rows))
        blocks = self.blocks(blocks) if window is None else None
        window = tuple(window) if window is not None else (slice(None),) * len(self.layout.space)
        cut = (slice(None), slice(None), *window)
        prediction = self.predict(part, fold, window)
        fields = self._fields(fine, there, part, prediction.mean, cut, len(rows))
        if known is not None:
            unsure = None if unsure is None else unsure[cut]
            prediction, more = self.windowed(known, prediction, fold, window, draw, ahead, unsure)
            fields |= more
        vector = self.covariates.vector(covariates, len(rows)).astype(np.float32)
        if initial is not None:
            prediction, more, lead = self.after(initial, prediction, fold, window, draw)
            fields, vector = fields | more, np.concatenate([vector, lead], 1)
        x, weight = None, np.ones_like(prediction.mean, dtype=np.float32)
        if target is not None:
            x, weight = self.residual(target.read(rows, window), prediction, window, draw)
        x, weight = self.asked(x, weight, fields)
        fields = self.marked(fields, weight)
        return Encoded(x, None if x is None else weight, fields, vector, blocks), prediction

    def windowed(
        self,
        known: np.ndarray,
        prediction: Predicted,
        fold: np.ndarray | None,
        window: Sequence[slice],
        draw: np.random.Generator | None,
        ahead: Sequence[Ahead | None] | None = None,
        unsure: np.ndarray | None = None,
    ) -> tuple[Predicted, dict[str, np.ndarray]]:
        """The prediction given parts of windows (n, C, *window), NaN where asked, and what the network sees of them.

        What the motion of the past tells is found from ``known``, or is told for parts of space: they do not show it.
        The spread of the prediction that coarse values leave which are missing is ``unsure``, of the same shape.
        """
        assert self.window_laws is not None
        r, _ = self.residual(known, prediction, window, draw)
        there = np.isfinite(known) & ~self.mask[(slice(None), *window)][None]
        mean, std = self.window_laws.given(r, there, fold, window)
        after = Predicted(prediction.mean + prediction.std * mean, prediction.std * std)
        fields = {"asked": ~there, "frames": np.where(there, r, 0.0)}
        if self.motion_laws is not None:
            if ahead is None:
                past = np.where(there, self.latents(known), np.nan)
                ahead = self.motion_laws.seen(past, self.mask, fold) if past.shape[1:] == self.mask.shape else []
            carried, reached = self.motion_laws.put(ahead, there, fold, after.mean, after.std)
            carried = np.where(reached, (carried - prediction.mean) / prediction.std, 0)
            doubt = np.where(there, 0, np.log(after.std / prediction.std))
            fields |= {"carried": carried, "reached": reached, "doubt": doubt}
        elif self.coarse_law is not None:
            if unsure is not None:
                after = Predicted(after.mean, np.where(there, after.std, np.hypot(after.std, unsure)))
            fields["doubt"] = np.where(there, 0, np.log(after.std / prediction.std))
        fields["expected"] = np.where(there, 0.0, (after.mean - prediction.mean) / prediction.std)
        return after, {k: v.astype(np.float32) for k, v in fields.items()}

    def after(
        self,
        initial: Initial,
        prediction: Predicted,
        fold: np.ndarray | None,
        window: Sequence[slice],
        draw: np.random.Generator | None,
    ) -> tuple[Predicted, dict[str, np.ndarray], np.ndarray]:
        """The prediction given the states before, what the network sees of them, and what it is told of the lead."""
        assert self.lead_laws is not None
        values = initial.values
        r, _ = self.residual(values.reshape(-1, *values.shape[2:]), initial.predicted, window, draw)
        r, there = r.reshape(values.shape), np.isfinite(values) & ~self.mask[(slice(None), *window)]
        mean, std = self.lead_laws.given(r, there, initial.lags, fold, window)
        fields = {"initial": r.reshape(len(r), -1, *r.shape[3:]), "expected": mean.astype(np.float32)}
        if self.patchy:
            fields["initial known"] = there.reshape(fields["initial"].shape).astype(np.float32)
        after = Predicted(prediction.mean + prediction.std * mean, prediction.std * std)
        return after, fields, lead_features(initial.lags, self.lead_laws.longest)

    def alone(
        self,
        covariates: Mapping[str, np.ndarray],
        count: int,
        window: Sequence[slice] | None = None,
        fold: np.ndarray | None = None,
    ) -> Predicted:
        """What is predicted of states (count, C, *window) by their covariates alone."""
        part, _ = self.predictors(None, covariates, count)
        return self.predict(part, fold, window)

    @staticmethod
    def asked(
        x: np.ndarray | None, weight: np.ndarray, fields: Mapping[str, np.ndarray]
    ) -> tuple[np.ndarray | None, np.ndarray]:
        """Residuals and weights, 0 where a window is given."""
        asked = fields.get("asked")
        return (x, weight) if asked is None else (None if x is None else x * asked, weight * asked)

    def marked(self, fields: dict[str, np.ndarray], weight: np.ndarray) -> dict[str, np.ndarray]:
        """The fields, and which target cells are known where some are missing now and then; all are when drawing."""
        return fields | {"target known": weight} if self.patchy else fields

    def residual(
        self,
        raw: np.ndarray,
        prediction: Predicted,
        window: Sequence[slice],
        draw: np.random.Generator | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Residuals and weights of windows (n, C, *window) in the data's units, given what is predicted of them."""
        u = self.latents(raw)
        r = (u - prediction.mean) / prediction.std
        ranks = self._ranks(np.isinf(u), draw)
        for sign, at in ((1.0, np.isneginf(u)), (-1.0, np.isposinf(u))):
            if at.any():
                bound = np.broadcast_to(self.low if sign > 0 else self.high, u.shape)
                a = sign * ((bound - prediction.mean) / prediction.std)[at]
                drawn = 0.5 if draw is None else draw.random(a.shape) if ranks is None else ranks[at]
                share = drawn * (1 - 2e-12) + 1e-12
                r[at] = sign * np.clip(ndtri(share * ndtr(a)), -8, 8)
        # masked cells are learned to be 0, which is what the sampler's network then meets beside every coast
        weight = np.isfinite(r)
        r = np.where(weight, r, 0)
        weight |= self.mask[(slice(None), *window)][None]
        return r.astype(np.float32), weight.astype(np.float32)

    def _ranks(self, at: np.ndarray, draw: np.random.Generator | None) -> np.ndarray | None:
        """Coherent ranks of latents at point masses (n, C, *window); None where each is drawn on its own."""
        if draw is None or self.texture is None:
            return None
        out = np.full(at.shape, 0.5)
        for one, there in zip(out, at):
            which = np.flatnonzero(there.reshape(len(there), -1).any(1))
            one[which] = self.texture.ranks(which, at.shape[2:], draw)
        return out

    def _fields(
        self,
        fine: np.ndarray | None,
        known: np.ndarray | None,
        part: Given,
        prediction: np.ndarray,
        cut: tuple[slice, ...],
        count: int,
    ) -> dict[str, np.ndarray]:
        out = {}
        if fine is not None and known is not None:
            assert self.given_mean is not None and self.given_std is not None
            given = (fine - self.each(self.given_mean)) / self.each(self.given_std)
            given = _without_level(given, self.given_transforms, self.members)[cut]
            out["given"] = np.nan_to_num(given).astype(np.float32)
            if self.gappy:
                by_frame = known.reshape(count, -1, self.layout.frames, *known.shape[2:])
                out["known"] = by_frame.min(1)[cut].astype(np.float32)
        level = np.where(_free(self.transforms, len(cut) - 2), self._common(part), 0)
        out["linear"] = ((prediction - self.mean[None][cut]) / self.std[None][cut] - level).astype(np.float32)
        static = np.broadcast_to(self.static[None][cut], (count, *self.static[None][cut].shape[1:]))
        out["static"] = static.astype(np.float32)
        return out

    # what is asked

    def latents(self, raw: np.ndarray) -> np.ndarray:
        """Target values (n, C, *space) as latents, -inf and inf at point masses, NaN where missing."""
        return np.stack([t.encode(raw[:, i]) for i, t in enumerate(self.transforms)], 1)

    def decode(self, r: np.ndarray | float, prediction: Predicted, blocks: np.ndarray | None = None) -> np.ndarray:
        """Residuals (n, C, *space), or 0 for what is predicted, as values in the target's units, NaN in the mask.

        Args:
            r: the residuals.
            prediction: what they are residuals from.
            blocks: means over blocks that the values get, see :class:`Encoded`.
        """
        u = prediction.mean + prediction.std * np.asarray(r, dtype=np.float64)
        if blocks is not None:
            assert self.factor is not None
            for i in np.flatnonzero(self.conserves):
                u[:, i] = conserved(u[:, i], blocks[:, i], self.factor, self.transforms[i], self.mask[i])
        x = np.stack([t.decode(u[:, i]) for i, t in enumerate(self.transforms)], 1)
        x[np.broadcast_to(self.mask, x.shape)] = np.nan
        return x.astype(np.float32)

    def at_bound(self, x: np.ndarray) -> np.ndarray:
        """Share of the known cells of each field (n, C, *space) at a bound of its channel, summed over n: (C,)."""
        out = np.zeros(len(self.transforms))
        for i, transform in enumerate(self.transforms):
            bounds = [b for b in (transform.lower, transform.upper) if b is not None]
            known = np.isfinite(x[:, i]).reshape(len(x), -1).sum(1)
            at = np.isin(x[:, i], np.array(bounds, dtype=np.float32)).reshape(len(x), -1).sum(1)
            out[i] = (at / np.maximum(known, 1)).sum()
        return out

    def outside(self, raw: np.ndarray) -> np.ndarray:
        """Given values (n, G, *coarse) outside the range that their channel had in training, a share per channel."""
        if self.given_low is None or self.given_high is None:
            return np.zeros(0)
        shape = (-1,) + (1,) * (raw.ndim - 2)
        low, high = self.given_low.reshape(shape), self.given_high.reshape(shape)
        beyond = (raw < low) | (raw > high)
        known = np.isfinite(raw)
        axes = (0, *range(2, raw.ndim))
        return (beyond & known).sum(axes) / np.maximum(known.sum(axes), 1)


def _without_level(x: np.ndarray, transforms: Sequence[Transform], members: int) -> np.ndarray:
    """Standardised fields (n, C, *space) less their mean over the whole domain and all members, where without bounds.

    The linear predictor knows the level and extrapolates it; a network shown a level that training never had does not.
    """
    apart = x.reshape(len(x), -1, members, *x.shape[2:])
    axes = tuple(range(2, apart.ndim))
    known = np.isfinite(apart)
    level = np.where(known, apart, 0).sum(axes, keepdims=True) / np.maximum(known.sum(axes, keepdims=True), 1)
    level = np.repeat(level[:, :, 0], members, axis=1)
    return x - np.where(_free(transforms, x.ndim - 2), level, 0)


def _free(transforms: Sequence[Transform], space: int) -> np.ndarray:
    """Which channels have no bounds, (C, *ones)."""
    return np.array([t.kind == "standard" for t in transforms]).reshape(-1, *[1] * space)


def base_channels(layout: Layout, given: Layout | None) -> list[int | None]:
    """For each target channel the given channel of the same variable, level and units."""
    out: list[int | None] = []
    for channel in layout.channels:
        match = None
        for i, other in enumerate(given.channels if given is not None else ()):
            if other == channel and given is not None:
                same = given.units.get(other.variable, "") == layout.units.get(channel.variable, "")
                match = i if same else match
        out.append(match)
    return out
