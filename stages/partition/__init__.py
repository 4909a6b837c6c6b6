"""The manifest -> classes, groups and the long-tail view plan."""

from stages.partition.config import PartitionConfig
from stages.partition.run import PartitionResult, run

__all__ = ["PartitionConfig", "PartitionResult", "run"]
