"""Exact spatial pruning: two compiler passes over the channels of a captured network.

:func:`capture` takes a module's graph, :func:`channel_groups` finds its tied channels, and :func:`compress`
removes every channel that provably does not affect the outputs and returns a smaller module.
"""

from edgefolio_pruner.spatial.attention_layers import AttentionLayer, HeadSlice, attention_layers
from edgefolio_pruner.spatial.channel_groups import ChannelGroup, ChannelSlice, channel_floor, channel_groups
from edgefolio_pruner.spatial.compress import Compressed, compress
from edgefolio_pruner.spatial.compression_report import LayerChannels, ReportedBarrier, SpatialReport
from edgefolio_pruner.spatial.graph.capture import CapturedModel, CaptureRefused, capture
from edgefolio_pruner.spatial.graph.macs import count_macs, count_parameters

__all__ = [
    "AttentionLayer",
    "CaptureRefused",
    "CapturedModel",
    "ChannelGroup",
    "ChannelSlice",
    "Compressed",
    "HeadSlice",
    "LayerChannels",
    "ReportedBarrier",
    "SpatialReport",
    "attention_layers",
    "capture",
    "channel_floor",
    "channel_groups",
    "compress",
    "count_macs",
    "count_parameters",
]
