"""Power spectra of fields on grids: isotropic on limited or fully periodic domains, zonal on a globe."""

__all__ = ["Spectrum"]

import numpy as np
import scipy.fft
import scipy.sparse
from numpy.typing import NDArray


class Spectrum:
    """Energy spectrum of fields on one grid, per wavenumber.

    *Isotropic* (no axis periodic, or all of them): the mean is removed, each axis that is not periodic is tapered by a
    Hann window, and |FFT|^2 is summed over rings of radial frequency of width 1/N, N the longest axis. With
    power = |FFT|^2 / (cells * sum window^2) the sum over all wavenumbers is the (windowed) variance: Parseval.
    *Zonal* (exactly one of several axes is periodic): FFT along that axis only, without a window, averaged over the
    other axes with the area weights; the sum is the mean variance along the axis.

    Missing cells are filled with the mean, so truth and ensemble need the same mask for their ratio to mean anything.

    Attributes:
        kind: "isotropic" or "zonal".
        wavenumber: (K,) cycles per length of the longest (or the periodic) axis.
        wavelength: (K,) in cells; 2 is the shortest along an axis.
    """

    def __init__(self, shape: tuple[int, ...], periodic: tuple[bool, ...], weights: NDArray | None = None) -> None:
        self.shape = tuple(shape)
        self._weights = np.ones(shape) if weights is None else np.asarray(weights, np.float64).reshape(shape)
        zonal = len(shape) > 1 and sum(periodic) == 1
        self.kind = "zonal" if zonal else "isotropic"
        if zonal:
            self._axis = periodic.index(True)
            size = shape[self._axis]
            self.wavenumber = np.arange(1, size // 2 + 1)
            self.wavelength = size / self.wavenumber
            return
        last_size = int(shape[len(shape) - 1])
        size = max(shape)
        window = np.ones(shape)
        for axis, length in enumerate(shape):
            if not periodic[axis] and length > 2:
                along = np.hanning(length + 2)[1:-1]
                window = window * along.reshape([-1 if k == axis else 1 for k in range(len(shape))])
        self._window = window
        frequencies = [scipy.fft.fftfreq(n) for n in shape[:-1]] + [scipy.fft.rfftfreq(last_size)]
        radius = np.sqrt(sum(np.square(f) for f in np.meshgrid(*frequencies, indexing="ij", sparse=True)))
        ring = np.rint(radius * size).astype(np.intp).ravel()
        # rfft keeps one of each conjugate pair, except at frequency zero and at an even size's Nyquist frequency.
        last = np.full(last_size // 2 + 1, 2.0)
        last[0] = 1.0
        if last_size % 2 == 0:
            last[-1] = 1.0
        twice = np.broadcast_to(last, radius.shape).ravel()
        modes = np.arange(ring.size)
        self._rings = scipy.sparse.csr_matrix((twice, (ring, modes)), shape=(int(ring.max()) + 1, ring.size))
        self.wavenumber = np.arange(1, int(ring.max()) + 1)
        self.wavelength = size / self.wavenumber

    def __call__(self, fields: NDArray, valid: NDArray[np.bool_] | None = None) -> NDArray[np.float64]:
        """Spectra of fields.

        Args:
            fields: (..., *shape); values where not valid are ignored and must be finite.
            valid: broadcastable to the fields; all where None.

        Returns:
            (..., K) variance per wavenumber, in squared units of the data.
        """
        lead = fields.shape[: fields.ndim - len(self.shape)]
        keep = np.ones(fields.shape[-len(self.shape) :]) if valid is None else valid.astype(np.float64)
        return self._zonal(fields, keep) if self.kind == "zonal" else self._isotropic(fields, keep, lead)

    def _isotropic(self, fields: NDArray, keep: NDArray, lead: tuple[int, ...]) -> NDArray[np.float64]:
        axes = tuple(range(-len(self.shape), 0))
        taper = self._window * keep
        mass = np.maximum(taper.sum(axis=axes, keepdims=True), np.finfo(float).tiny)
        anomaly = (fields - (fields * taper).sum(axis=axes, keepdims=True) / mass) * taper
        power = np.square(np.abs(np.asarray(scipy.fft.rfftn(anomaly, axes=axes))))
        scale = np.maximum(np.square(taper).sum(axis=axes, keepdims=True), np.finfo(float).tiny) * np.prod(self.shape)
        flat = (power / scale).reshape(int(np.prod(lead)), -1)
        return np.asarray(self._rings @ flat.T).T.reshape(*lead, -1)[..., 1:]

    def _zonal(self, fields: NDArray, keep: NDArray) -> NDArray[np.float64]:
        dims = len(self.shape)
        axis = self._axis - dims
        mass = np.maximum(keep.sum(axis=axis, keepdims=True), 1.0)
        anomaly = (fields - (fields * keep).sum(axis=axis, keepdims=True) / mass) * keep
        size = self.shape[self._axis]
        power = 2.0 * np.square(np.abs(np.asarray(scipy.fft.rfft(anomaly, axis=axis)))) / (size * mass)
        power = np.moveaxis(power, axis, -1)
        if size % 2 == 0:
            power[..., -1] /= 2.0
        rows = np.moveaxis(np.broadcast_to(self._weights * keep, anomaly.shape), axis, -1).mean(axis=-1)
        others = tuple(range(-dims + 1, 0))
        total = np.maximum(rows.sum(axis=others), np.finfo(float).tiny)
        others_of_power = tuple(k - 1 for k in others)
        return ((power * rows[..., None]).sum(axis=others_of_power) / total[..., None])[..., 1:]
