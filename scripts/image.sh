#!/usr/bin/env bash
# Builds the image of a node with the host's Go and the local Docker engine. It needs no network: the image starts from scratch.
#
#   ./scripts/image.sh                     conclave:dev
#   ./scripts/image.sh -t registry/x:1.2   another tag
#   ./scripts/image.sh -o bin/conclave     keep the program itself too, built for this machine
#
# Prints the image's id and size.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

tag=conclave:dev
program=
while getopts t:o: option; do
  case $option in
    t) tag=$OPTARG ;;
    o) program=$OPTARG ;;
    *) sed -n '2,8s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2 ;;
  esac
done

engine=$(docker version --format '{{.Server.Os}}/{{.Server.Arch}}') || {
  echo "image.sh: no Docker engine answers; start one, or see: docker info" >&2
  exit 1
}
context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT

# -trimpath and a fixed time: the same source and Go make the same layer.
build() { CGO_ENABLED=0 GOOS=$1 GOARCH=$2 go build -trimpath -ldflags='-s -w' -o "$3" ./cmd/conclave; }

revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
committed=$(git log -1 --format=%ct 2>/dev/null || echo 0)
install -d -m 0755 "$context/rootfs" "$context/rootfs/var" "$context/rootfs/var/lib"
install -d -m 1777 "$context/rootfs/var/lib/conclave"
build "${engine%/*}" "${engine#*/}" "$context/rootfs/conclave"
chmod 0755 "$context/rootfs/conclave"
find "$context/rootfs" -exec touch -h -d "@$committed" {} +
cp Dockerfile .dockerignore "$context"

docker build --quiet --network none --tag "$tag" \
  --build-arg VERSION="$(git describe --tags --always --dirty 2>/dev/null || echo devel)" \
  --build-arg REVISION="$revision" \
  --build-arg CREATED="$(date -u -d "@$committed" +%Y-%m-%dT%H:%M:%SZ)" \
  "$context" >/dev/null

if [ -n "$program" ]; then
  mkdir -p "$(dirname "$program")"
  host="$(go env GOHOSTOS)/$(go env GOHOSTARCH)"
  if [ "$host" = "$engine" ]; then
    install -m 0755 "$context/rootfs/conclave" "$program"
  else
    build "${host%/*}" "${host#*/}" "$program"
  fi
fi
docker image inspect --format "$tag  {{.Id}}  {{.Size}} bytes" "$tag"
