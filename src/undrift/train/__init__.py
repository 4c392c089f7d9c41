"""Training that survives: the loop, its averages and schedules, checkpoints and the run directory.

The files are imported by name (``from undrift.train.loop import train``); ``durable``, ``manifest``, ``lock``, ``run``
and ``log`` do without torch, so that a run can be listed and reported at once.
"""
