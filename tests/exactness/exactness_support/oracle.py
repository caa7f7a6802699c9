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

import contextlib
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

#: A change below this share of a tensor's largest value is rounding (float64).
_TOLERANCE = 1e-11
_CHUNK = 128
_DISTURBED_RUNS = 8
#: Interventions spent on telling unread columns from columns that only look so; after them the rest count as read.
_SEARCHES = 60


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


@dataclass
class _Call:
    """One call of one layer in the recorded run; ``base`` tensors are of the first sample."""

    module: nn.Module
    received: torch.Tensor
    given: torch.Tensor
    live_columns: torch.Tensor
    live_channels: torch.Tensor
    read_columns: torch.Tensor
    read_channels: torch.Tensor


def find_removable(module: nn.Module, inputs: torch.Tensor, *, seed: int = 0) -> dict[str, LayerOracle]:
    """The oracle's word on every layer of ``module`` (float64, evaluation mode), by name.

    ``inputs`` are ``[samples, channels, height, width]`` in float64; scaled copies are added here.
    """
    generator = torch.Generator().manual_seed(seed)
    names = {part: name for name, part in module.named_modules() if is_layer(part)}
    scaled = torch.cat([inputs, inputs * 4, -inputs * 20, inputs.roll(1, dims=-1) * 0.3])
    calls = _record(module, names, scaled, generator)
    feeds = _Feeds(module, names, calls, scaled[:1], generator, held=[call.given[:1] for call in calls])
    whole, whole_names = _with_whole_glue(module)
    # Positive everywhere, so that no zero factor hides that two streams are multiplied.
    positive = [torch.rand(call.given[:1].shape, generator=generator, dtype=call.given.dtype) + 0.5 for call in calls]
    joins = _Feeds(whole, whole_names, calls, scaled[:1], generator, held=positive)
    places = _Places(names)
    live: set[_Place] = set()
    needed: set[_Place] = set()
    for index, call in enumerate(calls):
        everything = list(range(width(call.module)))
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
    kept = _equal_groups(calls, places, {places.group(place) for place in needed})
    constants, uneven, groups = _images(calls, places, kept)
    # Uneven images stay, and so does a channel that stands for constants: where groups are equal they weigh more.
    uneven |= _uneven_outputs(calls, places, kept)
    kept = _equal_groups(calls, places, kept | uneven | _ones_of_groups(calls, places, constants))
    constants, _, groups = _images(calls, places, kept)
    layers = [_layer(part, name, places, live, needed, kept, constants, groups) for part, name in names.items()]
    return {layer.name: layer for layer in layers}


_Place = tuple[str, str, int]


