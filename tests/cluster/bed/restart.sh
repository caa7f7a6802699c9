#!/bin/bash
# restart.sh NODE PROGRAM: end a node's kubelet, containerd or kube-proxy as a crash would, and start it again.
# restart.sh central PROGRAM: the same for the API server or the controllers.
set -euo pipefail
. "$(dirname "$0")/settings.sh"
name=$1 program=$2
if [ "$name" = central ]; then note=$program; else note=$name-$program; fi
read -r pid born <"$PIDS/$note"
[ "$(start_time "$pid")" = "$born" ] || { echo "$note does not run" >&2; exit 1; }
mapfile -d '' -t command <"/proc/$pid/cmdline"
kill -9 "$pid"
while [ -e "/proc/$pid" ]; do sleep 0.05; done
if [ "$name" = central ]; then
  # A controller ends at once while an API server that has just started does not grant its rights yet. Elsewhere a
  # supervisor starts it again.
  for _ in $(seq 30); do
    start "$note" nsenter --net=/run/netns/central -- "${command[@]}"
    sleep 3
    read -r pid born <"$PIDS/$note"
    if [ "$(start_time "$pid" 2>/dev/null)" = "$born" ]; then exit 0; fi
  done
  echo "$note does not stay up" >&2
  exit 1
fi
for controller in $(awk '$3 == "cgroup" {print $2}' /proc/mounts); do
  echo "$BASHPID" >"$controller/edgefolio-bed-$name/cgroup.procs"
done
namespaces=$BED_RUN/ns
start "$note" nsenter --net="/run/netns/$name" --mount="$namespaces/$name.mnt" --cgroup="$namespaces/$name.cgroup" -- "${command[@]}"
