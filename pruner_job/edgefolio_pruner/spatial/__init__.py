"""Exact spatial pruning: two compiler passes over the channels of a captured network.

:func:`capture` takes a module's graph, :func:`channel_groups` tells which channels go together, and :func:`compress`
removes every channel that provably does not matter and returns a smaller module with the same outputs.
"""

from .capture import CapturedModel, CaptureRefused, capture
from .compress import Compressed, compress
from .groups import ChannelGroup, ChannelSlice, channel_groups
from .macs import count_macs, count_parameters
from .report import Barrier, LayerChannels, SpatialReport

__all__ = [
    "Barrier",
    "CaptureRefused",
    "CapturedModel",
    "ChannelGroup",
    "ChannelSlice",
    "Compressed",
    "LayerChannels",
    "SpatialReport",
    "capture",
    "channel_groups",
    "compress",
    "count_macs",
    "count_parameters",
]
