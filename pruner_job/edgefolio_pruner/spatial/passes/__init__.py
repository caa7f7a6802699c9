"""Dataflow passes over the channels of a program: constants forwards, needs backwards, and what to keep."""
