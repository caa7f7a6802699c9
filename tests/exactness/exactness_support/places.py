"""Channels and columns that glue joins into one place, and the places that stay though nobody needs them."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.conv import _ConvNd

from exactness_support.channels import TOLERANCE, channels_first, has_zero_padding
from exactness_support.recording import Call

Place = tuple[str, str, int]


class Places:
    """Output channels and input columns of the layers, and which of them glue joins into one (a union-find)."""

    def __init__(self, names: dict[nn.Module, str]) -> None:
        self._names = names
        self._parents: dict[Place, Place] = {}

    def channel(self, call: Call, channel: int) -> Place:
        return ("out", self._names[call.module], channel)

    def column(self, call: Call, column: int) -> Place:
        return ("in", self._names[call.module], column)

    def group(self, place: Place) -> Place:
        while place in self._parents:
            place = self._parents[place]
        return place

    def join(self, one: Place, other: Place) -> None:
        one, other = self.group(one), self.group(other)
        if one != other:
            self._parents[max(one, other)] = min(one, other)

    def join_depthwise(self, call: Call) -> None:
        part = call.module
        if isinstance(part, _ConvNd) and part.groups == part.in_channels > 1:
            for channel in range(part.out_channels):
                self.join(self.channel(call, channel), self.column(call, channel * part.groups // part.out_channels))


def equal_groups(calls: list[Call], places: Places, kept: set[Place]) -> set[Place]:
    """Add what must stay so that all groups of a grouped convolution keep equally many channels."""
    while True:
        before = len(kept)
        for call in calls:
            part = call.module
            if not isinstance(part, _ConvNd) or not 1 < part.groups < part.in_channels:
                continue
            read = [places.group(places.column(call, column)) for column in range(part.in_channels)]
            written = [places.group(places.channel(call, channel)) for channel in range(part.out_channels)]
            for side in (read, written):
                size = len(side) // part.groups
                groups = [side[start : start + size] for start in range(0, len(side), size)]
                most = max(sum(place in kept for place in group) for group in groups)
                for group in groups:
                    for place in group:
                        if sum(other in kept for other in group) < most:
                            kept.add(place)
        if len(kept) == before:
            return kept


def ones_of_groups(calls: list[Call], places: Places, constants: set[Place]) -> set[Place]:
    """For each group of a grouped convolution that reads constants, one of them."""
    chosen: set[Place] = set()
    for call in calls:
        part = call.module
        if isinstance(part, _ConvNd) and 1 < part.groups < part.in_channels:
            read = [places.group(places.column(call, column)) for column in range(part.in_channels)]
            size = len(read) // part.groups
            for start in range(0, len(read), size):
                chosen |= set([place for place in read[start : start + size] if place in constants][:1])
    return chosen


def images(calls: list[Call], places: Places, kept: set[Place]) -> tuple[set[Place], set[Place], dict[Place, int]]:
    """Free places that a layer with zero padding reads as one value, with its groups; and places of uneven images."""
    constants: set[Place] = set()
    uneven: set[Place] = set()
    groups: dict[Place, int] = {}
    for call in calls:
        flat = channels_first(call.module, call.received)[0]
        padded = has_zero_padding(call.module)
        for column, image in enumerate(flat):
            place = places.group(places.column(call, column))
            size = float(image.abs().max())
            if place in kept or size == 0:
                continue
            # An image of one position may be even or the edge of an uneven one: nobody can tell.
            if (len(image) == 1 and padded) or float((image - image[0]).abs().max()) > TOLERANCE * size:
                uneven.add(place)
            elif padded and bool(call.read_columns[column]):
                constants.add(place)
                groups[place] = max(groups.get(place, 1), getattr(call.module, "groups", 1))
    return constants - uneven, uneven, groups


def uneven_outputs(calls: list[Call], places: Places, kept: set[Place]) -> set[Place]:
    """Free places that hold an uneven image at a layer's output, or several of its channels in turns, and are read.

    Glue may make it even again: a ReLU that cuts all of it to zero, a pool over the four constants of a pixel shuffle.
    The compiler does not follow the values of uneven images (a documented limit), so it keeps them.
    """
    uneven: set[Place] = set()
    read = {
        places.group(places.column(call, column))
        for call in calls
        for column in call.read_columns.nonzero().flatten().tolist()
    }
    for call in calls:
        flat = channels_first(call.module, call.given)[0]
        seen: set[Place] = set()
        for channel, image in enumerate(flat):
            place = places.group(places.channel(call, channel))
            if place in kept or bool(call.live_channels[channel]) or place not in read:
                continue
            differs = float((image - image[0]).abs().max()) > TOLERANCE * float(image.abs().max())
            if place in seen or (differs and bool(call.read_channels[channel])):
                uneven.add(place)
            seen.add(place)
    return uneven
