"""``kubectl edgefolio``: what a portfolio and its endpoints do, and why, for people at a terminal."""
