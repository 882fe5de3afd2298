#!/usr/bin/env bash
# Runs every test of the project, stage by stage, and prints the time of each. It installs the Debian packages that the tests
# need, and says so. It needs Go, a C compiler for the race detector, and less than twenty minutes of two cores. Where a Docker engine
# answers, the cluster is tested in containers too.
#
#   ./scripts/test.sh            everything
#   ./scripts/test.sh fsm e2e    only these stages
#   CONCLAVE_LONG=1 ./scripts/test.sh     with the long forms
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Debian packages, each with the program or file that shows it is there and the reason.
packages=(
  "gcc:gcc:the race detector"
  "openssl:openssl:signatures and keys are checked against another implementation"
  "softhsm2:softhsm2-util:the PKCS#11 token that everything runs on, too"
  "libnss3:/usr/lib/*/libsoftokn3.so:a PKCS#11 module that does not enforce what it promises and must be refused"
)

stages=(format generate vet static build fsm core cmd e2e compose)

install_packages() {
  local missing=() entry name program
  for entry in "${packages[@]}"; do
    IFS=: read -r name program _ <<<"$entry"
    command -v "$program" >/dev/null || compgen -G "$program" >/dev/null || missing+=("$name")
  done
  [ ${#missing[@]} -eq 0 ] && return
  apt_install "${missing[@]}"
}

apt_install() {
  echo "The tests need Debian packages that are not here: $*. Installing them."
  local sudo=()
  [ "$(id -u)" -eq 0 ] || sudo=(sudo)
  "${sudo[@]}" apt-get update -qq
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"
}

# Each test binary has a time limit of its own, so that a hang names its goroutines.
limit=15m
[ -z "${CONCLAVE_LONG:-}" ] || limit=6h # the long forms include hours of virtual time
gotest() { go test -timeout "$limit" "$@"; }

stage_format() {
  local bad
  bad=$(git ls-files '*.go' | grep -v '\.pb\.go$' | xargs gofmt -l)
  [ -z "$bad" ] || { echo "gofmt would change:"; echo "$bad"; return 1; }
}

# Generated code is committed; what the pinned generators make must be what is there.
stage_generate() {
  local before after
  before=$(git ls-files -z '*.pb.go' | xargs -0 sha256sum)
  ./scripts/generate.sh
  after=$(git ls-files -z '*.pb.go' | xargs -0 sha256sum)
  [ "$before" = "$after" ] || { echo "generated code is not what the .proto files yield; commit the result of scripts/generate.sh"; return 1; }
  go tool -modfile=scripts/tools/buf/go.mod buf lint
}

stage_vet() {
  go vet ./...
  go mod verify
  go mod tidy -diff
}

stage_static() { go tool -modfile=scripts/tools/staticcheck/go.mod staticcheck ./...; }

# Without cgo too: the same program, static, with the embedded token only.
stage_build() {
  go build ./...
  CGO_ENABLED=0 go build -o /dev/null ./cmd/conclave
  CGO_ENABLED=0 go vet ./hsm/... ./cmd/...
  CGO_ENABLED=0 gotest -skip '^TestSoak$' ./hsm/... ./cmd/internal/token
  # With the runtime's experiment that erases temporaries, which only such a build can be held to.
  GOEXPERIMENT=runtimesecret CGO_ENABLED=0 gotest -run 'TestConformance/(use|drain|concurrent_use|decryption|swaps)|TestNothingOfAKeyIsLeft' ./hsm/soft
  gotest -count=1 ./scripts # go's cache does not see what it reads: the whole tree
}

# covered PACKAGE PERCENT: its tests reach at least so many of its statements.
covered() {
  local line
  line=$(gotest -cover "$1") || { echo "$line"; return 1; }
  echo "$line"
  awk -v least="$2" '{ for (i = 1; i <= NF; i++) if ($i == "coverage:") found = $(i + 1) + 0 } END { exit found < least }' <<<"$line" ||
    { echo "the tests of $1 cover less than $2 % of it"; return 1; }
}

stage_fsm() {
  gotest -race ./fsm/...
  covered ./fsm 95 # what reviewers trust first
  gotest ./fsm -run '^$' -bench Scale -benchtime 1x # what a catalog costs; a million keys with CONCLAVE_LONG=1
}
# Together, because in each of them there is one package that the others would wait for. The soaks count bytes of a heap that the race detector
# changes, on one goroutine: without it, and at their full size.
stage_core() {
  gotest -race -skip '^TestSoak$' ./hsm/... ./cluster/... ./vault/... ./transport/...
  gotest -run '^TestSoak$' ./hsm/soft ./hsm/pkcs11
}

# The campaign in virtual time at its full length too, beside the rest: neither keeps two cores busy. The race detector makes each minute five times
# as dear, so under it there is one. It allocates much and keeps little: a lazier collector spares it a tenth.
stage_cmd() {
  local log campaign code=0
  log=$(mktemp)
  GOGC=400 gotest -run '^TestNothingIsReleasedAgainstAnAcknowledgedRestriction$' ./cmd/internal/node >"$log" 2>&1 &
  campaign=$!
  gotest -race $(go list ./cmd/... | grep -v /cmd/e2e) || code=1
  wait "$campaign" || code=1
  cat "$log"
  rm -f "$log"
  return $code
}

# Not from go's cache either: it does not see the program that is tested. Four tests at a time, because they wait more than they compute. The long
# form also shows that the campaign finds what it looks for: three builds with a rule taken out, each of which it must catch. They are
# built from copies of the sources, for some minutes.
stage_e2e() {
  gotest -count=1 -parallel 4 ./cmd/e2e
  gotest -count=1 ./cmd/e2e/chaos
  [ -z "${CONCLAVE_LONG:-}" ] || ./scripts/chaos.sh --planted
}

# engine succeeds if a Docker engine answers; else it says why not. One that is there and forbidden to us is a failure, not an absence.
engine() {
  command -v docker >/dev/null || { echo "there is no docker program"; return 1; }
  docker info --format '{{.ServerVersion}}' 2>&1 | grep -E '^[0-9]' && return 0
  docker info 2>&1 | grep -i -E 'error|cannot|denied' | head -n 1
  return 1
}

# The cluster in containers, where there is a Docker engine. Then it has to have run: a test that did not is a failure.
stage_compose() {
  local found log
  if ! found=$(engine); then
    case $found in
      *"permission denied"*) echo "a Docker engine is here, and this user may not call it: $found"; return 1 ;;
    esac
    echo "compose test: NOT RUN"
    echo "reason: no Docker engine answers: $found"
    return 0
  fi
  if ! docker compose version >/dev/null 2>&1 && ! command -v docker-compose >/dev/null; then
    echo "Docker engine $found is here, and neither 'docker compose' nor 'docker-compose'."
    apt_install docker-compose
  fi
  log=$(mktemp)
  if gotest -count=1 -v ./cmd/e2e/compose 2>&1 | tee "$log" && grep -q '^--- PASS: TestContainers ' "$log"; then
    rm -f "$log"
  else
    rm -f "$log"
    echo "Docker engine $found is here, and the compose test did not pass"
    return 1
  fi
}

run() {
  local name=$1 start code
  start=$(date +%s)
  printf '\n== %s\n' "$name"
  # As the condition of an "if" a stage would go on after a command of it that failed. In a shell of its own it ends there.
  set +e
  (set -e; "stage_$name")
  code=$?
  set -e
  if [ "$code" -ne 0 ]; then
    printf '\n%s FAILED after %d s\n' "$name" $(($(date +%s) - start))
    exit 1
  fi
  times+=("$(printf '%-10s %4d s' "$name" $(($(date +%s) - start)))")
}

main() {
  local wanted=("$@") times=() begin
  [ ${#wanted[@]} -gt 0 ] || wanted=("${stages[@]}")
  begin=$(date +%s)
  install_packages
  go version
  local s
  for s in "${wanted[@]}"; do
    declare -F "stage_$s" >/dev/null || { echo "no stage $s; there are: ${stages[*]}"; exit 2; }
    run "$s"
  done
  printf '\n== time per stage\n'
  printf '%s\n' "${times[@]}"
  printf '%-10s %4d s\n' all $(($(date +%s) - begin))
}

main "$@"
