"""HTTP gateway: the open inference protocol over HTTP in front of a Triton that serves gRPC alone.

Triton's own HTTP service parses what strangers send inside the server: deeply nested JSON and many tiny chunks end
Tritons before 25.07 (CVE-2025-23310, 23311). The gateway is a process of its own with bounds on size, depth, time and
memory; what it passes on are well-formed gRPC requests.
"""
