#!/bin/bash
# Make everything that up.sh and the tests need: Debian packages, binaries (Go modules), images, Edgefolio's own among them.
# Idempotent: what is there and current is kept.
#   build.sh            everything (root, Debian)
#   build.sh edgefolio store   Edgefolio's images alone, after a change; seconds
#   build.sh flux       Flux' controllers, for the tests that ask Flux itself
#   build.sh control    etcd and Kubernetes' own programs alone: enough for the tests that need an API server only (any user)
# A cold build takes about 10 minutes and both cores (control alone: half of it). JOBS=1 leaves one core to others.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/settings.sh"
mkdir -p "$BIN" "$IMAGES"

# Debian packages, and what each is for.
declare -A PACKAGES=(
  [runc]="runs containers" [containernetworking-plugins]="network of pods" [iptables]="network of services"
  [conntrack]="network of services" [mmdebstrap]="base image" [buildah]="images" [gcc]="pause image" [libc6-dev]="pause image"
  [openssl]="keys of the API server"
)
packages() {
  local missing name
  missing=$({ dpkg-query -W -f '${Package} ${db:Status-Status}\n' "${!PACKAGES[@]}" 2>&1 || true; } |
    sed -n 's/^dpkg-query: no packages found matching //p; s/ not-installed$//p; s/ config-files$//p')
  if [ -z "$missing" ]; then return; fi
  echo "The Kubernetes of the tests needs these Debian packages; apt-get installs them now (EDGEFOLIO_BED=off does without):"
  for name in $missing; do echo "  $name: ${PACKAGES[$name]}"; done
  apt_get update
  DEBIAN_FRONTEND=noninteractive apt_get install -y --no-install-recommends $missing
}

# apt-get that waits up to 10 minutes for another one (an unattended upgrade). Its own option waits for dpkg's lock only;
# apt 2.6 gives up at once on the locks of its lists and archives.
apt_get() {
  local log end=$((SECONDS + 600)); log=$(mktemp)
  until LC_ALL=C apt-get -q -o DPkg::Lock::Timeout=600 "$@" 2>"$log"; do
    if [ $SECONDS -ge $end ] || ! grep -q 'Could not get lock' "$log"; then cat "$log" >&2; rm "$log"; return 1; fi
    sed -n '/Could not get lock/s/^E: /waiting: /p' "$log"
    sleep 5
  done
  cat "$log" >&2
  rm "$log"
}

version_of() { awk -v module="$1" '$1 == module && $2 ~ /^v/ {print $2; exit}' go.mod; }

# go_build NAME PACKAGE...: compile into $BIN, unless that was done from the same sources
go_build() {
  local name=$1 state kubernetes major minor flags; shift
  export GOCACHE=${GOCACHE:-$BED_CACHE/go-build} GOMODCACHE=${GOMODCACHE:-$BED_CACHE/go-mod}
  export CGO_ENABLED=0 GOFLAGS="-buildvcs=false -modcacherw" GOMAXPROCS=${JOBS:-2}
  state=$(find . -name '*.go' -o -name 'go.*' | sort | xargs cat "$here/build.sh" | sha256sum | cut -c1-16)
  if [ -e "$BIN/.$name-$state" ]; then return; fi
  kubernetes=$(version_of k8s.io/kubernetes)
  IFS=. read -r major minor _ <<<"${kubernetes#v}"
  flags="-s -w"
  for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do    # without it the server says v0.0.0-master
    flags+=" -X $package.gitVersion=$kubernetes -X $package.gitMajor=$major -X $package.gitMinor=$minor -X $package.gitTreeState=clean"
    flags+=" -X $package.gitCommit=$kubernetes -X $package.buildDate=1970-01-01T00:00:00Z"
  done
  flags+=" -X github.com/containerd/containerd/v2/version.Version=$(version_of github.com/containerd/containerd/v2)"
  flags+=" -X helm.sh/helm/v3/internal/version.version=$(version_of helm.sh/helm/v3)"
  nice -n 19 go build -p "${JOBS:-2}" -trimpath -ldflags "$flags" -o "$BIN/" "$@"
  rm -f "$BIN/.$name-"*
  touch "$BIN/.$name-$state"
}

