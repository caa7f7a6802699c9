"""``kubectl edgefolio``: state and decisions of portfolios and their endpoints, at a terminal."""
