"""The decision core: observation + objectives + profiles + state + now -> decision.

Pure: no clock, no input or output, no global state. The same function runs in the operator, in the agent, in tests and
in the replay of recorded traces in virtual time.
"""
