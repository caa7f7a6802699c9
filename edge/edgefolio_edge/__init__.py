"""The agent beside Triton: sync, verify, observe, decide when cut off, switch. Needs the extra ``edge``."""
