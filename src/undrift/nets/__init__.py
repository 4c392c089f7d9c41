"""Networks: the U-Net, a perceptron, and the type of floating-point numbers it runs in."""

from undrift.nets.mlp import MLP
from undrift.nets.precision import evaluate, fastest_dtype
from undrift.nets.unet import UNet

__all__ = ["MLP", "UNet", "evaluate", "fastest_dtype"]
