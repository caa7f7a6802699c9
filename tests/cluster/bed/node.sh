#!/bin/bash
# One edge node (up.sh calls it): a network and a mount namespace with its own containerd, kubelet and kube-proxy.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/settings.sh"
i=$1 name=$(node_name "$1") ip=$(node_ip "$1")
dir=$BED_RUN/$name
mkdir -p "$dir"/{cni,containerd,state,kubelet,log/pods}
nth() { echo "$1" | cut -d' ' -f"$i" -s; [[ $1 == *" "* ]] || echo "$1"; }
cpus=$(nth "$NODE_CPUS") memory=$(nth "$NODE_MEMORY_MIB") cpuset=$(nth "$NODE_CPUSETS")

# A cgroup of its own in every (v1) controller.  A new cpuset is empty, and no process may enter it before it is filled.
controllers=()
for controller in $(awk '$3 == "cgroup" {print $2}' /proc/mounts); do
  controllers+=("$controller")
  mkdir -p "$controller/edgefolio-bed-$name"
  # A node is a machine of its own: what plays the data center beside it must not take its processors.
  if [ -e "$controller/edgefolio-bed-$name/cpu.shares" ]; then echo 100000 >"$controller/edgefolio-bed-$name/cpu.shares"; fi
  if [ -e "$controller/cpuset.cpus" ]; then
    for file in cpuset.cpus cpuset.mems; do cat "$controller/$file" >"$controller/edgefolio-bed-$name/$file"; done
  fi
done
# A slower node: everything on it, kubelet included, shares this quota.  A pod whose CPU limit is above it cannot start.
if [ -n "$cpus" ]; then
  for group in /sys/fs/cgroup/{cpu,"cpu,cpuacct"}/edgefolio-bed-$name/cpu.cfs_quota_us; do
    if [ -e "$group" ]; then awk -v cpus="$cpus" 'BEGIN {print int(cpus * 100000)}' >"$group"; break; fi
  done
fi
join_cgroups() { for group in "${controllers[@]}"; do echo "$BASHPID" >"$group/edgefolio-bed-$name/cgroup.procs"; done; }

# Mount and cgroup namespaces, kept alive by bind mounts; the node's mounts vanish with them.
namespaces=$BED_RUN/ns
exec 9>"$BED_RUN/ns.lock"; flock 9
if ! mountpoint -q "$namespaces"; then
  mkdir -p "$namespaces"
  mount -t tmpfs edgefolio-bed-ns "$namespaces"
  mount --make-private "$namespaces"          # a namespace file cannot be kept on a shared mount
fi
flock -u 9; exec 9>&-
touch "$namespaces/$name.mnt" "$namespaces/$name.cgroup"
(join_cgroups; exec unshare --mount="$namespaces/$name.mnt" --cgroup="$namespaces/$name.cgroup" --propagation private true)
# not `ip netns exec`: that mounts a new /sys, without the cgroups
enter() { nsenter --net="/run/netns/$name" --mount="$namespaces/$name.mnt" --cgroup="$namespaces/$name.cgroup" -- "$@"; }
# In it the node's cgroup is the root: figures and limits of "the machine" are the node's, not the sum of all nodes.
for controller in "${controllers[@]}"; do enter mount --bind "$controller/edgefolio-bed-$name" "$controller"; done
# Paths that kubelet hard-codes: shared, the nodes would use one device plugin socket and delete each other's log links.
for path in /var/lib/kubelet /var/log/containers; do
  mkdir -p $path "$dir$path"
  enter mount --bind "$dir$path" $path
done
# A disk of the node's own for the volumes of its pods, which can be filled. 5 % of it are root's, as usual.
if [ -n "$NODE_DISK_MIB" ]; then
  truncate -s "${NODE_DISK_MIB}M" "$dir/disk.img"
  mkfs.ext4 -q -O ^has_journal "$dir/disk.img"
  mkdir -p "$dir/disk" "$dir/kubelet/pods"
  enter mount -o loop "$dir/disk.img" "$dir/disk"
  enter mkdir -p "$dir/disk/pods" "$dir/disk/others"
  enter chmod 1777 "$dir/disk/others"
  enter mount --bind "$dir/disk/pods" "$dir/kubelet/pods"
fi
enter mount --make-rshared /                  # for mountPropagation: Bidirectional
start_here() { # PROGRAM COMMAND...
  local program=$1; shift
  (join_cgroups; start "$name-$program" nsenter --net="/run/netns/$name" --mount="$namespaces/$name.mnt" --cgroup="$namespaces/$name.cgroup" -- "$@")
}

# ---- containerd
runc=
if [ -n "$NODE_CLOCKS" ]; then
  head -c 8 /dev/zero >"$dir/clock"           # nanoseconds by which the node's clock is wrong
  chmod 644 "$dir/clock"
  printf '#!/bin/sh\nexec python3 %s %s %s "$@"\n' "$here/clock/runc.py" "$BED_RUN/clock.so" "$dir/clock" >"$dir/runc"
  chmod 755 "$dir/runc"
  runc="BinaryName = \"$dir/runc\""
