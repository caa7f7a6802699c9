"""Triton as a process: its wheel, command line, ports, secret options, start, end and record on disk."""
