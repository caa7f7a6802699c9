"""The agent beside Triton: sync, verify, observe, decide when alone, switch. Needs the extra ``edge``."""
