"""RePurpose: one trained model divided over several workers that compute one answer together.

A network is divided by rows (:mod:`.rows`), or by owners of channels: exchanges are inserted (:mod:`.exchanges`),
owners are chosen, what workers send each other is pruned and the rest is adjusted (:mod:`.channels`). Each worker gets
its shard (:mod:`.shards`).
"""
