"""Dataflow passes over the channels of a program: constant propagation, need analysis, and what to keep."""
