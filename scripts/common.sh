# What scripts/test, scripts/nightly and scripts/fuzz share; sourced by them, from the root of the repository.

# With CKPT_FS_REQUIRE_ALL=1 or CI=true a skip is a failure.
require_all=0
if [ "${CKPT_FS_REQUIRE_ALL:-}" = 1 ] || [ "${CI:-}" = true ]; then
    require_all=1
fi

# The usage in the comment at the top of a script.
usage() {
    awk 'NR > 1 { if (!sub(/^# ?/, "")) exit; print }' "$0" >&2
    exit 2
}

say() { printf '\n== %d:%02d %s\n' $((SECONDS / 60)) $((SECONDS % 60)) "$*"; }

# Skips loudly, or fails where skipping is not allowed.
missing() {
    printf '\n!! SKIPPED: %s\n' "$*" >&2
    if [ "$require_all" = 1 ]; then
        printf '!! and nothing may be skipped here\n' >&2
        exit 1
    fi
}

# Installs Debian packages, as root; fails where that is not possible.
install_packages() {
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 1
    apt-get update -qq || true
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$@" >/dev/null
}

# Makes `cargo NAME` work: as it is installed, as it comes built (scripts/tools.txt), or from source, which takes minutes.
tools="$(realpath -m "${CARGO_TARGET_DIR:-target}")/tools"
PATH="$PATH:$tools/bin"
cargo_tool() {
    command -v "cargo-$1" >/dev/null && return
    mkdir -p "$tools"
    grep "cargo-$1=" scripts/tools.txt >"$tools/$1.txt"
    if python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore --no-deps --require-hashes --upgrade --target "$tools" \
        --only-binary :all: -r "$tools/$1.txt" && command -v "cargo-$1" >/dev/null; then
        return
    fi
    echo "cargo-$1 does not come built for this machine, or cannot be had: building it"
    # It runs once, so it need not be fast.
    CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_LTO=off cargo install --quiet --locked --root "$tools" "cargo-$1"
}

# Starts a function beside everything else: `beside NAME FUNCTION`. `wait_for NAME` waits for it, fails as it did, and shows what it had
# to say if it failed or skipped something.
declare -A beside_pid
beside_log=
beside() {
    if [ -z "$beside_log" ]; then
        beside_log="$(mktemp -d)"
        trap end_beside EXIT
    fi
    # In a process group of its own, so that all of it can be ended.
    set -m
    "$2" >"$beside_log/$1" 2>&1 &
    beside_pid[$1]=$!
    set +m
}
wait_for() {
    local code=0
    wait "${beside_pid[$1]}" || code=$?
    unset "beside_pid[$1]"
    if [ "$code" != 0 ] || grep -q '^!!' "$beside_log/$1"; then
        printf '\n== %s, in its own words\n' "$1" >&2
        cat "$beside_log/$1" >&2
    fi
    return "$code"
}
end_beside() {
    local pid
    for pid in "${beside_pid[@]}"; do
        kill -- "-$pid" 2>/dev/null || true
    done
    rm -rf "$beside_log"
}