fi
cat >"$dir/cni/10-bridge.conflist" <<K
{"cniVersion": "1.0.0", "name": "bed", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false, "hairpinMode": true,
   "ipam": {"type": "host-local", "dataDir": "$dir/cni-addresses", "ranges": [[{"subnet": "$(pod_cidr "$i")"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
K
cat >"$dir/containerd.toml" <<K
version = 3
root = "$dir/containerd"
state = "$dir/state"
disabled_plugins = ["io.containerd.snapshotter.v1.blockfile", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.erofs", "io.containerd.snapshotter.v1.zfs", "io.containerd.nri.v1.nri", "io.containerd.tracing.processor.v1.otlp"]
[grpc]
  address = "$dir/containerd.sock"
[ttrpc]
  address = "$dir/containerd.sock.ttrpc"
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "overlayfs"
  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = "bed.local/pause:1"
[plugins."io.containerd.cri.v1.runtime"]
  # Without CAP_SYS_RESOURCE nobody may lower oom_score_adj; runc would die for every pod ("can't get final child's PID").
  restrict_oom_score_adj = true
  disable_apparmor = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["/usr/lib/cni"]
    conf_dir = "$dir/cni"
  [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
      SystemdCgroup = false
      $runc
K
# The store that build.sh filled, as hard links: nothing ever writes into a layer. Its indices (*.db) are copied.
images=()
if [ -e "$STORE/.ready" ] && [ -z "$(find "$IMAGES" -name '*.tar' -newer "$STORE/.ready")" ] &&
  cp --archive --link "$STORE/." "$dir/containerd/" 2>/dev/null; then
  (cd "$STORE" && find . -name '*.db' -exec cp --remove-destination {} "$dir/containerd/{}" \;)
else
  rm -rf "$dir/containerd"                    # another file system, or there is a newer image
  images=("$IMAGES"/*.tar)
fi
start_here containerd containerd --config "$dir/containerd.toml"
wait_for 20 ctr -a "$dir/containerd.sock" version
for image in "${images[@]}" $EXTRA_IMAGES; do
  ctr -a "$dir/containerd.sock" -n k8s.io images import --local "$image" >>"$LOGS/$name-images.log" 2>&1
done

# ---- kubelet
# Every kubelet sees the whole machine; a smaller node is one that reserves the rest.  Pods feel the memory limit.
reserved=
if [ -n "$cpus" ]; then reserved+="cpu: $(awk -v want="$cpus" -v have="$(nproc)" 'BEGIN {print int((have - want) * 1000)}')m, "; fi
if [ -n "$memory" ]; then
  # allocatable = capacity - reserved - eviction threshold (100 MiB, below)
  reserved+="memory: $(awk -v want="$memory" '/^MemTotal/ {print $2 - (want + 100) * 1024}' /proc/meminfo)Ki"
fi
: >"$dir/resolv.conf"
cat >"$dir/kubelet.yaml" <<K
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $PKI/ca.crt}}
authorization: {mode: Webhook}
tlsCertFile: $PKI/$name.crt
tlsPrivateKeyFile: $PKI/$name.key
address: $ip
containerRuntimeEndpoint: unix://$dir/containerd.sock
podLogsDir: $dir/log/pods
failCgroupV1: false
cgroupDriver: cgroupfs
enforceNodeAllocatable: [pods]
systemReserved: {$reserved}
evictionHard: {memory.available: 100Mi, nodefs.available: "2%", imagefs.available: "2%"}
imageGCHighThresholdPercent: 100
failSwapOn: false
clusterDomain: cluster.local
clusterDNS: [$SERVICE_DNS]
resolvConf: $dir/resolv.conf
nodeStatusUpdateFrequency: 2s
nodeLeaseDurationSeconds: 10
syncFrequency: 10s
registryPullQPS: 0
K
start_here kubelet kubelet --config="$dir/kubelet.yaml" --kubeconfig="$PKI/$name.kubeconfig" --root-dir="$dir/kubelet" \
  --hostname-override="$name" --node-ip="$ip" --node-labels=bed/edge=true --volume-plugin-dir="$dir/volume-plugins" \
  --containerd="$dir/containerd.sock"     # cAdvisor's own connection: without it there are no figures per pod

# ---- kube-proxy
cat >"$dir/proxy.yaml" <<K
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clientConnection: {kubeconfig: $PKI/kube-proxy.kubeconfig}
clusterCIDR: $POD_CIDR
hostnameOverride: $name
mode: iptables
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}   # may not be set in a namespace
K
start_here kube-proxy kube-proxy --config="$dir/proxy.yaml"

# Pods copy the processors of the group above theirs.  (kubelet itself insists on all of the machine's.)
if [ -n "$cpuset" ]; then
  pods=$(compgen -G "/sys/fs/cgroup/*cpuset*/edgefolio-bed-$name" | head -n 1)/kubepods
  wait_for 60 test -e "$pods/besteffort/cpuset.cpus"
  wait_for 60 test -e "$pods/burstable/cpuset.cpus"
  for group in "$pods/besteffort" "$pods/burstable" "$pods"; do echo "$cpuset" >"$group/cpuset.cpus"; done
fi
