"""Switches under load on a real Triton: failed requests, wrong answers, gaps, tail latency, time and memory."""
