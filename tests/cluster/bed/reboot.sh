#!/bin/bash
# reboot.sh NODE: end everything on a node at once, as a lost supply does, forget what lives in memory, and start it again.
# What is on its disk stays: images, pods' directories, emptyDir volumes that are not in memory.
set -euo pipefail
. "$(dirname "$0")/settings.sh"
name=$1 dir=$BED_RUN/$1 namespaces=$BED_RUN/ns
declare -A commands
for program in containerd kubelet kube-proxy; do
  read -r pid born <"$PIDS/$name-$program"
  [ "$(start_time "$pid")" = "$born" ] || { echo "$name-$program does not run" >&2; exit 1; }
  mapfile -d '' -t command <"/proc/$pid/cmdline"
  commands[$program]=$(printf '%q ' "${command[@]}")
done
for _ in $(seq 100); do
  pids=$(find /sys/fs/cgroup/pids/edgefolio-bed-"$name" -name cgroup.procs -exec cat {} + 2>/dev/null || true)
  [ -n "$pids" ] || break
  xargs -r kill -9 <<<"$pids" 2>/dev/null || true
  sleep 0.1
done
enter() { nsenter --net="/run/netns/$name" --mount="$namespaces/$name.mnt" --cgroup="$namespaces/$name.cgroup" -- "$@"; }
# Mounts do not survive: root file systems, volumes in memory, network namespaces. Nor do the pods' cables.
for _ in 1 2 3; do
  enter awk -v dir="$dir/" 'index($5, dir "state/") == 1 || index($5, dir "kubelet/pods/") == 1 {print $5}' /proc/self/mountinfo |
    sort -r | while read -r mount; do enter umount -l "$(printf '%b' "$mount")" 2>/dev/null || true; done
done
rm -rf "$dir"/state/* "$dir"/cni-addresses
ip -n "$name" link del cni0 2>/dev/null || true
for controller in $(awk '$3 == "cgroup" {print $2}' /proc/mounts); do
  # Not the groups above the pods': node.sh has given them their processors.
  find "$controller/edgefolio-bed-$name" -depth -type d -path '*/pod*' -exec rmdir {} + 2>/dev/null || true
done
join_cgroups() {
  for controller in $(awk '$3 == "cgroup" {print $2}' /proc/mounts); do
    echo "$BASHPID" >"$controller/edgefolio-bed-$name/cgroup.procs"
  done
}
for program in containerd kubelet kube-proxy; do
  eval "command=(${commands[$program]})"
  (join_cgroups; start "$name-$program" nsenter --net="/run/netns/$name" --mount="$namespaces/$name.mnt" --cgroup="$namespaces/$name.cgroup" -- "${command[@]}")
  if [ $program = containerd ]; then wait_for 20 ctr -a "$dir/containerd.sock" version; fi
done
