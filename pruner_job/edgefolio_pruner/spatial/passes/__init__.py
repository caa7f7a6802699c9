"""Dataflow passes over a program's channels: constant propagation, need analysis, removal plan."""
