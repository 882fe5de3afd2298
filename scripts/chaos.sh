#!/usr/bin/env bash
# A campaign against a cluster of real processes, and one of containers: builds the program, then kills, stops, cuts off and slows down
# nodes while clients use it, and judges what they saw and what the nodes' usage logs say. The last two lines are "violations: N" and
# "acknowledged writes lost: N", of both together; it exits 1 if either is not 0, or if too little happened to say anything: a line before says
# what. It needs Go and two cores; everything is on loopback, in networks of its own and in a temporary folder, which is kept if it fails.
#
#   ./scripts/chaos.sh                       3 minutes of faults on three nodes
#   CHAOS_MINUTES=10 ./scripts/chaos.sh --nodes 5 --seed 7
#   CONCLAVE_LONG=1 ./scripts/chaos.sh       at least 500 faults
#   ./scripts/chaos.sh --no-containers       not in containers, too, where a Docker engine answers (else 45 seconds more, on the compose cluster)
#   ./scripts/chaos.sh --planted             must fail: builds with the lease check, the second check, and the wait for the durable record taken out
#
# Other arguments go to the campaign: go run ./cmd/e2e/chaos -help
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

work=$(mktemp -d -t conclave-chaos-XXXXXX)
keep=
cleanup() {
  if [ -n "$keep" ]; then echo "the cluster's files and logs are kept in $work" >&2; else rm -rf "$work"; fi
}
trap cleanup EXIT

containers=1
arguments=()
for argument in "$@"; do
  if [ "$argument" = --no-containers ]; then containers=; else arguments+=("$argument"); fi
done

length=${CHAOS_MINUTES:-3}m
faults=() # as many as the length is worth
if [ "${CONCLAVE_LONG:-}" = 1 ]; then
  faults=(-faults 500)
fi

go build -o "$work/chaos" ./cmd/e2e/chaos

# tree copies the sources, as they are now, to a folder of their own.
tree() {
  mkdir -p "$1"
  git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents -t "$1"
}

# plant NAME FILE SED builds the program from a copy of the sources in which one rule is taken out of one file.
plant() {
  local name=$1 file=$2 edit=$3
  tree "$work/$name.src"
  sed -i -E "$edit" "$work/$name.src/$file"
  if cmp -s "$file" "$work/$name.src/$file"; then
    echo "the rule \"$name\" is not where this script looks for it, in $file" >&2
    exit 2
  fi
  echo "== planted: $name"
  diff -U0 "$file" "$work/$name.src/$file" | tail -n +3 || true
  (cd "$work/$name.src" && go build -o "$work/$name" ./cmd/conclave)
}

# caught NAME ARGS… runs the campaign on a planted build and demands that it fails because of violations.
caught() {
  local name=$1 code=0
  shift
  "$work/chaos" -binary "$work/$name" -dir "$work/$name.run" -calm 10 "$@" | tee "$work/$name.log" || code=$?
  if [ "$code" -ne 1 ] || ! tail -n 2 "$work/$name.log" | grep -Eq '^violations: [1-9]'; then
    echo "planted: $name: NOT CAUGHT (exit $code)" >&2
    exit 1
  fi
  echo "planted: $name: caught"
}

if [ "${1:-}" = --planted ]; then
  shift
  plant no-lease-check cluster/lease/lease.go 's/^(func \(l Lease\) Valid\(\) bool \{).*$/\1 return true }/; s/^(func \(l Lease\) ValidSurely\(\) bool \{)$/\1\n\treturn true/'
  plant no-second-check vault/guard/check.go 's/^(func \(g \*Guard\) checkAgain\(.*\) \(verdict, error\) \{)$/\1\n\treturn first, nil/'
  plant no-durable-record vault/usage/log.go 's/^\tdone := l\.doneOf\(e\.Sequence\)$/\treturn nil\n&/'
  caught no-lease-check -only "a node cut" -length 20s "$@"
  caught no-second-check -only "a node paused at work" -length 30s "$@"
  caught no-durable-record -only "a node killed" -length 10s "$@"
  exit 0
fi

# engine says why no container engine can be used here, or nothing.
engine() {
  command -v docker >/dev/null || { echo "there is no docker program"; return; }
  docker info >/dev/null 2>&1 || { echo "no Docker engine answers"; return; }
  docker compose version >/dev/null 2>&1 || command -v docker-compose >/dev/null || echo "neither 'docker compose' nor 'docker-compose' is here"
}

# counted WHAT FILE is the number that a campaign ended with; 0 of one that did not come to its end, which has failed anyway.
counted() { sed -n "s/^$1: //p" "$2" | tail -n 1 | grep . || echo 0; }

# campaign NAME ARGS… runs one and adds up what it found; its own last two lines come back, with its name, among the others.
violations=0 lost=0 code=0
campaign() {
  local name=$1 result=0 log=$work/$1.log
  shift
  echo "== in $name"
  "$work/chaos" -dir "$work/$name" "$@" >"$log" || result=$?
  sed -E "s/^(violations|acknowledged writes lost): /in $name, &/" "$log"
  violations=$((violations + $(counted violations "$log")))
  lost=$((lost + $(counted "acknowledged writes lost" "$log")))
  [ "$result" -eq 0 ] || { code=$result keep=1; }
}

go build -o "$work/conclave" ./cmd/conclave
campaign processes -binary "$work/conclave" -length "$length" "${faults[@]}" "${arguments[@]}"
if [ -n "$containers" ]; then
  why=$(engine)
  if [ -n "$why" ]; then
    echo "== in containers: NOT RUN: $why"
  else
    campaign containers -containers "$PWD" -length "${CHAOS_CONTAINER_SECONDS:-45}s" -calm 20
  fi
else
  echo "== in containers: NOT RUN: --no-containers"
fi
echo "violations: $violations"
echo "acknowledged writes lost: $lost"
exit "$code"
