"""Networks: the U-Net, and the type of floating-point numbers it runs in."""

from undrift.nets.precision import evaluate, fastest_dtype
from undrift.nets.unet import UNet

__all__ = ["UNet", "evaluate", "fastest_dtype"]
