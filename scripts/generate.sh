#!/usr/bin/env bash
# Regenerates every *.pb.go from the .proto beside it. Generated code is committed; scripts/test.sh runs this and expects no diff.
# The generators are pinned, each in a go.mod of its own, because their dependencies do not agree with each other.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
go tool -modfile=scripts/tools/buf/go.mod buf generate
