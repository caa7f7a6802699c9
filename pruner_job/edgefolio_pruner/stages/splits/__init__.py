"""Split members of a portfolio: plans of the dense model over several nodes, made, measured, and chosen."""
