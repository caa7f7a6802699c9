"""200 random networks: compressed exactly, nothing left that is removable, and the check has teeth."""

from __future__ import annotations

import pytest
import torch
from exactness_support.blocks import KINDS, Block
from exactness_support.check import assert_mutation_is_noticed, assert_removed_as_the_oracle_says, compress_exactly
from exactness_support.damage import damage
from exactness_support.graphs import INPUT_CHANNELS, Recipe, build, recipes
from exactness_support.trained import look_trained
from hypothesis import HealthCheck, Phase, example, given, reject, seed, settings

GRAPHS = 200
SHARDS = 8


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("shard", range(SHARDS))
def test_generated_graphs_are_compressed_exactly(shard: int) -> None:
    mutated: list[bool] = []
    freed: list[int] = []

    @seed(shard)
    @settings(
        max_examples=GRAPHS // SHARDS,
        deadline=None,
        database=None,
        # Recipes are small; to shrink one would take longer than all the tests.
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )
    @given(recipes())
    def check(recipe: Recipe) -> None:
        module = build(recipe)
        generator = torch.Generator().manual_seed(recipe.seed)
        samples = torch.randn(8, INPUT_CHANNELS, recipe.size, recipe.size, generator=generator)
        look_trained(module, samples, seed=recipe.seed)
        try:
            damage(module, samples, seed=recipe.seed, keep=module.head)
        except ValueError:
            reject()
        captured, compressed = compress_exactly(module, samples)
        mutated.append(assert_mutation_is_noticed(module, captured, samples))
        freed.append(assert_removed_as_the_oracle_says(module, compressed.report, samples))

    # Whatever hypothesis draws, each kind of block is met.
    for kind in sorted(KINDS)[shard::SHARDS]:
        check = example(Recipe(blocks=(Block(kind), Block(kind, kernel=1)), seed=shard))(check)
    check()
    assert len(mutated) >= GRAPHS // SHARDS
    # Damage must leave something to fold and to remove in nearly every graph, or the test proves little.
    assert sum(mutated) >= 0.8 * len(mutated)
    assert sum(count > 0 for count in freed) >= 0.9 * len(freed)
