#!/usr/bin/env bash
# Records how Portreeve is used, by which releases are compiled (.cargo/rustc): builds it so that it counts what it runs, puts
# it under every load of benches/compare.py, and writes .cargo/release.profdata. Takes a quarter of an hour, what compare.py
# needs, and llvm-profdata of the toolchain: rustup component add llvm-tools.
#
#   benches/record.sh && cargo build --release
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

profdata=$(rustc --print target-libdir)/../bin/llvm-profdata
if [[ ! -x $profdata ]]; then
    echo "benches/record.sh: missing: llvm-profdata (rustup component add llvm-tools)" >&2
    exit 1
fi

target=$(realpath -m "${CARGO_TARGET_DIR:-target}/record")
# The same each time: what is compiled already keeps it.
export PORTREEVE_RECORD=$target/uses
mkdir -p "$PORTREEVE_RECORD"
rm -f "$PORTREEVE_RECORD"/*.profraw
cargo build --release --locked --bin portreeve --target-dir "$target"

# One thread, since the counters are not made for several. What it counted is written when it ends.
OURS="$target/release/portreeve run -c {R}/ours.toml" \
    benches/compare.py --peers ours --rounds 1 --workers 1 --secs 4

"$profdata" merge --sparse --output .cargo/release.profdata "$PORTREEVE_RECORD"/*.profraw
cp "$PORTREEVE_RECORD/build" .cargo/release.build

# Cargo does not know of the record, so that it would take what was compiled by the last one for new.
cargo clean --release
