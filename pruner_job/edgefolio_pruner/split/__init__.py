"""RePurpose: one trained model divided over several workers that compute one answer together.

A network is divided by owners of channels (:mod:`.dividing`, :mod:`.ownership`), the owners are chosen
(:mod:`.assignment`, :mod:`.swapping`), what workers send each other is pruned (:mod:`.sending`), the rest is adjusted
(:mod:`.adjusting`), and each worker gets its shard (:mod:`.shards`).
"""
