"""Faults in the formulas, each of which some test must notice: ``make mutate``.

Every fault is one replacement in one file. It is made in a copy of the package, and the tests named beside it run on
that copy; tests that still pass have not seen the fault, and the command fails.

    python tests/mutate.py [part of a file's name ...]
"""

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Fault:
    """One replacement, and the tests that must fail."""

    path: str
    right: str
    wrong: str
    tests: str


FAULTS = [
    Fault("process/process.py", "return 2 * (self.alpha(t).log", "return (self.alpha(t).log",
          "contracts/test_processes.py"),
    Fault("process/process.py", "return 2 * (self.alpha_dot", "return (self.alpha_dot", "contracts/test_processes.py"),
    Fault("process/process.py", "self._lost(s, t) * self.sigma(t) ** 2", "self._lost(s, t) * self.sigma(s) ** 2",
          "contracts/test_processes.py"),
    Fault("process/process.py", "(sigma_s / self.sigma(t)) ** 2", "sigma_s / self.sigma(t)",
          "contracts/test_processes.py"),
    Fault("process/process.py", "self.alpha(s) * lost", "self.alpha(t) * lost", "contracts/test_processes.py"),
    Fault("process/process.py", "return 2 * sigma * (self.sigma_dot", "return sigma * (self.sigma_dot",
          "contracts/test_processes.py"),
    Fault("process/process.py", "t.gather(-1, part), t.gather(-1, part + 1)", "t.gather(-1, part), t.gather(-1, part)",
          "contracts/test_processes.py"),
    Fault("process/edm.py", "return (1 - t) ** -2", "return (1 - t) ** -1", "contracts/test_processes.py"),
    Fault("process/edm.py", "torch.sigmoid(-log_snr / 2)", "torch.sigmoid(-log_snr)",
          "contracts/test_processes.py"),
    Fault("process/rectified_flow.py", "torch.sigmoid(-log_snr / 2)", "torch.sigmoid(-log_snr)",
          "contracts/test_processes.py"),
    Fault("process/variance_preserving.py", "(self.beta_max - self.beta_min) * t**2 / 2",
          "(self.beta_max - self.beta_min) * t**2", "exact/test_process_formulas.py"),
    Fault("process/variance_preserving.py", "return -self.sigma(t) * self.alpha(t) ** 2 * self.log_snr_dot(t) / 2",
          "return -self.sigma(t) * self.alpha(t) * self.log_snr_dot(t) / 2", "contracts/test_processes.py"),
    Fault("process/variance_preserving.py", "2 * self._first)", "self._first)", "exact/test_process_formulas.py"),
    Fault("process/variance_exploding.py", "return -torch.expm1(-self._vp.total(t))",
          "return (-torch.expm1(-self._vp.total(t))).sqrt()", "exact/test_process_formulas.py"),
    Fault("process/variance_exploding.py", "return -total - 2 * (", "return -2 * total - 2 * (",
          "contracts/test_processes.py"),
    Fault("process/variance_exploding.py", "2 * torch.asinh(torch.exp(-log_snr / 2) / 2)", "2 * torch.asinh(torch.exp(-log_snr / 2))",
          "contracts/test_processes.py"),
    Fault("process/variance_exploding.py", "(-log_snr / 2 - math.log", "(-log_snr - math.log",
          "contracts/test_processes.py"),
    Fault("process/discrete_betas.py", "np.cumsum(np.log1p(-values))", "np.cumsum(np.log1p(-values)) / 2",
          "exact/test_process_formulas.py"),
    Fault("process/discrete_betas.py", "(3 * a * x + 2 * b) * x + c", "(3 * a * x + b) * x + c",
          "contracts/test_processes.py"),
    Fault("process/discrete_betas.py", "return t * len(self.betas) - 1", "return t * len(self.betas)",
          "exact/test_process_formulas.py"),
    Fault("process/discrete_betas.py", "torch.where(later, middle, low), torch.where(later, high, middle)", "torch.where(later, low, middle), torch.where(later, middle, high)",
          "contracts/test_processes.py"),
    Fault("process/custom.py", "torch.exp(-2 * self._log_alpha(t))", "torch.exp(-self._log_alpha(t))",
          "exact/test_process_formulas.py"),
    Fault("process/custom.py", "** 2 / (2 * sigma)", "** 2 / sigma",
          "contracts/test_processes.py"),
    Fault("process/custom.py", "return -self._ratio_squared(t).log()", "return -self._ratio_squared(t).log() / 2",
          "contracts/test_processes.py"),
    Fault("process/check.py", "-2 * _tried(", "-1 * _tried(", "contracts/test_processes.py"),
    Fault("process/panels.py", "x, one, value=2)", "x, one)",
          "exact/test_process_formulas.py"),
    Fault("process/noise.py", "self.filtered(white, 0.5)", "self.filtered(white, 1.0)", "exact/test_noise_laws.py"),
    Fault("process/noise.py", "half * 2 / self.dof", "half / self.dof", "exact/test_noise_laws.py"),
    Fault("process/noise.py", "z.double() ** 2 + math.log(2 * math.pi)", "z.double() ** 2 + math.log(math.pi)",
          "exact/test_density.py::test_laws_of_noise_know_their_densities"),
    Fault("process/noise.py", "+ self.power.to(z.device).log()", "+ 2 * self.power.to(z.device).log()",
          "exact/test_density.py::test_laws_of_noise_know_their_densities"),
    Fault("process/noise.py", "size / 2 * math.log(self.dof * math.pi)", "size / 2 * math.log(math.pi)",
          "exact/test_density.py::test_laws_of_noise_know_their_densities"),
    Fault("process/coupling.py", "z[torch.as_tensor(columns", "z[torch.as_tensor(columns[::-1].copy()",
          "exact/test_noise_laws.py"),
    Fault("process/coupling.py", "self.scale * math.pi * torch.sin(2", "2 * self.scale * math.pi * torch.sin(2",
          "exact/test_noise_laws.py"),
    Fault("denoise/targets.py", "return -process.sigma(t), process.alpha(t)", "return process.sigma(t), process.alpha(t)",
          "exact/test_targets.py"),
    Fault("denoise/targets.py", "-alpha * self.sigma_data / norm", "-alpha / norm", "exact/test_targets.py"),
    Fault("denoise/targets.py", "law.from_noisy * process.alpha(t) + law.from_clean", "law.from_clean",
          "exact/test_targets.py"),
    Fault("denoise/targets.py", "torch.where(clean, 0.0, sigma * scale / det)", "torch.where(clean, 0.0, sigma / det)",
          "exact/test_targets.py"),
    Fault("denoise/targets.py", "torch.where(clean, 1 / alpha, p_z / det)", "torch.where(clean, 1.0, p_z / det)",
          "contracts/test_denoisers.py"),
    Fault("denoise/estimate.py", "x=self.x + (sigma * ratio)", "x=self.x + sigma", "exact/test_targets.py"),
    Fault("denoise/estimate.py", "-self.noise.whitened(self.z)", "-self.z",
          "exact/test_targets.py"),
    Fault("denoise/denoiser.py", "torch.autograd.grad(found.x, start", "torch.autograd.grad(found.z, start",
          "exact/test_targets.py"),
    Fault("denoise/denoiser.py", "self.label = label or (lambda t: t)", "self.label = lambda t: t",
          "exact/test_targets.py"),
    Fault("denoise/exact.py", "variances * s**2 / total", "variances * s / total", "exact/test_exact_denoisers.py"),
    Fault("denoise/exact.py", "posterior = covariances - gain", "posterior = covariances + gain",
          "exact/test_exact_denoisers.py"),
    Fault("denoise/exact.py", "total.log() + np.log(2 * np.pi)).sum(-1)", "total.log()).sum(-1)",
          "exact/test_exact_denoisers.py"),
    Fault("denoise/exact.py", "- log_det, 0)", "- 2 * log_det, 0)", "exact/test_exact_denoisers.py"),
    Fault("denoise/exact.py", "a**2 * data + s**2 * noise", "a**2 * data + s**2", "exact/test_exact_denoisers.py"),
    Fault("denoise/exact.py", "data * noise * s**2 / total", "data * s**2 / total", "exact/test_exact_denoisers.py"),
    Fault("denoise/exact.py", "root @ bases, whitener @ bases", "root @ bases, root @ bases",
          "exact/test_exact_denoisers.py"),
    Fault("denoise/exact.py", "self.weights.log() - self.log_det", "self.weights.log()", "exact/test_exact_denoisers.py"),
    Fault("denoise/components.py", "(parts.variance + away**2)", "parts.variance", "exact/test_exact_denoisers.py"),
    Fault("denoise/components.py", "parts.z * (1.0 if scale", "parts.z * (1.0 if True", "exact/test_exact_denoisers.py"),
    Fault("denoise/scales.py", "half * (log_w - log_w.exp())", "(half - 1) * log_w - half * log_w.exp()",
          "exact/test_exact_denoisers.py"),
    Fault("solve/runge_kutta.py", "(9017 / 3168, -355 / 33", "(9017 / 3168, -355 / 32", "exact/test_solver_orders.py"),
    Fault("solve/runge_kutta.py", "187 / 2100, 1 / 40", "187 / 2100, 1 / 4", "exact/test_solver_orders.py"),
    Fault("solve/runge_kutta.py", "ratio * (1 + self.churn", "ratio * (1 - self.churn", "exact/test_solver_factors.py"),
    Fault("solve/runge_kutta.py", ".clamp(max=1)", ".clamp(max=process.t_max)", "exact/test_solver_factors.py"),
    Fault("solve/solver.py", "if bool(rows.all()):", "if bool(rows.any()):",
          "contracts/test_solvers.py::test_rows_with_times_of_their_own_step_as_if_alone"),
    Fault("solve/frames.py", "return -torch.sin(angle), torch.cos(angle)", "return torch.sin(angle), torch.cos(angle)",
          "exact/test_solver_orders.py"),
    Fault("solve/frames.py", "torch.where(process.pure_noise(t), torch.inf, process.ratio(t))", "process.ratio(t)",
          "contracts/test_solvers.py"),
    Fault("solve/grid.py", "process.pure_noise(ends[0])", "torch.isinf(ratio[0])", "contracts/test_solvers.py"),
    Fault("solve/exponential.py", "lambda v: np.exp(v / 2) / 2", "lambda v: np.exp(v / 2)",
          "exact/test_solver_orders.py"),
    Fault("solve/exponential.py", "extra = h / (nodes[0] - nodes[1])", "extra = 2 * h / (nodes[0] - nodes[1])",
          "exact/test_solver_orders.py"),
    Fault("solve/exponential.py", "math.sqrt(self._lost(process, t, s))", "self._lost(process, t, s)",
          "exact/test_solver_orders.py"),
    Fault("solve/dpm_solver.py", "-1.5 * process.ratio(s)", "-1.0 * process.ratio(s)", "exact/test_solver_orders.py"),
    Fault("solve/pndm.py", "55 / 24, -59 / 24", "55 / 24, -58 / 24", "exact/test_solver_orders.py"),
    Fault("solve/ancestral.py", "clean**2 * estimate.variance", "clean * estimate.variance",
          "exact/test_solver_orders.py"),
    Fault("solve/ancestral.py", "(process.sigma(s) ** 2 - variance)", "(process.sigma(s) ** 2)",
          "exact/test_solver_orders.py"),
    Fault("solve/sde.py", "along(2 - law.alpha", "along(law.alpha", "exact/test_solver_orders.py"),
    Fault("solve/sde.py", "along(process.drift(t), x) * x - along(g2, x)", "along(process.drift(t), x) * x - along(g2 / 2, x)",
          "exact/test_solver_orders.py"),
    Fault("solve/sde.py", "(2 * step).sqrt() * noise", "step.sqrt() * noise", "exact/test_solver_orders.py"),
    Fault("solve/sde.py", "x + step / 2 * f(x, t)", "x + step * f(x, t)", "exact/test_solver_orders.py"),
    Fault("solve/brownian.py", "share * (high.values - time)", "(high.values - time)", "exact/test_brownian.py"),
    Fault("solve/step_size.py", "norm.clamp(min=1e-12) ** -self.exponent", "norm.clamp(min=1e-12) ** self.exponent",
          "exact/test_solver_orders.py"),
    Fault("process/keyed.py", "+ 0.5) * 2.0**-52", "+ 0.5) * 2.0**-53", "exact/test_noise.py"),
    Fault("solve/adams_bashforth.py", "return a * estimate.x + b", "return b * estimate.x + a", "exact/test_sampler.py"),
    Fault("solve/multistep.py", "history[: self.length - 1]", "history[: self.length - 2]", "exact/test_sampler.py"),
    Fault("solve/adams_bashforth.py", "** (powers + 1) / (powers + 1)", "** (powers + 1) / (powers + 2)",
          "exact/test_sampler.py"),
    Fault("solve/grid.py", "/ steps) ** 1.5, last", "/ steps), last", "exact/test_sampler.py"),
    Fault("solve/grid.py", "high * (low / high) ** shares", "high + (low - high) * shares",
          "exact/test_solver_factors.py"),
    Fault("solve/grid.py", "+ shares * (low", "+ shares**2 * (low",
          "exact/test_solver_factors.py"),
    Fault("solve/grid.py", "max(steps / (steps + 4.7)", "max(steps / (steps + 9.4)",
          "exact/test_solver_factors.py"),
    Fault("denoise/precondition.py", "(ratio**2 + guess.total(size)).rsqrt()", "(ratio + guess.total(size)).rsqrt()",
          "exact/test_denoise.py"),
    Fault("denoise/precondition.py", "guess.posterior_variance(ratio, size).sqrt()",
          "guess.posterior_variance(ratio, size)", "exact/test_denoise.py"),
    Fault("denoise/guess.py", "tail = self.floor * square / (self.floor + square)",
          "tail = square / (self.floor + square)", "exact/test_denoise.py"),
    Fault("denoise/guess.py", "isotonic_regression(held, increasing=False)", "isotonic_regression(held)",
          "exact/test_denoise.py"),
    Fault("objective/denoising.py", "(f - (x - linear) / c_out) ** 2", "(f - (x - linear)) ** 2",
          "exact/test_objective.py"),
    Fault("objective/times.py", "math.sqrt(2) * torch.erfinv", "torch.erfinv", "exact/test_objective.py"),
    Fault("objective/times.py", "(steps + shift) / count", "(steps + 0.5) / count",
          "exact/test_objective.py"),
    Fault("objective/times.py", "start + (stop - start) * quantile", "start + stop * quantile",
          "exact/test_matching.py"),
    Fault("objective/denoising.py", "torch.zeros_like(batch.x), batch.condition", "batch.x, batch.condition",
          "exact/test_objective.py"),
    Fault("objective/matching.py", "/ weight.flatten(1).sum(1).clamp(min=1)", "/ weight[0].numel()",
          "exact/test_objective.py"),
    Fault("objective/matching.py", "return weight * error, {", "return error, {",
          "exact/test_matching.py"),
    Fault("objective/matching.py", "sigma**4 / alpha**2", "sigma**4",
          "exact/test_matching.py"),
    Fault("objective/matching.py", "+ 2 * trace / known)", "+ trace / known)",
          "exact/test_matching.py"),
    Fault("objective/matching.py", "return total / (self.slices or 1)", "return total",
          "exact/test_matching.py"),
    Fault("objective/matching.py", "self.bridge.gamma_dot(t)", "self.bridge.gamma(t)",
          "exact/test_matching.py"),
    Fault("objective/weights.py", "/ (scale * sigma)) ** 2", "/ sigma) ** 2",
          "exact/test_matching.py"),
    Fault("objective/weights.py", "clamp(max=self.most)", "clamp(min=self.most)",
          "exact/test_matching.py"),
    Fault("objective/weights.py", "super().__init__(F(sigma_data))", "super().__init__(F(1 / sigma_data))",
          "exact/test_matching.py"),
    Fault("objective/weights.py", "process.log_snr(t).exp() / 2", "process.log_snr(t).exp()",
          "exact/test_matching.py"),
    Fault("objective/likelihood.py", "process.log_snr(end).exp() / 2", "process.log_snr(end).exp()",
          "exact/test_matching.py"),
    Fault("objective/likelihood.py", "ratio - 1 - ratio.log()", "ratio - 1 + ratio.log()",
          "exact/test_matching.py"),
    Fault("objective/likelihood.py", "** 2 * found.variance", "* found.variance",
          "exact/test_matching.py"),
    Fault("objective/likelihood.py", "math.log(2 * math.pi) / 2", "math.log(2 * math.pi)",
          "exact/test_matching.py"),
    Fault("objective/likelihood.py", "diffusion = steps * self._step", "diffusion = self._step",
          "exact/test_matching.py"),
    Fault("objective/likelihood.py", "(stop - start) * Likelihood()", "Likelihood()",
          "exact/test_matching.py"),
    Fault("objective/likelihood.py", ".clamp(min=1) * math.log(2)", ".clamp(min=1)",
          "exact/test_matching.py"),
    Fault("infer/density.py", "s**2 * trace) / sigma", "s * trace) / sigma",
          "exact/test_density.py"),
    Fault("infer/density.py", "(alpha * r - sigma * g) / s", "(alpha * r + sigma * g) / s",
          "exact/test_density.py"),
    Fault("infer/density.py", "(self.scale(process.t_max, x.device) / s)", "(s / self.scale(process.t_max, x.device))",
          "exact/test_density.py"),
    Fault("infer/density.py", "(y + ratio / 2 * z), h / 2", "(y + ratio * z), h / 2",
          "exact/test_density.py"),
    Fault("infer/density.py", "(x / sigma) - flow.size * math.log(sigma)", "(x / sigma)",
          "exact/test_density.py::test_the_density_of_a_mixture_integrates_to_one"),
    Fault("infer/density.py", "(first + 4 * middle + last) / 6", "(first + 4 * middle + last) / 12",
          "exact/test_density.py"),
    Fault("infer/density.py", "/ math.sqrt(log_det.shape[1])", "/ log_det.shape[1]",
          "exact/test_density.py::test_hutchinson_on_a_random_field"),
    Fault("infer/density.py", "/ math.sqrt(log_det.shape[1])", "* math.sqrt(log_det.shape[1])",
          "exact/test_density.py::test_hutchinson_on_a_random_field"),
    Fault("infer/sample.py", "evaluate(x, control.t)", "evaluate(x, control.s)",
          "exact/test_solver_orders.py::test_a_run_that_does_not_arrive_is_denoised_where_each_row_is"),
    Fault("infer/sample.py", "x = evaluate(x, control.t).x", "x = x / 2",
          "exact/test_default_sampler.py"),
    Fault("objective/likelihood.py", "(batch.x - found.x) ** 2 / variance + (2", "(2",
          "exact/test_matching.py::test_terms_of_the_discrete_bound"),
    Fault("objective/times.py", ".clamp(process.t_min, process.t_max)", ".clamp(max=process.t_max)",
          "contracts/test_objectives.py::test_a_law_stays_inside_a_process_that_ends_before_the_data"),
    Fault("objective/matching.py", "if not coupling.noise.is_law_of(model.noise)", "if False",
          "contracts/test_tracer_bridge.py::test_what_holds_for_noise_only_is_refused"),
    Fault("objective/players.py", 'return getattr(objective, "players", {})', "return {}",
          "contracts/test_tracer_gan.py::test_the_generator_finds_the_moments_of_the_data"),
    Fault("train/step.py", "*(player.net for player in players(objective).values())", "",
          "train/test_players.py::test_players_do_not_learn_from_validation"),
    Fault("objective/players.py", "        told(net)", "        pass",
          "contracts/test_tracer_gan.py::test_each_player_steps_by_its_own_loss_alone"),
    Fault("train/state.py", "self.optimizers[name].restore(own)", "pass",
          "contracts/test_tracer_gan.py::test_a_checkpoint_takes_up_the_game"),
    Fault("denoise/targets.py", "(most / least).log() / 2", "(most / least).log()",
          "exact/test_targets.py::test_the_learned_range_is_the_variance_of_ddpms_step"),
    Fault("data/ridge.py", "1 / (values + penalty * values[0])", "1 / (values + penalty)", "data/test_linear.py"),
    Fault("data/transforms.py", "x if self.power == 1 else np.sign(x) * np.abs(x) ** self.power",
          "x if self.power == 1 else np.abs(x) ** self.power", "data/test_transforms.py"),
    Fault("data/censored.py", "return mean - std * ratio, std**2", "return mean + std * ratio, std**2",
          "data/test_codec.py"),
    Fault("data/predictors.py", "tried.append(fitted((channel,), (own,)))", "pass", "data/test_predictors.py"),
    Fault("data/curves.py", "** 2 + variance) * weight", "** 2) * weight", "data/test_curves.py"),
    Fault("data/curves.py", "yield k, fold != k", "yield k, fold >= 0", "data/test_curves.py"),
    Fault("data/curves.py", "beside = np.bincount(at, left * right", "beside = np.bincount(at, right * right",
          "data/test_curves.py"),
    Fault("data/codec.py", "std[:, i] *= curve.widened", "std[:, i] /= curve.widened", "data/test_curves.py"),
    Fault("data/censored.py", "log_ndtr((mean[wet] - high) / std[wet])", "log_ndtr((high - mean[wet]) / std[wet])",
          "data/test_curves.py"),
    Fault("data/codec.py", "self.std[None][cut] - level)", "self.std[None][cut])", "data/test_codec.py"),
    Fault("data/codec.py", "share * ndtr(a)", "share", "data/test_codec.py"),
    Fault("data/codec.py", "np.exp(0.5 * log_amplitude", "np.exp(log_amplitude", "data/test_amplitude.py"),
    Fault("data/given_law.py", "there @ z[known] / self.floor", "there @ z[known]", "data/test_given_law.py"),
    Fault("data/given_law.py", "np.sqrt(self.floor) * rng", "self.floor * rng", "data/test_given_law.py"),
    Fault("data/given_law.py", "np.linalg.solve(root.T, rng", "np.linalg.solve(root, rng", "data/test_given_law.py"),
    Fault("data/given_law.py", "values - floor, 1e-12", "values, 1e-12", "data/test_given_law.py"),
    Fault("data/conserve.py", "return level - (share * cells).sum(-1)", "return level - cells.sum(-1)",
          "data/test_conserve.py"),
    Fault("data/conserve.py", "np.where(counted, cells, -np.inf).max(-1)", "cells.min(-1)", "data/test_conserve.py"),
    Fault("data/conserve.py", "in_blocks(~mask, factor)", "in_blocks(np.ones_like(mask), factor)",
          "data/test_conserve.py"),
    Fault("nets/unet.py", ".add_(skips.pop())", ".add_(0.5 * skips.pop())", "contracts/test_nets.py"),
    Fault("nets/members.py", "net.nets[number % len(net.nets)]", "net.nets[0]", "model/test_members.py"),
    Fault("distributions/regression.py", ".sum(0) / number", ".sum(0)", "model/test_members.py"),
    Fault("data/codec_fit.py", "usual[channel] -= codec.given_mean[source]", "pass", "data/test_codec.py"),
    Fault("data/amplitude.py", "- 2 * x", "- x", "data/test_amplitude.py"),
    Fault("data/amplitude.py", "return 0.5 * float(np.mean(log_variance + ratio))",
          "return 0.5 * float(np.mean(2 * log_variance + ratio))", "data/test_amplitude.py"),
    Fault("train/shared_errors.py", "self.share * (2 - self.share)", "self.share", "train/test_shared_errors.py"),
    Fault("train/shared_errors.py", "np.sqrt(len(mean))", "1", "train/test_shared_errors.py"),
    Fault("train/ema.py", "(self.exponent + 1)", "self.exponent", "train/test_train_loop.py"),
    Fault("verify/spread.py", "np.sqrt((members + 1) / members", "np.sqrt(members / (members + 1)",
          "verify/test_kernels.py"),
    Fault("verify/variogram.py", "drawn.var(axis=0, ddof=1) / members", "drawn.var(axis=0, ddof=1)",
          "verify/test_kernels.py"),
    Fault("verify/spectra.py", "last = np.full(last_size // 2 + 1, 2.0)", "last = np.full(last_size // 2 + 1, 1.0)",
          "verify/test_spectra.py"),
    Fault("verify/shift.py", "np.square(law.std_map)", "law.std_map", "contracts/test_scores.py"),
    Fault("verify/shift.py", "interval(one[1:] - one[0])", "interval(one[1:])", "verify/test_evaluate.py"),
    Fault("verify/verdict.py", "waves = [place,", "waves = [-place,", "verify/test_evaluate.py"),
    Fault("verify/verdict.py", "wavelength[worst]", "wavelength[0]", "verify/test_verdict.py"),
    Fault("verify/marginal.py", "return np.histogram(", "return 2 * np.histogram(", "verify/test_verdict.py"),
    Fault("verify/bootstrap.py", "exponent = 2.0 / 3.0", "exponent = 2.2 / 3.0", "verify/test_kernels.py"),
    Fault("train/step.py", "tally.add(diagnostics, len(batch))", "tally.add(diagnostics)", "train/test_train_loop.py"),
    Fault("train/tensors.py", "None if weight is None else weight[rows]", "None", "exact/test_fit.py"),
    Fault("report/plots.py", '("truth", "ensemble", "ratio"))', '("ensemble", "truth", "ratio"))', "report/test_words.py"),
    Fault("verify/training.py", "step <= 2 * last / 3", "step <= last", "train/test_train_loop.py"),
    Fault("verify/ranks.py", "1.0 / frequency.shape[-1]", "1.0 / (frequency.shape[-1] - 1)", "verify/test_kernels.py"),
]  # fmt: skip


