"""One small net for each way in which layers are joined."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from spatial_support.nets import after, difference, lively, shrink, silence, zero_norm
from torch import nn

from edgefolio_pruner.spatial import capture, compress


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 1)
        self.inner = nn.Conv2d(6, 5, 3, padding=1)
        self.outer = nn.Conv2d(5, 6, 3, padding=1)
        self.head = nn.Conv2d(6, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        return self.head(F.relu(x + self.outer(F.relu(self.inner(x)))))


def test_a_stream_loses_what_is_constant_in_all_its_writers() -> None:
    module = lively(Residual())
    silence(module.stem, [0, 1, 2], bias=0.0)
    silence(module.outer, [1, 2, 3], bias=0.5)
    # Channel 0 lives through outer, 3 through stem; 1 and 2 are zero for inner and constant for head.
    assert after(shrink(module, (3, 8, 8))) == {"stem": 4, "inner": 5, "outer": 4, "head": 4}


def test_an_empty_branch_becomes_its_constant() -> None:
    module = lively(Residual())
    silence(module.inner, list(range(5)), bias=-0.5)
    compressed = shrink(module, (3, 8, 8))
    # The branch adds a constant to each channel, which all live through the stem.
    assert after(compressed) == {"stem": 6, "inner": 0, "outer": 6, "head": 4}
    assert not any(name.startswith("inner") or name == "outer.weight" for name in compressed.module.state_dict())


def test_a_net_that_ignores_its_input_becomes_a_constant() -> None:
    module = lively(
        nn.Sequential(
            nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
        )
    )
    silence(module[0], list(range(6)))
    compressed = shrink(module, (3, 8, 8))
    assert after(compressed) == {"0": 0, "2": 0, "5": 3}
    assert compressed.report.macs_after == 0


class Depthwise(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.expand = nn.Conv2d(4, 8, 1)
        self.norm = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 16, 3, padding=1, groups=8)
        self.project = nn.Conv2d(16, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.project(F.hardswish(self.depthwise(F.relu6(self.norm(self.expand(x))))))


def test_a_depthwise_layer_loses_whole_groups() -> None:
    module = lively(Depthwise())
    silence(module.expand, [0, 1])
    zero_norm(module.norm, [0, 1, 2])
    with torch.no_grad():
        module.norm.bias[1] = 0.5
        module.project.weight[:, [12, 13]] = 0
    silence(module.depthwise, [6])
    # 0 and 2 are zero and 6 is unread; 1 has edges; of 3 only one of two outputs is constant.
    assert after(shrink(module, (4, 8, 8))) == {"expand": 5, "depthwise": 10, "project": 4}


def test_groups_stay_equally_large() -> None:
    module = lively(nn.Sequential(nn.Conv2d(3, 12, 1), nn.Conv2d(12, 8, 3, groups=4), nn.Conv2d(8, 4, 1)))
    silence(module[0], [0, 1, 3, 6, 9, 10, 11])
    silence(module[1], [6, 7, 0])
    # Live inputs per group: 1, 2, 2, 0; live outputs: 1, 2, 2, 0. The last group goes.
    compressed = shrink(module, (3, 8, 8))
    assert after(compressed) == {"0": 6, "1": 6, "2": 4}
    assert "equal groups: 1" in compressed.report.layers[0].kept_because


def test_one_channel_stands_for_constants_where_its_group_has_room() -> None:
    module = lively(
        nn.Sequential(nn.Conv2d(4, 8, 1, groups=2), nn.Conv2d(8, 5, 3, padding=1), nn.ReLU(), nn.Conv2d(5, 3, 1))
    )
    # The constant of the first group is larger, but there it would force a filler into the second.
    silence(module[0], [0], bias=2.0)
    silence(module[0], [4, 5], bias=0.5)
    compressed = shrink(module, (4, 8, 8))
    assert after(compressed) == {"0": 6, "1": 5, "3": 3}
    assert compressed.report.layers[0].merged_border == 2


class Dense(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 1)
        self.second = nn.Conv2d(4, 4, 1)
        self.third = nn.Conv2d(8, 6, 1)
        self.head = nn.Linear(6 * 9, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first(x)
        y = torch.cat([y, torch.relu(self.second(y))], 1)
        front, back = torch.split(self.third(y), [2, 4], 1)
        first, second = back.chunk(2, 1)
        return self.head(torch.cat([second, front, first], 1).flatten(1))


def test_concatenation_splits_and_flatten() -> None:
    module = lively(Dense())
    silence(module.first, [1])
    silence(module.second, [0, 3], bias=-1.0)
    silence(module.third, [0, 2, 3], bias=0.3)
    compressed = shrink(module, (3, 3, 3))
    assert after(compressed) == {"first": 3, "second": 2, "third": 3, "head": 5}
    assert compressed.module.get_parameter("head.weight").shape == (5, 3 * 9)


class Shuffle(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(4, 8, 1)
        self.second = nn.Conv2d(8, 8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        n, c, h, w = x.shape
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, c, h, w)
        left, right = x.chunk(2, dim=1)
        return torch.cat([left, self.second(x)[:, :4] * right], 1)


def test_any_channels_go_through_a_shuffle() -> None:
    module = lively(nn.Sequential(Shuffle(), nn.Conv2d(8, 3, 1)))
    silence(module[0].first, [0, 2, 3, 5], bias=0.0)
    # After the shuffle the order is 0 4 1 5 | 2 6 3 7; of the second layer only rows that gate live channels are read.
    assert after(shrink(module, (4, 6, 6))) == {"0.first": 4, "0.second": 2, "1": 3}


class Gated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 6, 3, padding=1)
        self.reduce = nn.Conv2d(6, 3, 1)
        self.grow = nn.Conv2d(3, 6, 1)
        self.head = nn.Conv2d(6, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.body(x)
        gate = torch.sigmoid(self.grow(F.relu(self.reduce(x.mean((2, 3), keepdim=True)))))
        return self.head(x * gate)


def test_a_gate_makes_constants_live_and_leaves_zeros() -> None:
    module = lively(Gated())
    silence(module.body, [0, 1], bias=0.0)
    silence(module.body, [2], bias=0.7)
    silence(module.reduce, [1], bias=0.4)
    assert after(shrink(module, (3, 8, 8))) == {"body": 4, "reduce": 2, "grow": 4, "head": 4}


def test_pixel_shuffle_and_its_inverse() -> None:
    module = lively(nn.Sequential(nn.Conv2d(3, 16, 1), nn.PixelShuffle(2), nn.PixelUnshuffle(2), nn.Conv2d(16, 5, 1)))
    silence(module[0], [0, 1, 2, 3], bias=0.5)
    silence(module[0], [4, 5, 6], bias=0.5)
    silence(module[0], [8, 9, 10, 11], bias=0.0)
    assert after(shrink(module, (3, 4, 4))) == {"0": 8, "3": 5}


def test_transposed_convolutions() -> None:
    module = lively(
        nn.Sequential(nn.Conv2d(3, 8, 1), nn.ConvTranspose2d(8, 6, 3, 2, 1, 1), nn.ReLU(), nn.Conv2d(6, 4, 1))
    )
    silence(module[0], [0, 1], bias=0.0)
    silence(module[0], [2, 3, 4], bias=0.5)
    with torch.no_grad():
        module[1].weight[:, [1, 2]] = 0
    # The three constants do not come out even, so one of them stands for all.
    compressed = shrink(module, (3, 5, 5))
    assert after(compressed) == {"0": 4, "1": 4, "3": 4}
    assert compressed.report.layers[0].merged_border == 2


def test_grouped_transposed_convolutions() -> None:
    module = lively(nn.Sequential(nn.Conv2d(3, 8, 1), nn.ConvTranspose2d(8, 12, 2, 2, groups=2), nn.Conv2d(12, 4, 1)))
    silence(module[0], [0, 6], bias=0.0)
    with torch.no_grad():
        module[1].weight[0:4, 1] = 0
        module[1].weight[4:8, [2, 3]] = 0
    assert after(shrink(module, (3, 5, 5))) == {"0": 6, "1": 10, "2": 4}


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 1)
        self.body = nn.Conv2d(6, 6, 3, padding=1)
        self.norms = nn.ModuleList([nn.BatchNorm2d(6), nn.BatchNorm2d(6)])
        self.head = nn.Conv2d(6, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for norm in self.norms:
            x = F.relu(norm(self.body(x)))
        return self.head(x)


def test_a_shared_layer_serves_all_its_call_sites() -> None:
    module = lively(Shared())
    silence(module.stem, [0, 1, 2], bias=0.0)
    zero_norm(module.norms[0], [0, 1])
    zero_norm(module.norms[1], [0, 2])
    silence(module.body, [0, 1, 2])
    # Channel 0 is zero at both call sites; 1 is constant for the head, 2 is read by the second call.
    compressed = shrink(module, (3, 8, 8))
    assert after(compressed) == {"stem": 4, "body": 4, "head": 4} or after(compressed) == {
        "stem": 5,
        "body": 5,
        "head": 4,
    }
    assert compressed.module.get_parameter("body.weight").shape[0] == after(compressed)["body"]
    assert sum("body.weight" in name for name in compressed.module.state_dict()) == 1


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Conv2d(3, 6, 1)
        self.vector = nn.Linear(5, 6)
        self.head = nn.Conv2d(6, 4, 1)
        self.side = nn.Linear(6, 2)

    def forward(self, image: torch.Tensor, vector: torch.Tensor) -> dict[str, torch.Tensor]:
        hidden = F.relu(self.vector(vector))
        return {"map": self.head(self.image(image) * hidden[:, :, None, None]), "side": self.side(hidden)}


def test_several_inputs_and_outputs() -> None:
    module = lively(TwoInputs())
    silence(module.image, [0, 1], bias=0.0)
    silence(module.vector, [1, 2], bias=-1.0)
    # Channel 0 is still read by the second output.
    assert after(shrink(module, (3, 4, 4), (5,))) == {"image": 4, "vector": 4, "head": 4, "side": 2}


class ZeroPaddedShortcut(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 1)
        self.body = nn.Conv2d(4, 8, 3, 2, 1)
        self.head = nn.Conv2d(8, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        return self.head(F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2)) + self.body(x))


def test_a_shortcut_padded_with_channels() -> None:
    module = lively(ZeroPaddedShortcut())
    silence(module.body, [0, 3, 7], bias=0.25)
    silence(module.stem, [1], bias=-0.5)
    # Stream channels 0, 3 and 7 are constant: 0 and 7 are padding, 3 is stem channel 1, which body reads under padding.
    compressed = shrink(module, (3, 8, 8))
    assert after(compressed) == {"stem": 4, "body": 6, "head": 3}


class ChannelsLast(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.norm = nn.LayerNorm(6)
        self.grow = nn.Linear(6, 12)
        self.shrink = nn.Linear(12, 6)
        self.gamma = nn.Parameter(torch.full((6,), 0.5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        return x + (self.shrink(F.gelu(self.grow(y))) * self.gamma).permute(0, 3, 1, 2)


def test_a_norm_over_channels_is_a_barrier_and_said_to_be_one() -> None:
    module = lively(nn.Sequential(nn.Conv2d(3, 6, 1), ChannelsLast(), nn.Conv2d(6, 4, 1)))
    silence(module[0], [0], bias=0.0)
    silence(module[1].grow, [1, 5, 7], bias=0.4)
    silence(module[1].grow, [8], bias=0.0)
    with torch.no_grad():
        module[1].shrink.weight[:, 9] = 0
    compressed = shrink(module, (3, 6, 6))
    assert after(compressed) == {"0": 6, "1.depthwise": 6, "1.grow": 7, "1.shrink": 6, "2": 4}
    assert [(b.operator, b.where.endswith("norm")) for b in compressed.report.barriers] == [
        ("aten.layer_norm.default", True)
    ]


def test_branches_chosen_by_softmax() -> None:
    class Selective(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.paths = nn.ModuleList([nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(3, 6, 5, padding=2)])
            self.choose = nn.Linear(6, 12)
            self.head = nn.Conv2d(6, 4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            both = torch.stack([path(x) for path in self.paths], dim=1)
            weights = self.choose(both.sum(1).mean((2, 3))).reshape(-1, 2, 6, 1, 1).softmax(1)
            return self.head((both * weights).sum(1))

    module = lively(Selective())
    silence(module.paths[0], [0, 1, 2], bias=0.0)
    silence(module.paths[1], [0, 1, 3], bias=0.0)
    assert after(shrink(module, (3, 8, 8))) == {"paths.0": 4, "paths.1": 4, "choose": 8, "head": 4}


def test_height_and_width_stay_free() -> None:
    module = lively(Residual())
    silence(module.stem, [1, 2], bias=0.0)
    silence(module.outer, [1, 2], bias=0.5)
    silence(module.inner, [0, 1, 2, 3, 4], bias=0.1)
    captured = capture(module, (torch.randn(2, 3, 9, 7, dtype=torch.float64),), dynamic_size=True)
    compressed = compress(captured)
    assert difference(module, compressed, (3, 12, 17)) <= 1e-9
    assert after(compressed)["stem"] == 4


def test_parameters_of_weights_computed_in_the_graph() -> None:
    class Standardized(nn.Conv2d):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            mean, deviation = self.weight.mean((1, 2, 3), True), self.weight.std((1, 2, 3), keepdim=True)
            return F.conv2d(x, (self.weight - mean) / (deviation + 1e-5), self.bias, padding=self.padding)

    module = lively(nn.Sequential(Standardized(3, 6, 3, padding=1), nn.ReLU(), Standardized(6, 4, 3)))
    silence(module[0], [0, 3], bias=0.5)
    assert [layer.after for layer in shrink(module, (3, 8, 8)).report.layers] == [4, 4]


def test_attention_along_the_channels() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Conv2d(3, 8, 3, padding=1)
            self.along = nn.Conv1d(1, 1, 3, padding=1, bias=False)
            self.head = nn.Conv2d(8, 4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.body(x)
            gate = torch.sigmoid(self.along(x.mean((2, 3)).unsqueeze(1)))
            return self.head(x * gate.transpose(1, 2).unsqueeze(-1))

    module = lively(Attention())
    silence(module.body, [0, 3, 4], bias=0.0)
    silence(module.body, [6], bias=0.8)
    # The constant is scaled by its neighbours' gate and so alive; zeros are filled in where the gates are computed.
    assert after(shrink(module, (3, 8, 8))) == {"body": 5, "head": 4}
    silence(module.body, [0, 1, 2, 3, 4, 5, 6, 7], bias=0.3)
    assert after(shrink(module, (3, 8, 8))) == {"body": 0, "head": 4}
