"""From labelled fields to residuals of unit scale, and back.

A field x becomes

    r = (T(x) - prediction) / (scale a exp(c)),

where T is each variable's transform. The prediction is made from what is given: it is linear, and bent near the bounds
of a variable, where c is also not 0 (:mod:`undrift.data.curves`). The scale is the standard deviation per cell of
out-of-fold residuals, and the amplitude a says how lively they are in this state. Missing cells become 0
with weight 0. Values at a point mass (dry cells) have no latent of their own: training draws one anew at each step.
:mod:`undrift.data.codec_fit` fits all this.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from undrift.data.amplitude import Activity, clipped, log_amplitude
from undrift.data.anamorphosis import Anamorphosis, seasons_at
from undrift.data.censored import residuals
from undrift.data.coarse_law import CoarseLaw, with_means
from undrift.data.conditioned import given_frames, given_states, unsure_of_coarse
from undrift.data.conserve import conserved, over_blocks
from undrift.data.covariates import Covariates
from undrift.data.curves import Curve
from undrift.data.encoded import Encoded, Initial, Predicted
from undrift.data.fields import Fields
from undrift.data.given_codec import GivenCodec
from undrift.data.layout import Layout, base_channels
from undrift.data.lead_law import LeadLaws, lead_features
from undrift.data.linear import Given
from undrift.data.members import one_member
from undrift.data.motion_law import Ahead, MotionLaws
from undrift.data.predictors import Predictors
from undrift.data.season import seasonal
from undrift.data.texture import Texture
from undrift.data.transforms import Transform, unbounded
from undrift.data.window_law import WindowLaw, WindowLaws

__all__ = ["Codec"]


class Codec:
    """All that turns fields into the network's numbers and back; made by :func:`undrift.data.codec_fit.fit_codec`.

    Attributes:
        layout: of the target.
        given: what the codec knows of what is given, or None; given_layout: its layout.
        members: members of a date that are given together; the linear predictor sees their mean.
        transforms: one per target channel.
        anamorphosis: of their latents at each cell, or None.
        mask: target cells that never have a value, (C, *space).
        predictor: the linear predictors of the latents.
        curves: channel -> how its law departs from the linear prediction, where it does.
        scale: (C, *space).
        amplitude: weights of the features of the amplitude, (C, 3); zeros where residuals are equally lively always.
        patchy: whether target cells are missing now and then. The network sees which.
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
        transforms: Sequence[Transform],
        given: GivenCodec | None,
        covariates: Covariates,
        predictor: Predictors,
        arrays: Mapping[str, np.ndarray],
    ) -> None:
        self.layout, self.transforms, self.given = layout, list(transforms), given
        self.given_layout, self.members = (None, 1) if given is None else (given.layout, given.members)
        self.covariates, self.predictor = covariates, predictor
        self.mask = arrays["mask"].astype(bool)
        self.scale = arrays["scale"]
        self.mean, self.std = arrays["mean"], arrays["std"]  # of latents per cell, to standardise what the network sees
        self.static = arrays["static"]
        self.patchy = bool(arrays.get("patchy", np.zeros(())))
        self.factor = tuple(int(f) for f in arrays["factor"]) if "factor" in arrays else None
        self.conserves = arrays.get("conserves", np.zeros(len(transforms))).astype(bool)
        self.linear = bool(arrays.get("linear", np.ones(())))
        self.base = base_channels(layout, None if given is None else one_member(given.layout))
        self.amplitude = arrays.get("amplitude", np.zeros((len(transforms), 3)))
        self.curves = {i: Curve.from_arrays(arrays, f"curve_{i}") for i in range(len(transforms))
                       if f"curve_{i}_knots" in arrays}  # fmt: skip
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
        self.anamorphosis: Anamorphosis | None = None
        if "anamorphosis_levels" in arrays:
            self.shaped(Anamorphosis.from_arrays(arrays, len(layout.space)))

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays that, with the layouts and transforms, make the codec again."""
        out = {"mask": self.mask.astype(np.int8), "scale": self.scale, "mean": self.mean, "std": self.std}
        out |= {"static": self.static, "linear": np.array(int(self.linear))}
        out |= {"amplitude": self.amplitude, "patchy": np.array(int(self.patchy))}
        out |= {"gappy": np.array(0)} if self.given is None else self.given.to_arrays()
        if self.factor is not None:
            out |= {"factor": np.array(self.factor), "conserves": self.conserves.astype(np.int8)}
        for name in ("activity_mean", "activity_centre"):
            value = getattr(self, name)
            if value is not None:
                out[name] = value
        for i, curve in self.curves.items():
            out |= curve.to_arrays(f"curve_{i}")
        if self.anamorphosis is not None:
            out |= self.anamorphosis.to_arrays()
        if self.season is not None:
            out["season"] = self.season.astype(np.float32)
        if self.window_laws is not None:
            out |= self.window_laws.laws[-1].to_arrays("window")
        if self.lead_laws is not None:
            out |= self.lead_laws.to_arrays()
        if self.motion_laws is not None:
            out |= self.motion_laws.to_arrays()
        if self.texture is not None:
            out |= self.texture.to_arrays()
        return out

    def shaped(self, anamorphosis: Anamorphosis) -> None:
        """Take latents after an anamorphosis from now on; nothing else is fitted yet."""
        self.anamorphosis, whole = anamorphosis, (1, *self.mask.shape)
        first = None if anamorphosis.seasons == 1 else np.eye(1, anamorphosis.seasons)  # thresholds are the same in all
        self.low, self.high = (anamorphosis.normal(np.broadcast_to(v, whole), first)[0] for v in (self.low, self.high))

    def seasons(self, features: np.ndarray) -> np.ndarray | None:
        """Weights (n, S) of the seasons of the anamorphosis, from covariates (n, F); None where it has one season."""
        if self.anamorphosis is None or self.anamorphosis.seasons == 1:
            return None
        return seasons_at(features, self.anamorphosis.seasons)

    def widened(self, factor: np.ndarray) -> None:
        """Multiply the standard deviation of what is left of each channel, (C,)."""
        self.scale = self.scale * factor.reshape(-1, *[1] * len(self.layout.space))
        if self.motion_laws is not None:
            self.motion_laws = self.motion_laws.widened(factor.reshape(-1, self.layout.frames))

    @property
    def vector_width(self) -> int:
        """Numbers that the network is told beside fields: covariates, and the lead where there is one."""
        return self.covariates.width + (0 if self.lead_laws is None else 2)

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
        assert self.given is not None
        coarse, fine, _ = self.given.latents(raw)
        near = self.given.apart(fine).mean(2)
        for channel, source in enumerate(self.base):
            if source is not None:
                base[:, channel] = np.where(np.isfinite(near[:, source]), near[:, source], self.mean[channel])
        return Given(base, self.given.standard(coarse), features), fine

    def blocks(self, raw: np.ndarray | None) -> np.ndarray | None:
        """Means over blocks that fields keep, (n, C, *coarse), from given values (n, G, *coarse) without gaps."""
        if raw is None or not self.conserves.any():
            return None
        unknown = np.full_like(raw[:, 0], np.nan)
        return np.stack([raw[:, b] if c and b is not None else unknown for b, c in zip(self.base, self.conserves)], 1)

    def activity(self, part: Given) -> tuple[np.ndarray, np.ndarray]:
        """How lively what is given is: of the whole field (n, C), and of each cell (n, C, *space)."""
        assert part.coarse is not None and self.given is not None and self.activity_mean is not None
        activity = Activity(self.base, self.given.layout.periodic, self.given.regridder, self.activity_mean)
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
        return Predicted(mean, std, self.seasons(part.features))

    def own(self, part: Given, channel: int) -> np.ndarray:
        """Latents of what is given of a target channel itself, on its cells, (n, *space), NaN where none ever is.

        Where the grids are nested that of a cell's own block, which interpolation blurs.
        """
        source = self.base[channel]
        assert part.coarse is not None and source is not None and self.given is not None
        if self.factor is None:
            known = self.given.regridder(np.where(self.given.mask, np.nan, 0.0)[None])[0, source]
            return part.base[:, channel] + known
        latents = self.given.coarse_mean[source] + self.given.coarse_std[source] * part.coarse[:, source]
        return over_blocks(np.where(self.given.mask[source], np.nan, latents), self.factor)

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
        there = blocks = unsure = None
        if raw is not None:
            assert self.given is not None
            blocks = raw = raw if self.window_laws is None else with_means(self, raw, known)
            there = ~np.isnan(self.given.regridder(raw))
            if self.coarse_law is not None:
                raw, unsure = self.coarse_law.completed(self, raw, covariates, fold, draw)
            else:
                blocks = raw = self.given.filled(raw, draw)
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
        if self.motion_laws is not None and ahead is None and known.shape[1:] == self.mask.shape:
            ahead = self.motion_laws.seen(
                np.where(there, self.latents(known, prediction.seasons), np.nan), self.mask, fold
            )
        found = given_frames(self.window_laws, self.motion_laws, r, there, prediction, fold, window, ahead or [])
        return found if self.coarse_law is None else unsure_of_coarse(*found, prediction, there, unsure)

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
        after, fields = given_states(self.lead_laws, r, there, initial.lags, prediction, fold, window)
        if self.patchy:
            fields["initial known"] = there.reshape(fields["initial"].shape).astype(np.float32)
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
        u = self.latents(raw, prediction.seasons)
        ranks = None if draw is None or self.texture is None else self.texture.ranks_at(np.isinf(u), draw)
        r = residuals(u, prediction.mean, prediction.std, self.low, self.high, draw, ranks)
        # masked cells are learned to be 0, which is what the sampler's network then meets beside every coast
        weight = np.isfinite(r)
        r = np.where(weight, r, 0)
        weight |= self.mask[(slice(None), *window)][None]
        return r.astype(np.float32), weight.astype(np.float32)

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
        if self.given is not None and fine is not None and known is not None:
            out = self.given.fields(fine, known, self.layout.frames, cut)
        level = np.where(unbounded(self.transforms, len(cut) - 2), self._common(part), 0)
        out["linear"] = ((prediction - self.mean[None][cut]) / self.std[None][cut] - level).astype(np.float32)
        static = np.broadcast_to(self.static[None][cut], (count, *self.static[None][cut].shape[1:]))
        out["static"] = static.astype(np.float32)
        return out

    def latents(self, raw: np.ndarray, seasons: np.ndarray | None) -> np.ndarray:
        """Target values (n, C, *space) as latents, -inf and inf at point masses, NaN where missing.

        Args:
            raw: the values.
            seasons: of each, see :meth:`seasons`.
        """
        u = np.stack([t.encode(raw[:, i]) for i, t in enumerate(self.transforms)], 1)
        return u if self.anamorphosis is None else self.anamorphosis.normal(u, seasons)

    def decode(
        self,
        r: np.ndarray | float,
        prediction: Predicted,
        blocks: np.ndarray | None = None,
        known: np.ndarray | None = None,
    ) -> np.ndarray:
        """Residuals (n, C, *space), or 0 for what is predicted, as values in the target's units, NaN in the mask.

        Args:
            r: the residuals.
            prediction: what they are residuals from.
            blocks: means over blocks that the values get, see :class:`Encoded`.
            known: values (n or 1, C, *space) that the caller puts in their place, NaN elsewhere; they count in means.
        """
        u = prediction.mean + prediction.std * np.asarray(r, dtype=np.float64)
        if blocks is not None:
            assert self.factor is not None
            for i in np.flatnonzero(self.conserves):
                put = None if known is None else np.broadcast_to(known[:, i], u[:, i].shape)
                u[:, i] = conserved(u[:, i], blocks[:, i], self.factor, self.transforms[i], self.mask[i], put)
        u = u if self.anamorphosis is None else self.anamorphosis.latents(u, prediction.seasons)
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
