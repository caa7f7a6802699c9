#!/bin/bash
# Keys and certificates of one cluster, and a kubeconfig for each client.  EC keys: well under a second.
set -euo pipefail
. "$(dirname "$0")/settings.sh"
umask 077
mkdir -p "$PKI"; cd "$PKI"

authority() { # FILE NAME
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 -subj "/CN=$2" \
    -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,digitalSignature \
    -keyout "$1.key" -out "$1.crt" 2>/dev/null
}
certificate() { # FILE AUTHORITY SUBJECT USAGE [ALTERNATIVE NAMES]
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj "$3" -keyout "$1.key" -out "$1.csr" 2>/dev/null
  { echo keyUsage=critical,digitalSignature,keyEncipherment
    echo "extendedKeyUsage=$4"
    if [ -n "${5:-}" ]; then echo "subjectAltName=$5"; fi; } >"$1.ext"
  openssl x509 -req -in "$1.csr" -CA "$2.crt" -CAkey "$2.key" -CAcreateserial -days 3650 -extfile "$1.ext" -out "$1.crt" 2>/dev/null
  rm "$1.csr" "$1.ext"
}
kubeconfig() { # CERTIFICATE FILE
  cat >"$2" <<K
apiVersion: v1
kind: Config
clusters: [{name: bed, cluster: {server: "https://$CENTRAL_IP:6443", certificate-authority-data: $(cat ca.crt next-ca.crt | base64 -w0)}}]
users: [{name: $1, user: {client-certificate-data: $(base64 -w0 "$1.crt"), client-key-data: $(base64 -w0 "$1.key")}}]
contexts: [{name: bed, context: {cluster: bed, user: $1}}]
current-context: bed
K
}

authority ca bed
authority next-ca bed-next                   # what the API server's authority is rotated to
authority front-ca bed-front-proxy
openssl genrsa -out sa.key 2048 2>/dev/null
openssl rsa -in sa.key -pubout -out sa.pub 2>/dev/null
names="DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local,DNS:localhost,IP:127.0.0.1,IP:$CENTRAL_IP,IP:$SERVICE_API"
certificate ca-apiserver ca /CN=kube-apiserver serverAuth "$names"
certificate next-ca-apiserver next-ca /CN=kube-apiserver serverAuth "$names"
for kind in crt key; do cp ca-apiserver.$kind apiserver.$kind; done
cp ca.crt root-ca.crt                         # what pods are told
certificate apiserver-kubelet ca /O=system:masters/CN=apiserver-kubelet clientAuth
certificate front-proxy front-ca /CN=front-proxy clientAuth
certificate metrics-server-tls ca /CN=metrics-server serverAuth DNS:metrics-server.kube-system.svc
for name in kube-controller-manager kube-scheduler kube-proxy; do certificate $name ca "/CN=system:$name" clientAuth; done
# add-ons that run beside the control plane are trusted like it
for name in admin coredns metrics-server kwok; do certificate $name ca "/O=system:masters/CN=$name" clientAuth; done
for name in kube-controller-manager kube-scheduler kube-proxy coredns metrics-server kwok; do kubeconfig $name $name.kubeconfig; done
kubeconfig admin "$ADMIN"
for i in $(seq "$NODES"); do
  name=$(node_name "$i")
  certificate "$name" ca "/O=system:nodes/CN=system:node:$name" clientAuth,serverAuth "DNS:$name,IP:$(node_ip "$i")"
  kubeconfig "$name" "$name.kubeconfig"
done
