#!/bin/bash
# End everything up.sh started and remove what it made.  Nothing of a cluster is kept, so nothing is asked to end gently;
# only processes that were noted, or that live in the nodes' cgroups (containerd, kubelet, all containers), are ended.
set -uo pipefail
. "$(dirname "$0")/settings.sh"
for note in "$PIDS"/*; do
  read -r pid born 2>/dev/null <"$note" || continue
  [ -n "$born" ] && [ "$(start_time "$pid")" = "$born" ] && kill -9 "$pid"    # the same process still, not a later one with its id
done
groups() { compgen -G '/sys/fs/cgroup/*/edgefolio-bed-edge-*'; }
for _ in $(seq 50); do
  for group in $(compgen -G '/sys/fs/cgroup/pids/edgefolio-bed-edge-*'); do
    find "$group" -name cgroup.procs -exec cat {} + | xargs -r kill -9
  done 2>/dev/null
  for group in $(groups); do find "$group" -depth -type d -exec rmdir {} + 2>/dev/null; done
  groups >/dev/null || break
  sleep 0.1
done
for namespace in "$BED_RUN"/ns/*; do umount "$namespace" 2>/dev/null; done
umount "$BED_RUN/ns" 2>/dev/null
for name in central $(ip netns list | awk '$1 ~ /^edge-[0-9]+$/ {print $1}'); do
  ip netns del "$name" 2>/dev/null
  ip link del "$name" 2>/dev/null
done
ip link del $BRIDGE 2>/dev/null                     # the machine's routes to the cluster go with it
if [ -f "$BED_RUN/sysctl.before" ]; then sysctl -q -p "$BED_RUN/sysctl.before"; fi
if [ -n "${KEEP_LOGS:-}" ]; then rm -rf "$KEEP_LOGS"; cp -r "$LOGS" "$KEEP_LOGS"; fi
rm -rf "$BED_RUN"
