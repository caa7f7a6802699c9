"""Which channels are removable, found by experiments on the sparse float64 net, without any compiler's reasoning.

A *layer* is a convolution or linear module; everything between layers is glue. For each call of a layer:

* an input column is **live** if its image differs between inputs (several scales, so that no ReLU hides it),
* it is **read** if changing it changes an output of the net (a gradient shows that it does; where the gradient is zero,
  large interventions must not change anything either),
* an output channel **feeds** a column of a layer if changing the channel changes that column while the outputs of all
  layers are held: then only glue lies between.

A channel is **needed** if it feeds a column that is live and read, or an output of the net directly. Every other
channel is free: all readers see the same image from it for every input, or do not look. Channels that feed one column
(an addition, a product) stand and fall together.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import nn

from exactness_support.channels import is_layer, width_of
from exactness_support.feeding import Feeds
from exactness_support.places import Place, Places, equal_groups, images, ones_of_groups, uneven_outputs
from exactness_support.recording import record


@dataclass(frozen=True)
class LayerOracle:
    """What the experiments say of one layer's output channels.

    ``live`` differ from input to input, and an output depends on them: they must stay. ``needed`` are these and others
    that act on what is live (a constant under attention along the channels, say). ``held`` are channels that nobody
    needs and yet cannot go: glue joins them with a needed one (an addition or a product of streams, a depthwise layer,
    equal groups), so that taking them out of one stream would take them out of the other; or their image, at some
    layer, is not the same everywhere, so that no bias can replace it. ``ones`` is how many channels stand for all those
    free ones that a layer with zero padding reads as one non-zero value.
    """

    name: str
    channels: int
    live: int
    needed: int
    held: int
    ones: int

    @property
    def fewest(self) -> int:
        """How many channels are left if everything removable is removed."""
        return self.needed + self.held + self.ones


def find_removable(module: nn.Module, inputs: torch.Tensor, *, seed: int = 0) -> dict[str, LayerOracle]:
    """The oracle's word on every layer of ``module`` (float64, evaluation mode), by name.

    ``inputs`` are ``[samples, channels, height, width]`` in float64; scaled copies are added here.
    """
    generator = torch.Generator().manual_seed(seed)
    names = {part: name for name, part in module.named_modules() if is_layer(part)}
    scaled = torch.cat([inputs, inputs * 4, -inputs * 20, inputs.roll(1, dims=-1) * 0.3])
    calls = record(module, names, scaled, generator)
    feeds = Feeds(module, names, calls, scaled[:1], generator, held=[call.given[:1] for call in calls])
    whole, whole_names = _with_whole_glue(module)
    # Positive everywhere, so that no zero factor hides that two streams are multiplied.
    positive = [torch.rand(call.given[:1].shape, generator=generator, dtype=call.given.dtype) + 0.5 for call in calls]
    joins = Feeds(whole, whole_names, calls, scaled[:1], generator, held=positive)
    places = Places(names)
    live: set[Place] = set()
    needed: set[Place] = set()
    for index, call in enumerate(calls):
        everything = list(range(width_of(call.module)))
        suspects = (~(call.live_channels & call.read_channels)).nonzero().flatten().tolist()
        live |= {places.channel(call, channel) for channel in set(everything) - set(suspects)}
        for channel, columns, reaches_output in feeds.of(index, suspects, signs=(1.0, -1.0)):
            acts = any(bool((calls[r].live_columns & calls[r].read_columns)[column]) for r, column in columns)
            if acts or reaches_output:
                needed.add(places.channel(call, channel))
        for channel, columns, _ in joins.of(index, everything, signs=(1.0,)):
            for reader, column in columns:
                places.join(places.channel(call, channel), places.column(calls[reader], column))
    needed |= live
    for call in calls:
        places.join_depthwise(call)
    kept = equal_groups(calls, places, {places.group(place) for place in needed})
    constants, uneven, groups = images(calls, places, kept)
    # Uneven images stay, and so does a channel that stands for constants: where groups are equal they weigh more.
    uneven |= uneven_outputs(calls, places, kept)
    kept = equal_groups(calls, places, kept | uneven | ones_of_groups(calls, places, constants))
    constants, _, groups = images(calls, places, kept)
    layers = [_layer(part, name, places, live, needed, kept, constants, groups) for part, name in names.items()]
    return {layer.name: layer for layer in layers}


def _layer(
    part: nn.Module,
    name: str,
    places: Places,
    live: set[Place],
    needed: set[Place],
    kept: set[Place],
    constants: set[Place],
    groups: dict[Place, int],
) -> LayerOracle:
    own: list[Place] = [("out", name, channel) for channel in range(width_of(part))]
    roots = [places.group(place) for place in own]
    # One place may hold several channels (pixel shuffle), and each group of a grouped reader needs its own.
    costs = [roots.count(root) * groups[root] for root in set(roots) & constants]
    return LayerOracle(
        name=name,
        channels=len(own),
        live=sum(place in live for place in own),
        needed=sum(place in needed for place in own),
        held=sum(place not in needed and root in kept for place, root in zip(own, roots, strict=True)),
        ones=max(costs, default=0),
    )


def _with_whole_glue(module: nn.Module) -> tuple[nn.Module, dict[nn.Module, str]]:
    """A copy in which every scale between the layers is positive: it shows which channels are joined by their shape."""
    whole = copy.deepcopy(module)
    names = {part: name for name, part in whole.named_modules() if is_layer(part)}
    with torch.no_grad():
        for part in whole.modules():
            if part not in names:
                for parameter in part.parameters(recurse=False):
                    parameter.abs_()
                    parameter[parameter == 0] = 1.0
    return whole, names
