"""What a decision estimates: arrivals, compute factor, latency, memory."""
