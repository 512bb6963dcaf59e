#!/bin/bash
# Runs a cargo tool that not every machine has: tests/tool.sh TOOL ARGUMENT...
# One that is missing is said loudly; what it finds is a failure.
set -eu
cargo=${CARGO:-cargo}
if ! $cargo "$1" --version >/dev/null 2>&1; then
    echo "SKIPPED: cargo $1 is not installed" >&2
    exit 0
fi
echo "cargo $*"
exec $cargo "$@"
