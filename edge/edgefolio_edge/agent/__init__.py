"""The agent's loop: observe, decide or obey, switch, remember; and how it is put together."""