control() {
  cd "$here/go"
  go_build control ./etcd ./kube
  for name in kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubelet kubectl; do ln -sf kube "$BIN/$name"; done
}

nodes() {
  cd "$here/go"
  go_build nodes ./coredns $(go list tool)
}

# Flux' controllers, for the tests that ask Flux itself (build.sh flux; cold about 7 minutes, so not among the rest).
flux() {
  cd "$here/flux"
  go_build flux $(go list tool)
  for name in source kustomize; do
    cat "$(go list -m -f '{{.Dir}}' "github.com/fluxcd/$name-controller")"/config/crd/bases/*.yaml
  done >"$BIN/flux-definitions.yaml"
}

images() {
  cd "$IMAGES"
  if [ ! -e pause.tar ]; then
    gcc -static -Os -s -o pause "$here/images/pause.c"
    python3 "$here/images/mkimage.py" pause.tar bed.local/pause:1 --add pause:/pause --cmd /pause
  fi
  # What a base image from elsewhere brings as well: bash and libpython are what Triton's Python backend starts with.
  local packages=python3.11,libpython3.11,bash,busybox-static,iproute2,ca-certificates,libstdc++6,libgomp1 state
  state=$({ declare -f images; cat "$here/images/mkimage.py"; } | sha256sum | cut -c1-16)
  if [ ! -e python.tar ] || [ ! -e ".python-$state" ]; then
    # variant "extract" only unpacks: no maintainer scripts, a third of the size and time of a minimal system
    mmdebstrap --quiet --variant=extract --include=$packages \
      --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
      --extract-hook='cd "$1" && ln -sf python3.11 usr/bin/python3 && mkdir -p root tmp && chmod 1777 tmp &&
        for name in $(chroot . /bin/busybox --list); do [ -e bin/$name ] || [ -e usr/bin/$name ] || [ -e sbin/$name ] || ln -s busybox bin/$name; done &&
        echo root:x:0:0:root:/root:/bin/sh >etc/passwd && echo root:x:0: >etc/group' bookworm rootfs.tar
    python3 "$here/images/mkimage.py" python.tar bed.local/python:3.11 --layer rootfs.tar --env PYTHONUNBUFFERED=1 --cmd python3
    rm -f rootfs.tar .python-*
    touch ".python-$state"
  fi
}

# Edgefolio's own images, from the Dockerfiles that users build from; what they need is downloaded beforehand.
edgefolio() {
  local buildah="buildah --root $BED_CACHE/buildah --runroot $BED_CACHE/buildah-run" driver=overlay copy=$BED_CACHE/sources image state base
  cd "$here/../../.."
  state=$({ for image in tools operator edge triton pruner-mounted; do python3 images/install.py requirements $image; done
    cat constraints.txt scripts/download-wheels; } | sha256sum | cut -c1-16)
  if [ ! -e "$BED_CACHE/wheels/.ready-$state" ]; then
    rm -rf "$BED_CACHE/wheels"
    WHEELS=$BED_CACHE/wheels scripts/download-wheels
    touch "$BED_CACHE/wheels/.ready-$state"
  fi
  # A copy: what is edited meanwhile is for the next build, and wheels that a user put into images/wheels are left alone.
  rm -rf "$copy"
  mkdir "$copy"
  cp --archive --parents .dockerignore pyproject.toml constraints.txt images scripts/build-images portfolio pruner_job edge operator "$copy"
  cd "$copy"
  find . -name __pycache__ -prune -exec rm -r {} +
  rm -f images/wheels/*.whl
  cp --link "$BED_CACHE"/wheels/*.whl images/wheels/
  for image in operator edge triton pruner; do
    state=$(sources_of "$image" | sha256sum | cut -c1-16)
    if [ -e "$IMAGES/edgefolio-$image.tar" ] && [ -e "$IMAGES/.edgefolio-$image-$state" ]; then continue; fi
    if [ -z "${base:-}" ]; then
      # What was built before saves minutes; all that ever was, is too much.
      if [ "$(du -sm "$BED_CACHE/buildah" 2>/dev/null | cut -f1)" -gt 8000 ] 2>/dev/null; then rm -rf "$BED_CACHE/buildah"; fi
      $buildah --storage-driver $driver info >/dev/null 2>&1 || driver=vfs
      buildah+=" --storage-driver $driver"
      base=$($buildah pull --quiet "oci-archive:$IMAGES/python.tar")
    fi
    BUILDAH=$buildah BUILD_OPTIONS="--isolation chroot --pull-never" PYTHON_IMAGE=$base LIBRARIES=mounted \
      NAME=edgefolio.local/$image:test REVISION= OUTPUT=$copy/archives scripts/build-images "$image"
    mv "archives/$image.tar" "$IMAGES/edgefolio-$image.tar"
    rm -f "$IMAGES/.edgefolio-$image-"*
    touch "$IMAGES/.edgefolio-$image-$state"
  done
  cd "$here"
  rm -rf "$copy"
  umount "$BED_CACHE/buildah/overlay" 2>/dev/null || true     # buildah leaves it mounted on itself
}

# What an image is made from: file names and contents.
sources_of() {
  local rooms
  case $1 in
    operator) rooms="portfolio operator" ;;
    edge) rooms="portfolio edge" ;;
    triton) rooms="edge/edgefolio_edge/triton/backend edge/edgefolio_edge/triton/split_backend edge/edgefolio_worker" ;;
    pruner) rooms="portfolio pruner_job" ;;
  esac
  (cd "$IMAGES" && ls .python-*)
  find $rooms images/install.py "images/$1.Dockerfile" pyproject.toml constraints.txt .dockerignore scripts/build-images -type f -print0 |
    sort -z | xargs -0 sha256sum
}

# All images in a containerd's own directory: a node that copies it (as hard links, node.sh) imports nothing.
store() {
  local folder=$BED_CACHE/store.new newer=() socket pid
  if [ -e "$STORE/.ready" ]; then newer=(-newer "$STORE/.ready"); fi
  local changed; changed=$(find "$IMAGES" -name '*.tar' "${newer[@]}")
  if [ -z "$changed" ]; then return; fi
  rm -rf "$folder"
  if [ -e "$STORE/.ready" ]; then mv "$STORE" "$folder"; else mkdir -p "$folder"; fi
  socket=$(mktemp -d)
  cat >"$socket/containerd.toml" <<K
version = 3
root = "$folder"
state = "$socket/state"
disabled_plugins = ["io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime", "io.containerd.grpc.v1.cri", "io.containerd.nri.v1.nri"]
[grpc]
  address = "$socket/containerd.sock"
[ttrpc]
  address = "$socket/containerd.sock.ttrpc"
K
  touch "$folder/.now"                        # what is changed from here on is for the next time
  containerd --config "$socket/containerd.toml" >"$socket/log" 2>&1 9>&- & pid=$!
  wait_for 20 ctr -a "$socket/containerd.sock" version
  for image in $changed; do
    ctr -a "$socket/containerd.sock" -n k8s.io images import --local "$image" >>"$socket/log" 2>&1 || { cat "$socket/log" >&2; kill $pid; return 1; }
  done
  kill $pid
  wait $pid || true
  find "$folder" -mindepth 1 -maxdepth 1 -type d -not -name '*.content.v1.*' -not -name '*.metadata.v1.*' -not -name '*.overlayfs' -exec rm -r {} +
  mv "$folder/.now" "$folder/.ready"
  rm -rf "$STORE" "$socket"
  mv "$folder" "$STORE"
}

exec 9>"$BED_CACHE/.lock"                    # several checkouts share the cache
flock --nonblock 9 || { echo "waiting for another build to end"; flock 9; }
for step in ${*:-packages control nodes images edgefolio store}; do
  SECONDS=0
  "$step"
  echo "$step: $SECONDS s"
done
