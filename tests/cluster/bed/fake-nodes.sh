#!/bin/bash
# Add COUNT nodes that exist in the API only (kwok plays their kubelets): scale without machines.  Needs a running cluster.
# Only pods that tolerate kwok.x-k8s.io/node are put there; they are "Running" within a second or two and do nothing.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/settings.sh"
export KUBECONFIG=$ADMIN
count=${1:?usage: fake-nodes.sh COUNT}
read -r pid _ 2>/dev/null <"$PIDS/kwok" || pid=none
if [ ! -d "/proc/$pid" ]; then
  start kwok nsenter --net=/run/netns/central -- kwok --kubeconfig="$PKI/kwok.kubeconfig" --config="$here/manifests/kwok.yaml" --manage-all-nodes=false \
    --manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake --node-ip=$CENTRAL_IP --cidr=10.200.0.0/16 --server-address=127.0.0.1:10247 --node-lease-duration-seconds=40
fi
template=$(<"$here/manifests/fake-node.yaml")
for i in $(seq "$count"); do
  printf -- '---\n%s\n' "${template//@NAME@/fake-$i}"
done | kubectl create -f - >/dev/null
all_ready() { [ "$(kubectl get nodes -l type=kwok --no-headers | grep -cw Ready)" -ge "$count" ]; }
until all_ready; do sleep 1; [ $SECONDS -lt 120 ] || { echo "only some fake nodes are Ready" >&2; exit 1; }; done