def noticed(fault: Fault, source: Path) -> bool:
    """Whether the tests fail on a copy of the package that has the fault."""
    path = source / "undrift" / fault.path
    text = path.read_text()
    if text.count(fault.right) != 1:
        raise SystemExit(f"{fault.path} holds {fault.right!r} {text.count(fault.right)} times, expected once")
    wrong = text.replace(fault.right, fault.wrong)
    compile(wrong, fault.path, "exec")  # else no test could run, which is no notice
    path.write_text(wrong)
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", f"tests/{fault.tests}"]
    environment = {**os.environ, "PYTHONPATH": str(source)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    path.write_text(text)
    if done.returncode not in (0, 1, 2):  # 2: what a module of tests makes as it is imported already fails
        raise SystemExit(f"tests/{fault.tests} could not run:\n{done.stdout[-2000:]}")
    return done.returncode != 0


def main(names: list[str]) -> int:
    """Make the faults whose file's name holds one of the names, all without any; 1 if one goes unnoticed."""
    chosen = [fault for fault in FAULTS if not names or any(name in fault.path for name in names)]
    missed = []
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder)
        shutil.copytree(ROOT / "src" / "undrift", source / "undrift")
        for number, fault in enumerate(chosen, 1):
            seen = noticed(fault, source)
            missed += [] if seen else [fault]
            verb = "noticed" if seen else "MISSED "
            print(f"{number:3d}/{len(chosen)} {verb} {fault.path}: {fault.right} -> {fault.wrong}", flush=True)
    print(f"{len(chosen) - len(missed)} of {len(chosen)} faults are noticed")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
