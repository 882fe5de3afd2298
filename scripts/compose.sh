#!/usr/bin/env bash
# Runs the cluster of docker-compose.yml: three nodes in three datacenters, in containers of the local Docker engine.
#
#   ./scripts/compose.sh up          build the image, found the cluster, let the nodes join; a second time: start it again
#   ./scripts/compose.sh cut n3      take a node off the wan
#   ./scripts/compose.sh rejoin n3   and put it back
#   ./scripts/compose.sh destroy     remove containers, volumes, networks and the nodes' files; custodians' files stay
#   ./scripts/compose.sh ps          anything else goes to docker compose (or docker-compose): logs -f n1, restart, kill n2, …
#
# Everything of the nodes lies in CONCLAVE_HOME (compose-state): configurations, PINs, the administrator's certificate, env.sh.
# What can be set before the first "up" is kept there too: COMPOSE_PROJECT_NAME, CONCLAVE_IMAGE, CONCLAVE_PORT_N1 … N3, CONCLAVE_WAN.
set -euo pipefail
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
umask 077

die() { echo "compose.sh: $*" >&2; exit 1; }
say() { echo "compose.sh: $*" >&2; }

# settle fixes what the compose file leaves open, and keeps it for the next call.
settle() {
  CONCLAVE_HOME=${CONCLAVE_HOME:-$repository/compose-state}
  mkdir -p "$CONCLAVE_HOME"
  CONCLAVE_HOME=$(cd "$CONCLAVE_HOME" && pwd)
  # shellcheck disable=SC1091
  [ ! -e "$CONCLAVE_HOME/settings" ] || . "$CONCLAVE_HOME/settings"
  COMPOSE_PROJECT_NAME=${COMPOSE_PROJECT_NAME:-conclave}
  CONCLAVE_IMAGE=${CONCLAVE_IMAGE:-conclave:dev}
  CONCLAVE_PORT_N1=${CONCLAVE_PORT_N1:-7441}
  CONCLAVE_PORT_N2=${CONCLAVE_PORT_N2:-7442}
  CONCLAVE_PORT_N3=${CONCLAVE_PORT_N3:-7443}
  CONCLAVE_WAN=${CONCLAVE_WAN:-10.83.0}
  # The containers' user owns the PINs, which nobody else may read: whoever runs this, and never root.
  CONCLAVE_UID=${CONCLAVE_UID:-$(id -u)} CONCLAVE_GID=${CONCLAVE_GID:-$(id -g)}
  [ "$CONCLAVE_UID" -ne 0 ] || CONCLAVE_UID=65532 CONCLAVE_GID=65532
  settings=(COMPOSE_PROJECT_NAME CONCLAVE_IMAGE CONCLAVE_WAN CONCLAVE_UID CONCLAVE_GID CONCLAVE_PORT_N{1,2,3})
  export CONCLAVE_HOME "${settings[@]}"
}

keep_settings() {
  local name
  for name in "${settings[@]}"; do printf '%s=%q\n' "$name" "${!name}"; done >"$CONCLAVE_HOME/settings"
}

# compose is the plugin of the docker program where there is one, else the program of its own.
compose() {
  if docker compose version >/dev/null 2>&1; then
    docker compose -f "$repository/docker-compose.yml" "$@"
  elif command -v docker-compose >/dev/null; then
    docker-compose -f "$repository/docker-compose.yml" "$@"
  else
    die "neither 'docker compose' nor 'docker-compose' is here; on Debian: apt-get install docker-compose"
  fi
}

# own hands a file to the containers' user. Without root's rights it is the caller's, who is that user.
own() { [ "$(id -u)" -ne 0 ] || chown "$CONCLAVE_UID:$CONCLAVE_GID" "$@"; }

port_of() { local name=CONCLAVE_PORT_${1^^}; echo "${!name}"; }
wan_of() { echo "$CONCLAVE_WAN.$((${1#n} + 1))"; }

