#!/bin/bash
# Start the cluster: control plane in the network namespace "central", then NODES edge nodes.  Needs build.sh's output.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/settings.sh"
began=$(date +%s%N)
say() { printf '%5d ms  %s\n' $((($(date +%s%N) - began) / 1000000)) "$*"; }
[ ! -e "$BED_RUN" ] || { echo "$BED_RUN exists: already up? (down.sh removes it)" >&2; exit 1; }
mkdir -p "$LOGS" "$PIDS"
"$here/certs.sh"
if [ -n "$NODE_CLOCKS" ]; then
  gcc -Wall -Wextra -shared -fPIC -O2 -o "$BED_RUN/clock.so" "$here/clock/clock.c"
  echo /run/bed-clock.so >"$BED_RUN/clock.so.preload"
fi

# a kubelet changes these for the whole machine; down.sh puts them back
sysctl vm.overcommit_memory kernel.panic kernel.panic_on_oops >"$BED_RUN/sysctl.before"

# ---- network
ip link add $BRIDGE type bridge
ip addr add $HOST_IP/24 dev $BRIDGE
ip link set $BRIDGE up
plug_in() { # NAMESPACE ADDRESS: a namespace with a cable to the bridge; the cable's other end has the namespace's name
  ip netns add "$1"
  ip link add "$1" type veth peer name eth0 netns "$1"
  ip link set "$1" master $BRIDGE up
  ip -n "$1" link set lo up
  ip -n "$1" addr add "$2/24" dev eth0
  ip -n "$1" link set eth0 up
}
plug_in central $CENTRAL_IP
for i in $(seq "$NODES"); do plug_in "$(node_name "$i")" "$(node_ip "$i")"; done
for i in $(seq "$NODES"); do
  for from in "" central $(seq "$NODES"); do
    case $from in "$i") continue;; [0-9]*) from=$(node_name "$from");; esac
    ip ${from:+-n $from} route add "$(pod_cidr "$i")" via "$(node_ip "$i")"
  done
  # on a node kube-proxy rewrites a service's address before it is sent; the route only has to exist
  ip -n "$(node_name "$i")" route add $SERVICE_CIDR via $CENTRAL_IP
  nsenter --net="/run/netns/$(node_name "$i")" sysctl -qw net.ipv4.ip_forward=1 net.bridge.bridge-nf-call-iptables=1
done
# elsewhere there is no kube-proxy: service addresses are reached through the first node
ip route add $SERVICE_CIDR via "$(node_ip 1)"
ip -n central route add $SERVICE_CIDR via "$(node_ip 1)"
say network

# ---- control plane
start_central() { local name=$1; shift; start "$name" nsenter --net=/run/netns/central -- "$@"; }
start_central etcd etcd --name central --data-dir "$BED_RUN/etcd" --unsafe-no-fsync --log-level warn
start_central kube-apiserver kube-apiserver \
  --bind-address=$CENTRAL_IP --advertise-address=$CENTRAL_IP --etcd-servers=http://127.0.0.1:2379 \
  --tls-cert-file="$PKI/apiserver.crt" --tls-private-key-file="$PKI/apiserver.key" --client-ca-file="$PKI/ca.crt" \
  --kubelet-client-certificate="$PKI/apiserver-kubelet.crt" --kubelet-client-key="$PKI/apiserver-kubelet.key" \
  --kubelet-certificate-authority="$PKI/ca.crt" --kubelet-preferred-address-types=InternalIP \
  --service-account-key-file="$PKI/sa.pub" --service-account-signing-key-file="$PKI/sa.key" \
  --service-account-issuer=https://kubernetes.default.svc.cluster.local \
  --requestheader-client-ca-file="$PKI/front-ca.crt" --requestheader-allowed-names=front-proxy \
  --requestheader-extra-headers-prefix=X-Remote-Extra- --requestheader-group-headers=X-Remote-Group --requestheader-username-headers=X-Remote-User \
  --proxy-client-cert-file="$PKI/front-proxy.crt" --proxy-client-key-file="$PKI/front-proxy.key" --enable-aggregator-routing=true \
  --service-cluster-ip-range=$SERVICE_CIDR --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction --allow-privileged=true \
  --default-not-ready-toleration-seconds="$EVICT_AFTER" --default-unreachable-toleration-seconds="$EVICT_AFTER" \
  --profiling=false $APISERVER_FLAGS
