"""A worker of a split model: what it says to its peers, and when. It stands alone: it imports nothing of ours."""
