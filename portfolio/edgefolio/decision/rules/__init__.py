"""The rules of the decision, one function each, in the order that :mod:`edgefolio.decision.core` gives them."""
