# Settings of the test bed; every script sources this file.  Whatever is set in the environment wins.

# What is built (binaries, images, Go's caches): worth keeping between runs.
BED_CACHE=${BED_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/edgefolio/cluster-bed}
# What one running cluster writes (keys, logs, etcd, container file systems): down.sh removes it.
# Keep the path short: a Unix socket's path has at most 107 characters.
BED_RUN=${BED_RUN:-/tmp/edgefolio-bed}

NODES=${NODES:-3}                       # edge nodes: edge-1 ... edge-N
NODE_CPUS=${NODE_CPUS:-}                # allocatable CPU per node, for example "2 1 0.5"; empty: the whole machine, each
NODE_CPUSETS=${NODE_CPUSETS:-}          # processors of each node, for example "0 1 0-1": a hog on one node leaves the other alone
NODE_MEMORY_MIB=${NODE_MEMORY_MIB:-}    # allocatable memory per node in MiB, for example "8192 4096 2048"; likewise
NODE_CLOCKS=${NODE_CLOCKS:-}            # yes: nodes whose clocks can be stepped (clock/clock.c)
NODE_DISK_MIB=${NODE_DISK_MIB:-}        # MiB of a disk of each node's own for what pods write; empty: the machine's
NODE_LOST_AFTER=${NODE_LOST_AFTER:-20s} # a silent node is NotReady after this long (upstream: 50s)
EVICT_AFTER=${EVICT_AFTER:-30}          # seconds until its pods are deleted (upstream: 300)
EXTRA_IMAGES=${EXTRA_IMAGES:-}          # image archives to import on every node beside pause and python
APISERVER_FLAGS=${APISERVER_FLAGS:-}    # more flags for kube-apiserver

BIN=$BED_CACHE/bin
IMAGES=$BED_CACHE/images
STORE=$BED_CACHE/store                  # a containerd's directory with these images: what every node begins with
PKI=$BED_RUN/pki
LOGS=$BED_RUN/log
PIDS=$BED_RUN/pid
ADMIN=$BED_RUN/kubeconfig

# One bridge joins the machine, the control plane ("central") and the nodes; nothing is routed out of the machine.
BRIDGE=bed0
CENTRAL_IP=10.240.0.1                   # network namespace "central": API server, etcd, DNS, metrics-server, S3
HOST_IP=10.240.0.2                      # the machine itself: where a test or an operator outside the cluster can listen
SERVICE_CIDR=10.96.0.0/16
SERVICE_API=10.96.0.1
SERVICE_DNS=10.96.0.10
POD_CIDR=10.244.0.0/16                  # node i has 10.244.i.0/24
S3_ACCESS_KEY=${S3_ACCESS_KEY:-bed}
S3_SECRET_KEY=${S3_SECRET_KEY:-bed-secret}

node_name() { echo "edge-$1"; }         # also the name of its network namespace and of its cable on the machine's side
node_ip() { echo "10.240.0.$((10 + $1))"; }
pod_cidr() { echo "10.244.$1.0/24"; }

export PATH=$BIN:$PATH:/usr/local/go/bin:/usr/sbin:/sbin

# start NAME COMMAND...: run in the background, detached, with a log and a remembered process id.
# The start time is noted beside the id, so that down.sh never ends a stranger that was given the same id later.
start() {
  local name=$1; shift
  setsid "$@" >"$LOGS/$name.log" 2>&1 </dev/null &
  echo "$! $(start_time $!)" >"$PIDS/$name"
}
start_time() { awk '{print $22}' "/proc/$1/stat" 2>/dev/null; }

# wait_for SECONDS COMMAND...: until the command succeeds
wait_for() {
  local end=$((SECONDS + $1)); shift
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $end ] || { echo "gave up waiting for: $*" >&2; return 1; }
    sleep 0.1
  done
}