configure() {
  local node=$1 dir=$CONCLAVE_HOME
  cat >"$dir/$node.yaml" <<YAML
# Written by scripts/compose.sh at every "up".
node: $node
datacenter: dc${node#n}
data_dir: /var/lib/conclave/$node
api:
  bind: 0.0.0.0:7443
  advertise: 127.0.0.1:$(port_of "$node") # as the host's clients call it
cluster:
  bind: $(wan_of "$node"):7444 # on the wan alone
gossip:
  bind: $(wan_of "$node"):7445
hsm:
  type: soft
  pin: {file: /run/secrets/pin}
seal: ceremony
YAML
  [ "$node" = n1 ] || echo "join: {token_file: /run/secrets/join_token}" >>"$dir/$node.yaml"
  chmod 0644 "$dir/$node.yaml" # it holds no secret, and the container's user reads it
  if [ ! -e "$dir/$node.pin" ]; then
    head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$dir/$node.pin.tmp"
    mv "$dir/$node.pin.tmp" "$dir/$node.pin"
  fi
  [ "$node" = n1 ] || touch "$dir/$node.token" # the container wants to mount it, also when it was used long ago
  own "$dir/$node.pin"
}

write_environment() {
  local dir=$CONCLAVE_HOME
  {
    echo "export N1=127.0.0.1:$CONCLAVE_PORT_N1 N2=127.0.0.1:$CONCLAVE_PORT_N2 N3=127.0.0.1:$CONCLAVE_PORT_N3"
    echo 'export CONCLAVE_ADDR=$N1,$N2,$N3'
    printf 'export CONCLAVE_CACERT=%q CONCLAVE_CERT=%q CONCLAVE_KEY=%q\n' "$dir/admin/ca.crt" "$dir/admin/admin.crt" "$dir/admin/admin.key"
    printf 'export CONCLAVE_HOME=%q PATH=%q:"$PATH"\n' "$dir" "$dir/bin"
  } >"$dir/env.sh"
}

# found makes the cluster in n1's volume. The administrator's key is made in the container, into a folder of the host.
found() {
  local admin=$CONCLAVE_HOME/admin
  if [ ! -e "$admin/admin.crt" ]; then init_cluster "$admin"; fi
  [ "$(id -u)" -ne 0 ] || chown -R "$(id -u):$(id -g)" "$admin"
}

init_cluster() {
  local admin=$1
  say "founding the cluster on n1"
  mkdir -p "$admin"
  own "$admin"
  compose run --rm -T -v "$admin:/admin" n1 init --config /etc/conclave/node.yaml --out /admin >/dev/null 2>"$CONCLAVE_HOME/init.log" || {
    cat "$CONCLAVE_HOME/init.log" >&2
    die "the founding failed; ./scripts/compose.sh destroy clears what it left"
  }
  rm "$CONCLAVE_HOME/init.log"
}

# wait_for SECONDS WHAT COMMAND…
wait_for() {
  local end=$(($(date +%s) + $1)) what=$2
  shift 2
  until "$@"; do
    [ "$(date +%s)" -lt "$end" ] || { conclave status >&2 || true; die "not in time: $what; see: ./scripts/compose.sh logs"; }
    sleep 0.2
  done
}

nodes() { conclave node list -o json --timeout 5s 2>/dev/null; }
answers() { nodes >/dev/null; }
member() { nodes | grep -q "\"id\":\"$1\""; }
voters() { [ "$(nodes | grep -o '"voter":true' | wc -l)" -eq "$1" ]; }

admit() {
  local node=$1 token=$CONCLAVE_HOME/$1.token
  if member "$node"; then
    compose up -d --no-deps "$node"
    return
  fi
  say "$node joins"
  rm -f "$token"
  conclave node token "$node" --out "$token" 2>/dev/null
  own "$token"
  compose up -d --no-deps --force-recreate "$node" # one that is there has tried with an older token
}

up() {
  settle
  keep_settings
  "$repository/scripts/image.sh" -t "$CONCLAVE_IMAGE" -o "$CONCLAVE_HOME/bin/conclave"
  local node
  for node in n1 n2 n3; do configure "$node"; done
  write_environment
  # shellcheck disable=SC1091
  . "$CONCLAVE_HOME/env.sh"
  found
  compose up -d --no-deps n1
  for node in n2 n3; do # those that may have joined at an earlier "up": without them there is no quorum
    [ ! -s "$CONCLAVE_HOME/$node.token" ] || compose up -d --no-deps "$node"
  done
  wait_for 60 "n1 answers" answers
  admit n2
  admit n3
  wait_for 60 "all three nodes vote" voters 3
  say "three nodes run, sealed. Next:  . $(printf %q "$CONCLAVE_HOME/env.sh")   and the ceremonies of the README"
}

# container asks the engine itself: a cut should come at once.
container() {
  docker ps --all --quiet --filter "label=com.docker.compose.project=$COMPOSE_PROJECT_NAME" --filter "label=com.docker.compose.service=$1" |
    grep . || die "$1 has no container; start it with: ./scripts/compose.sh up"
}

check_node() { case ${1:-} in n1 | n2 | n3) ;; *) die "which node: n1, n2 or n3?" ;; esac; }

cut() {
  local id
  check_node "${1:-}"
  id=$(container "$1")
  docker network disconnect "${COMPOSE_PROJECT_NAME}_wan" "$id"
}

rejoin() {
  local id
  check_node "${1:-}"
  id=$(container "$1")
  docker network connect --ip "$(wan_of "$1")" --alias "$1" "${COMPOSE_PROJECT_NAME}_wan" "$id"
}

destroy() {
  compose down --volumes --remove-orphans
  local node
  for node in n1 n2 n3; do rm -f "$CONCLAVE_HOME/$node".{yaml,pin,token}; done
  rm -rf "$CONCLAVE_HOME/admin" "$CONCLAVE_HOME/bin" "$CONCLAVE_HOME"/{env.sh,settings,init.log}
  rmdir "$CONCLAVE_HOME" 2>/dev/null || say "other files stay in $CONCLAVE_HOME"
}

case ${1:-} in
  up)
    [ $# -eq 1 ] || die "up takes no argument"
    up
    ;;
  cut | rejoin | destroy)
    settle
    "$@"
    ;;
  "" | -h | --help | help) sed -n '2,12s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" ;;
  *)
    settle
    compose "$@"
    ;;
esac
