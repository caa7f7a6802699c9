"""The pruning methods: one class in one module here is one method; :data:`METHODS` lists them."""
