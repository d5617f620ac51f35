"""The engines of clusters by name."""

from fcos.running.engines.options import EngineOptions
from fcos.running.engines.protocol import Engine


def make_engine(name: str, options: EngineOptions) -> Engine:
    """Return the engine of a cluster.

    Raises:
        UserError: what it needs is not installed, or the cluster does not answer.
    """
    if name == "slurm":
        from fcos.running.engines.slurm import SlurmEngine

        return SlurmEngine(options)
    from fcos.running.engines.ray import RayEngine

    return RayEngine(options)
