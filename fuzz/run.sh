#!/bin/sh
# Fuzzes all targets, or the given ones, for some seconds each.
#
#   fuzz/run.sh [SECONDS [TARGET...]]
#
# New inputs go to fuzz/found/TARGET, failures to fuzz/artifacts/TARGET; the committed corpus is
# only read.

set -eu
cd "$(dirname "$0")/.."
seconds=${1:-300}
[ $# -gt 0 ] && shift
cargo fuzz --version >/dev/null 2>&1 || {
    echo "fuzz: cargo-fuzz is missing; install it with \`cargo install cargo-fuzz\`" >&2
    exit 1
}
# The sanitizer's flags need a nightly toolchain, or a stable one with this variable.
case $(rustc --version) in
*nightly* | *dev*) ;;
*) export RUSTC_BOOTSTRAP=1 ;;
esac

# In memory if possible: the targets of galleries write files, and a disk would slow them down.
scratch=$(mktemp -d /dev/shm/dinoserve-fuzz-XXXXXX 2>/dev/null || mktemp -d)
trap 'rm -rf "$scratch"' EXIT
trap 'exit 130' INT TERM

failed=
for target in ${*:-$(cargo fuzz list)}; do
    case $target in
    decode_image | read_weights) max_len=16384 ;;
    read_request) max_len=4096 ;;
    *) max_len=8192 ;;
    esac
    # A gallery's threads end after it is closed, and look like leaks until then.
    case $target in
    *_gallery) leaks=0 ;;
    *) leaks=1 ;;
    esac
    echo "== $target: $seconds s"
    mkdir -p "fuzz/found/$target" "fuzz/corpus/$target"
    cargo fuzz build "$target"
    ASAN_OPTIONS=detect_leaks=$leaks TMPDIR=$scratch cargo fuzz run "$target" \
        "fuzz/found/$target" "fuzz/corpus/$target" -- \
        -max_total_time="$seconds" -max_len="$max_len" -timeout=10 -rss_limit_mb=2048 \
        -print_final_stats=1 ||
        failed="$failed $target"
done
[ -z "$failed" ] || {
    echo "fuzz: targets failed:$failed; see fuzz/artifacts/" >&2
    exit 1
}
