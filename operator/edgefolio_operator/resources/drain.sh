#!/bin/sh
# Drain of a serving pod that ends: what the kubelet runs before it tells Triton's container to end.
#
# Clients leave within the first seconds, since their connections end and new ones go elsewhere. Not all do: HTTP has no
# such limit, and in Triton 2.51 (gRPC 1.54) the timers of connections stand still for as long as the wall clock was set
# back. They are served for another while, as are long requests. The agent's connection, over loopback, does not count.
# @RESTART@ is the health file of a server that serves nobody.
[ ! -e @RESTART@ ] || exit 0
has_clients() {
  cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | {
    while read -r _ here there state _; do
      case "$here/$state" in *:@GRPC@/01 | *:@HTTP@/01) ;; *) continue ;; esac
      case "$there" in 0100007F:* | *FFFF00000100007F:* | 00000000000000000000000001000000:*) continue ;; esac
      exit 0
    done
    exit 1
  }
}
sleep @DRAIN@
seconds=0
while [ "$seconds" -lt @LATE@ ] && has_clients; do
  sleep 1
  seconds=$((seconds + 1))
done
