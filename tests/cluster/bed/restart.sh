#!/bin/bash
# restart.sh NODE PROGRAM: end a node's kubelet, containerd or kube-proxy as a crash would, and start it again.
set -euo pipefail
. "$(dirname "$0")/settings.sh"
name=$1 program=$2
read -r pid born <"$PIDS/$name-$program"
[ "$(start_time "$pid")" = "$born" ] || { echo "$name-$program does not run" >&2; exit 1; }
mapfile -d '' -t command <"/proc/$pid/cmdline"
kill -9 "$pid"
while [ -e "/proc/$pid" ]; do sleep 0.05; done
for controller in $(awk '$3 == "cgroup" {print $2}' /proc/mounts); do
  echo "$BASHPID" >"$controller/edgefolio-bed-$name/cgroup.procs"
done
namespaces=$BED_RUN/ns
start "$name-$program" nsenter --net="/run/netns/$name" --mount="$namespaces/$name.mnt" --cgroup="$namespaces/$name.cgroup" -- "${command[@]}"