export KUBECONFIG=$ADMIN
api_ready() { curl -sf --max-time 2 --cacert "$PKI/ca.crt" --cert "$PKI/admin.crt" --key "$PKI/admin.key" https://$CENTRAL_IP:6443/readyz; }
wait_for 60 api_ready || { tail -20 "$LOGS/kube-apiserver.log"; exit 1; }
say "API server"
start_central kube-controller-manager kube-controller-manager \
  --kubeconfig="$PKI/kube-controller-manager.kubeconfig" --authentication-kubeconfig="$PKI/kube-controller-manager.kubeconfig" \
  --authorization-kubeconfig="$PKI/kube-controller-manager.kubeconfig" --bind-address=127.0.0.1 --leader-elect=false \
  --use-service-account-credentials=true --service-account-private-key-file="$PKI/sa.key" --root-ca-file="$PKI/root-ca.crt" \
  --cluster-signing-cert-file="$PKI/ca.crt" --cluster-signing-key-file="$PKI/ca.key" \
  --kube-api-qps=300 --kube-api-burst=500 --cluster-cidr=$POD_CIDR --node-monitor-period=2s --node-monitor-grace-period="$NODE_LOST_AFTER" --profiling=false
start_central kube-scheduler kube-scheduler \
  --kubeconfig="$PKI/kube-scheduler.kubeconfig" --authentication-kubeconfig="$PKI/kube-scheduler.kubeconfig" \
  --authorization-kubeconfig="$PKI/kube-scheduler.kubeconfig" --bind-address=127.0.0.1 --leader-elect=false --kube-api-qps=300 --kube-api-burst=500 --profiling=false

# ---- nodes, all at once
starting=()
for i in $(seq "$NODES"); do "$here/node.sh" "$i" & starting+=($!); done

# ---- what a cluster is expected to have, run beside the control plane
cat >"$BED_RUN/Corefile" <<K
.:53 {
  bind $CENTRAL_IP
  errors
  kubernetes cluster.local in-addr.arpa { kubeconfig $PKI/coredns.kubeconfig bed
    ttl 5 }
  cache 5
}
K
start_central coredns coredns -conf "$BED_RUN/Corefile"
start_central metrics-server metrics-server --kubeconfig="$PKI/metrics-server.kubeconfig" \
  --authentication-kubeconfig="$PKI/metrics-server.kubeconfig" --authorization-kubeconfig="$PKI/metrics-server.kubeconfig" \
  --bind-address=$CENTRAL_IP --secure-port=4443 --tls-cert-file="$PKI/metrics-server-tls.crt" --tls-private-key-file="$PKI/metrics-server-tls.key" \
  --kubelet-certificate-authority="$PKI/ca.crt" --kubelet-preferred-address-types=InternalIP --metric-resolution=10s --kubelet-request-timeout=5s --node-selector=type!=kwok
mkdir -p "$BED_RUN/s3/data"
start_central s3 env ROOT_ACCESS_KEY="$S3_ACCESS_KEY" ROOT_SECRET_KEY="$S3_SECRET_KEY" versitygw --port $CENTRAL_IP:7070 posix "$BED_RUN/s3/data"
sed -e "s|@CENTRAL_IP@|$CENTRAL_IP|; s|@SERVICE_DNS@|$SERVICE_DNS|; s|@CA@|$(base64 -w0 "$PKI/ca.crt")|" "$here/manifests/system.yaml" | kubectl apply -f - >"$LOGS/system.log"
say "control plane and add-ons"

for pid in "${starting[@]}"; do wait "$pid"; done       # (a bare wait would wait for etcd and the rest, too)
say "node processes"
all_ready() { [ "$(kubectl get nodes --no-headers | grep -cw Ready)" = "$NODES" ]; }
wait_for 60 all_ready
say "$NODES nodes Ready"
wait_for 20 kubectl get serviceaccount default          # pods are refused until it exists
say "up: export KUBECONFIG=$ADMIN"
