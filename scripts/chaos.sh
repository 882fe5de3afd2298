#!/usr/bin/env bash
# A campaign against a cluster of real processes: builds the program, then kills, stops, cuts off and slows down nodes while
# clients use it, and judges what they saw. The last two lines are "violations: N" and "acknowledged writes lost: N"; it exits 1 if
# either is not 0. It needs Go and two cores; everything is on loopback and in a temporary folder, which is kept if it fails.
#
#   ./scripts/chaos.sh                       3 minutes of faults on three nodes
#   CHAOS_MINUTES=10 ./scripts/chaos.sh --nodes 5 --seed 7
#   CONCLAVE_LONG=1 ./scripts/chaos.sh       at least 500 faults
#   ./scripts/chaos.sh --planted             must fail: builds with the lease check, and with the second check, taken out
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

length=${CHAOS_MINUTES:-3}m
faults=0
if [ "${CONCLAVE_LONG:-}" = 1 ]; then
  faults=500
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
  plant no-second-check vault/guard/guard.go 's/^\tif sel, err = g\.checkAgain\(ctx, req, sel\); err != nil \{$/\tif false {/'
  caught no-lease-check -only "a node cut" -length 20s "$@"
  caught no-second-check -only "a node paused at work" -length 100s "$@"
  exit 0
fi

go build -o "$work/conclave" ./cmd/conclave
code=0
"$work/chaos" -binary "$work/conclave" -dir "$work/run" -length "$length" -faults "$faults" "$@" || code=$?
[ "$code" -eq 0 ] || keep=1
exit "$code"
