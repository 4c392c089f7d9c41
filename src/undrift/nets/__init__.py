"""Networks: the U-Nets, the transformer, a perceptron, and the type of floating-point numbers they run in."""

from undrift.nets.dit import DiT
from undrift.nets.mlp import MLP
from undrift.nets.precision import evaluate, fastest_dtype
from undrift.nets.space_time import SpaceTimeUNet
from undrift.nets.unet import UNet

__all__ = ["MLP", "DiT", "SpaceTimeUNet", "UNet", "evaluate", "fastest_dtype"]