class _Places:
    """Output channels and input columns of the layers, and which of them glue joins into one (a union-find)."""

    def __init__(self, names: dict[nn.Module, str]) -> None:
        self._names = names
        self._parents: dict[_Place, _Place] = {}

    def channel(self, call: _Call, channel: int) -> _Place:
        return ("out", self._names[call.module], channel)

    def column(self, call: _Call, column: int) -> _Place:
        return ("in", self._names[call.module], column)

    def group(self, place: _Place) -> _Place:
        while place in self._parents:
            place = self._parents[place]
        return place

    def join(self, one: _Place, other: _Place) -> None:
        one, other = self.group(one), self.group(other)
        if one != other:
            self._parents[max(one, other)] = min(one, other)

    def join_depthwise(self, call: _Call) -> None:
        part = call.module
        if isinstance(part, _ConvNd) and part.groups == part.in_channels > 1:
            for channel in range(part.out_channels):
                self.join(self.channel(call, channel), self.column(call, channel * part.groups // part.out_channels))


def _equal_groups(calls: list[_Call], places: _Places, kept: set[_Place]) -> set[_Place]:
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


def _ones_of_groups(calls: list[_Call], places: _Places, constants: set[_Place]) -> set[_Place]:
    """For each group of a grouped convolution that reads constants, one of them."""
    chosen: set[_Place] = set()
    for call in calls:
        part = call.module
        if isinstance(part, _ConvNd) and 1 < part.groups < part.in_channels:
            read = [places.group(places.column(call, column)) for column in range(part.in_channels)]
            size = len(read) // part.groups
            for start in range(0, len(read), size):
                chosen |= set([place for place in read[start : start + size] if place in constants][:1])
    return chosen


def _images(
    calls: list[_Call], places: _Places, kept: set[_Place]
) -> tuple[set[_Place], set[_Place], dict[_Place, int]]:
    """Free places that a layer with zero padding reads as one value, with its groups; and places of uneven images."""
    constants: set[_Place] = set()
    uneven: set[_Place] = set()
    groups: dict[_Place, int] = {}
    for call in calls:
        flat = _channels_first(call.module, call.received)[0]
        padded = _has_zero_padding(call.module)
        for column, image in enumerate(flat):
            place = places.group(places.column(call, column))
            size = float(image.abs().max())
            if place in kept or size == 0:
                continue
            # An image of one position may be even or the edge of an uneven one: nobody can tell.
            if (len(image) == 1 and padded) or float((image - image[0]).abs().max()) > _TOLERANCE * size:
                uneven.add(place)
            elif padded and bool(call.read_columns[column]):
                constants.add(place)
                groups[place] = max(groups.get(place, 1), getattr(call.module, "groups", 1))
    return constants - uneven, uneven, groups


def _uneven_outputs(calls: list[_Call], places: _Places, kept: set[_Place]) -> set[_Place]:
    """Free places that hold an uneven image at a layer's output, or several of its channels in turns, and are read.

    Glue may make it even again: a ReLU that cuts all of it to zero, a pool over the four constants of a pixel shuffle.
    The compiler does not follow the values of uneven images (a documented limit), so it keeps them.
    """
    uneven: set[_Place] = set()
    read = {
        places.group(places.column(call, column))
        for call in calls
        for column in call.read_columns.nonzero().flatten().tolist()
    }
    for call in calls:
        flat = _channels_first(call.module, call.given)[0]
        seen: set[_Place] = set()
        for channel, image in enumerate(flat):
            place = places.group(places.channel(call, channel))
            if place in kept or bool(call.live_channels[channel]) or place not in read:
                continue
            differs = float((image - image[0]).abs().max()) > _TOLERANCE * float(image.abs().max())
            if place in seen or (differs and bool(call.read_channels[channel])):
                uneven.add(place)
            seen.add(place)
    return uneven


def _layer(
    part: nn.Module,
    name: str,
    places: _Places,
    live: set[_Place],
    needed: set[_Place],
    kept: set[_Place],
    constants: set[_Place],
    groups: dict[_Place, int],
) -> LayerOracle:
    own: list[_Place] = [("out", name, channel) for channel in range(width(part))]
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


def is_layer(part: nn.Module) -> bool:
    """A convolution or linear layer over channels (a one-channel 1-D convolution slides along the channels: glue)."""
    if isinstance(part, nn.Conv1d) and part.in_channels == 1:
        return False
    return isinstance(part, _ConvNd | nn.Linear)


def width(part: nn.Module) -> int:
    """The layer's output channels."""
    return int(part.out_features if isinstance(part, nn.Linear) else part.out_channels)  # type: ignore[arg-type]


def _axis(part: nn.Module, tensor: torch.Tensor) -> int:
    return tensor.ndim - 1 if isinstance(part, nn.Linear) else 1


def _has_zero_padding(part: nn.Module) -> bool:
    if isinstance(part, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d):
        return True
    if not isinstance(part, _ConvNd) or part.padding_mode != "zeros":
        return False
    return part.padding == "same" or (part.padding != "valid" and any(part.padding))


def _channels_first(part: nn.Module, tensor: torch.Tensor) -> torch.Tensor:
    """``[samples, channels, positions]``."""
    moved = tensor.movedim(_axis(part, tensor), 1)
    return moved.reshape(moved.shape[0], moved.shape[1], -1)


def _varying(part: nn.Module, tensor: torch.Tensor) -> torch.Tensor:
    flat = _channels_first(part, tensor)
    scale = float(flat.abs().max())
    return (flat - flat[:1]).abs().amax(dim=(0, 2)) > _TOLERANCE * scale


def _leaves(outputs: object) -> list[torch.Tensor]:
    leaves, _ = torch.utils._pytree.tree_flatten(outputs)
    return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]


@contextlib.contextmanager
def _hooked(
    names: dict[nn.Module, str], forward: Callable[[nn.Module, torch.Tensor], torch.Tensor | None]
) -> Iterator[None]:
    """Replace each layer's forward by ``forward`` (which may return ``None`` for its own)."""
    originals = {part: part.forward for part in names}

    def replaced(part: nn.Module) -> Callable[..., torch.Tensor]:
        def call(received: torch.Tensor, *rest: object, **named: object) -> torch.Tensor:
            given = forward(part, received)
            return originals[part](received, *rest, **named) if given is None else given

        return call

    try:
        for part in names:
            part.forward = replaced(part)  # type: ignore[method-assign]
        yield
    finally:
        for part in names:
            del part.forward


def _record(
    module: nn.Module, names: dict[nn.Module, str], inputs: torch.Tensor, generator: torch.Generator
) -> list[_Call]:
    calls = _run_with_gradients(module, names, inputs, generator)
    for call in calls:
        call.live_columns = _varying(call.module, call.received)
        call.live_channels = _varying(call.module, call.given)
    # A ReLU that is off for these inputs is not off for all: what is live is disturbed, to see what else moves.
    for _ in range(_DISTURBED_RUNS):
        live = [call.live_columns for call in calls]
        for call, other in zip(calls, _run_with_gradients(module, names, inputs, generator, noise=live), strict=True):
            call.live_columns = call.live_columns | _varying(other.module, other.received)
            call.live_channels = call.live_channels | _varying(other.module, other.given)
    # A gradient at a point where a ReLU is off or a gate is saturated says nothing: look from other points too.
    everything = [torch.ones_like(call.live_columns) for call in calls]
    for _ in range(_DISTURBED_RUNS):
        runs = _run_with_gradients(module, names, inputs, generator, noise=everything)
        for call, other in zip(calls, runs, strict=True):
            call.read_columns |= other.read_columns
            call.read_channels |= other.read_channels
    _confirm_unread(module, names, calls, inputs, generator)
    return calls


def _run_with_gradients(
    module: nn.Module,
    names: dict[nn.Module, str],
    inputs: torch.Tensor,
    generator: torch.Generator,
    *,
    noise: list[torch.Tensor] | None = None,
) -> list[_Call]:
    """One run; ``read_*`` is where a gradient arrives.

    ``noise`` tells for each call which of its input columns are disturbed: each sample by another share of the input's
    size, from 1 % to a hundredfold. ``received`` is what arrived before that.
    """
    calls: list[_Call] = []
    tracked: list[tuple[torch.Tensor, torch.Tensor]] = []

    def forward(part: nn.Module, received: torch.Tensor) -> torch.Tensor:
        arrived = received.detach()
        # A new tensor even without noise: another reader's gradient must not be counted here.
        received = received.clone()
        if noise is not None:
            size = 10 ** (4 * torch.rand(len(received), generator=generator, dtype=received.dtype) - 2)
            size = size * (0.1 + float(arrived.abs().max()))
            disturbance = torch.randn(received.shape, generator=generator, dtype=received.dtype)
            disturbance = disturbance * size.reshape(-1, *[1] * (received.ndim - 1))
            shape = [1] * received.ndim
            shape[_axis(part, received)] = -1
            received = received + disturbance * noise[len(calls)].reshape(shape)
        received.retain_grad()
        given = type(part).forward(part, received)
        given.retain_grad()
        tracked.append((received, given))
        none = torch.zeros(0, dtype=torch.bool)
        calls.append(_Call(part, arrived, given.detach(), none, none, none, none))
        return given.clone()  # glue such as an in-place ReLU may write into it

    with _hooked(names, forward):
        outputs = _leaves(module(inputs.clone().requires_grad_(True)))
    loss = torch.stack(
        [(output * torch.randn(output.shape, generator=generator, dtype=output.dtype)).sum() for output in outputs]
    ).sum()
    loss.backward()
    for call, (received, given) in zip(calls, tracked, strict=True):
        call.read_columns = _has_gradient(call.module, received)
        call.read_channels = _has_gradient(call.module, given)
    module.zero_grad(set_to_none=True)
    return calls


def _has_gradient(part: nn.Module, tensor: torch.Tensor) -> torch.Tensor:
    gradient = tensor.grad if tensor.grad is not None else torch.zeros_like(tensor)
    return _channels_first(part, gradient).abs().amax(dim=(0, 2)) > 0


def _confirm_unread(
    module: nn.Module,
    names: dict[nn.Module, str],
    calls: list[_Call],
    inputs: torch.Tensor,
    generator: torch.Generator,
) -> None:
    """Large interventions on the columns without a gradient; those that change an output are read after all."""
    with torch.no_grad():
        expected = _leaves(module(inputs))

    def changes(chosen: dict[int, torch.Tensor]) -> bool:
        for scale in (1.0, 30.0):
            position = -1

            def forward(part: nn.Module, received: torch.Tensor, scale: float = scale) -> torch.Tensor | None:
                nonlocal position
                position += 1
                if position not in chosen:
                    return None
                shape = [1] * received.ndim
                shape[_axis(part, received)] = -1
                mask = chosen[position].to(received.dtype).reshape(shape)
                size = scale * (1.0 + float(received.abs().max()))
                noise = torch.randn(received.shape, generator=generator, dtype=received.dtype) * size
                return type(part).forward(part, received + mask * noise)

            with torch.no_grad(), _hooked(names, forward):
                got = _leaves(module(inputs))
            for one, other in zip(expected, got, strict=True):
                if float((one - other).abs().max()) > _TOLERANCE * float(one.abs().max()):
                    return True
        return False

    left = _SEARCHES

    def search(chosen: dict[int, torch.Tensor]) -> None:
        nonlocal left
        left -= 1
        total = sum(int(mask.sum()) for mask in chosen.values())
        if total == 0 or (left >= 0 and not changes(chosen)):
            return
        if total == 1 or left < 0:
            for index, mask in chosen.items():
                calls[index].read_columns |= mask
            return
        for half in _halves(chosen, total):
            search(half)

    search({index: ~call.read_columns for index, call in enumerate(calls) if not bool(call.read_columns.all())})


def _halves(chosen: dict[int, torch.Tensor], total: int) -> Iterator[dict[int, torch.Tensor]]:
    columns = [(index, int(column)) for index, mask in chosen.items() for column in mask.nonzero()]
    for part in (columns[: total // 2], columns[total // 2 :]):
        half: dict[int, torch.Tensor] = {}
        for index, column in part:
            half.setdefault(index, torch.zeros_like(chosen[index]))[column] = True
        yield half


class _Feeds:
    """Where an output channel arrives when only glue may carry it: all layers' outputs are held."""

    def __init__(
        self,
        module: nn.Module,
        names: dict[nn.Module, str],
        calls: list[_Call],
        image: torch.Tensor,
        generator: torch.Generator,
        *,
        held: list[torch.Tensor],
    ) -> None:
        self._held = held
        self._module, self._names, self._calls, self._image, self._generator = module, names, calls, image, generator

    def of(
        self, index: int, channels: list[int], *, signs: tuple[float, ...]
    ) -> Iterator[tuple[int, list[tuple[int, int]], bool]]:
        """For each channel of call ``index``: the ``(call, column)`` it changes, and whether it changes an output.

        Each channel is raised or lowered, or both: some glue lets only one of the two through.
        """
        for start in range(0, len(channels), _CHUNK):
            chosen = channels[start : start + _CHUNK]
            columns: list[set[tuple[int, int]]] = [set() for _ in chosen]
            reaches = [False] * len(chosen)
            for sign in signs:
                self._probe(index, chosen, sign, columns, reaches)
            for position, channel in enumerate(chosen):
                yield channel, sorted(columns[position]), reaches[position]

    def _probe(
        self, index: int, chosen: list[int], sign: float, columns: list[set[tuple[int, int]]], reaches: list[bool]
    ) -> None:
        # Sample 0 of the batch is untouched; sample 1 + i has channel chosen[i] changed.
        batch = len(chosen) + 1
        position = -1

        def forward(part: nn.Module, received: torch.Tensor) -> torch.Tensor:
            nonlocal position
            position += 1
            call = self._calls[position]
            flat = _channels_first(part, received)
            scale = float(flat[0].abs().max())
            moved = (flat - flat[:1]).abs().amax(dim=2) > _TOLERANCE * scale
            if bool(moved.any()):
                for sample, column in moved.nonzero().tolist():
                    columns[sample - 1].add((position, column))
            # A copy: glue such as an in-place ReLU writes into it.
            held = self._held[position].expand(batch, *call.given.shape[1:]).clone()
            if position != index:
                return held
            view = held.movedim(_axis(part, held), 1)
            for sample, channel in enumerate(chosen, start=1):
                # So large that no other term of a sum before a ReLU hides it.
                size = 1e3 * (1.0 + float(call.given.abs().max()))
                noise = torch.rand(view[sample, channel].shape, generator=self._generator, dtype=held.dtype)
                view[sample, channel] += sign * size * (0.5 + noise)
            return held

        with torch.no_grad(), _hooked(self._names, forward):
            outputs = _leaves(self._module(self._image.expand(batch, *self._image.shape[1:])))
        for output in outputs:
            changed = (output - output[:1]).abs().reshape(batch, -1).amax(dim=1) > _TOLERANCE * float(
                output.abs().max()
            )
            for sample in changed.nonzero().flatten().tolist():
                reaches[sample - 1] = True
