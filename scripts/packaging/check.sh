# How scripts/package checks what it made; sourced by it. A check that cannot be made says so, and is counted.

fixture="$PWD/tests/fixtures/megatron-tiny/untied/dist_tp1pp2_first3"
not_run=0
# The oldest glibc that packages promise to run on, and the most that a wheel may have.
oldest_glibc=2.17
most_bytes=4000000

not_made() {
    not_run=$((not_run + 1))
    missing "$*"
}
wrong() {
    printf '!! %s\n' "$*" >&2
    exit 1
}

check_tools() {
    local packages=()
    command -v mmdebstrap >/dev/null || packages+=(mmdebstrap)
    command -v zsh >/dev/null || packages+=(zsh)
    command -v fish >/dev/null || packages+=(fish)
    if [ "$(uname -m)" = x86_64 ] && [[ " ${architectures[*]} " = *" aarch64 "* ]]; then
        command -v qemu-aarch64-static >/dev/null || packages+=(qemu-user-static)
        [ -d /usr/aarch64-linux-gnu/lib ] || packages+=(libc6-arm64-cross)
    fi
    [ ${#packages[@]} = 0 ] || install_packages "${packages[@]}" || echo "could not install ${packages[*]}"
}

# What runs programs of an architecture here, in words; empty where they run by themselves, and false where nothing does.
runner() {
    [ "$(uname -m)" != "$1" ] || return 0
    command -v "qemu-$1-static" >/dev/null || return 1
    # The C library of the other architecture, where Debian's package for cross compilers has it.
    echo "qemu-$1-static -L /usr/$1-linux-gnu"
}
# A program with the environment of nobody.
run_alone() {
    local arch="$1" run
    shift
    run="$(runner "$arch")"
    # shellcheck disable=SC2086 # words
    env -i PATH=/usr/bin:/bin $run "$@"
}
run_program() {
    local arch="$1" libc="$2"
    shift 2
    run_alone "$arch" "$work/$arch-$libc/ckpt-fs" "$@"
}

# Runs an installed program: it is this version and commit, and knows a checkpoint. The rest is how to call it; prints what it says of itself.
works() {
    local said
    said="$("$@" --version)"
    case "$said" in
        "ckpt-fs $version ("*"${commit:0:12}"*) ;;
        *) wrong "$* --version says: $said" ;;
    esac
    "$@" inspect "$fixture" | grep -q 'Megatron-core GPT' || wrong "$* inspect does not know a checkpoint"
    echo "  $said"
}

# The newest version of glibc that it wants symbols of; nothing where it is static.
floor() { readelf -V --wide "$1" | sed -n 's/.*GLIBC_\([0-9.]*\).*/\1/p' | sort -Vu | tail -n 1; }

# What the program asks of the machine: a C library of some age, and no other one.
check_program() {
    local program="$work/$1-$2/ckpt-fs" needed oldest
    needed="$(readelf -d "$program" | sed -n 's/.*NEEDED.*\[\(.*\)\]/\1/p' | sort | paste -sd ' ')"
    oldest="$(floor "$program")"
    echo "$1 $2: glibc ${oldest:-none}, libraries ${needed:-none}, $(stat -c %s "$program") bytes"
    if [ "$2" = musl ]; then
        [ -z "$needed$oldest" ] || wrong "it is not static"
        return
    fi
    [ "$(printf '%s\n' "$oldest" "$oldest_glibc" | sort -V | tail -n 1)" = "$oldest_glibc" ] || wrong "it needs glibc $oldest"
    for library in $needed; do
        case "$library" in
            lib[cm].so.6 | libdl.so.2 | libpthread.so.0 | librt.so.1 | ld-linux-*) ;;
            *) wrong "it needs $library" ;;
        esac
    done
}

# Every Python at hand that the wheel is for, one of each version, oldest first.
pythons() {
    local python
    for python in python3 python3.{8..20} "${PYENV_ROOT:-$HOME/.pyenv}"/versions/*/bin/python3; do
        "$python" -c 'import sys, venv; v = sys.version_info; v >= (3, 8) and print(v[1], sys.executable)' 2>/dev/null || true
    done | sort -un -k1,1 | cut -d' ' -f2
}

check_wheel() {
    local arch="$1" libc="$2" wheel python place count=0
    wheel="$(echo "$work/$arch-$libc"/*.whl)"
    echo "$(basename "$wheel")"
    [ "$(stat -c %s "$wheel")" -lt $most_bytes ] || wrong "it has $(stat -c %s "$wheel") bytes"
    if [ "$arch-$libc" = "$(uname -m)-gnu" ]; then
        for python in $(pythons); do
            place="$work/venv-$((count += 1))"
            "$python" -m venv "$place"
            "$place/bin/pip" install --quiet --disable-pip-version-check --no-index --no-deps "$wheel"
            echo "  installed by pip into a virtual environment of $("$python" -V)"
            works env -i "$place/bin/ckpt-fs"
            [ "$(cd / && "$place/bin/python" -c 'import ckpt_fs; print(ckpt_fs.__version__)')" = "$version" ] || wrong "ckpt_fs has another version"
            "$place/bin/pip" uninstall --quiet --yes ckpt-fs
            [ ! -e "$place/bin/ckpt-fs" ] || wrong "it was not uninstalled"
        done
        [ "$count" -gt 1 ] || echo "  only one Python from 3.8 on is here, so no other was tried"
        return
    fi
    # No Python of that platform is here, but pip can be told to install for it.
    place="$work/wheel-$arch-$libc"
    python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore --no-index --no-deps --only-binary :all: --implementation py --abi none \
        --platform "$(basename "$wheel" .whl | sed 's/.*-none-//; s/\..*//')" --target "$place" "$wheel"
    echo "  installed by pip for that platform into a directory"
    runner "$arch" >/dev/null || { not_made "$arch: not run (no qemu-$arch-static)"; return; }
    works run_alone "$arch" "$place/bin/ckpt-fs"
}

# In a Debian of its own with nothing else, as apt would do it.
check_deb() {
    local arch="$1" name deb root="$work/debian" suite file sources=()
    name="$(debian_name "$arch")"
    deb="$out/ckpt-fs_${version}_$name.deb"
    echo "$(basename "$deb")"
    dpkg-deb --contents "$deb" | awk '!/\/$/ { $2 = $3 = $4 = $5 = ""; print "  " $0 }' | tr -s ' '
    suite="$(. /etc/os-release && echo "$VERSION_CODENAME")"
    # From where this machine has its own packages.
    for file in /etc/apt/sources.list /etc/apt/sources.list.d/debian.sources; do
        [ ! -s "$file" ] || sources+=("$file")
    done
    if [ "$arch" != "$(uname -m)" ]; then
        dpkg-deb -x "$deb" "$work/extracted-$arch"
        echo "  extracted, not installed: there is no Debian of $name here"
        runner "$arch" >/dev/null || { not_made "$arch: not run (no qemu-$arch-static)"; return; }
        works run_alone "$arch" "$work/extracted-$arch/usr/bin/ckpt-fs"
    elif [ "$(id -u)" = 0 ] && [ ${#sources[@]} -gt 0 ] && command -v mmdebstrap >/dev/null &&
        mmdebstrap --quiet --variant=minbase --include=mount "$suite" "$root" "${sources[@]}" 2>"$work/mmdebstrap.log"; then
        echo "  in a minimal Debian $suite"
        in_debian "$deb"
        rm -rf "$root"
    else
        dpkg-deb -x "$deb" "$work/extracted-$arch"
        not_made "the .deb is extracted and run, not installed: no root, or no Debian could be made ($(tail -n 1 "$work/mmdebstrap.log" 2>/dev/null || true))"
        works run_alone "$arch" "$work/extracted-$arch/usr/bin/ckpt-fs"
    fi
}

in_debian() {
    local fixture_there=/fixture
    cp "$1" "$root/ckpt-fs.deb"
    cp -r "$fixture" "$root$fixture_there"
    mkdir "$root/view"
    chroot "$root" dpkg --install /ckpt-fs.deb >/dev/null
    fixture="$fixture_there" works chroot "$root" ckpt-fs
    chroot "$root" dpkg --verify ckpt-fs | grep -v '^??5??????   /usr/share/\(doc\|man\)' || true
    # In namespaces of its own, so that nothing that is mounted there outlives the check.
    if unshare --mount --pid --fork --propagation private sh -euc '
        mount --bind /dev "$1/dev"
        mount -t proc proc "$1/proc"
        chroot "$1" sh -euc "mount -t ckpt-fs -o tp=4,pp=1,ro /fixture /view; cat /view/*/mp_rank_03/model_optim_rng.pt | wc -c; umount /view"
    ' sh "$root"; then
        echo "  mount -t ckpt-fs mounts there"
    else
        not_made "mount -t ckpt-fs could not be tried there: no usable /dev/fuse?"
    fi
    chroot "$root" dpkg --purge ckpt-fs >/dev/null
    [ ! -e "$root/usr/bin/ckpt-fs" ] && [ ! -L "$root/usr/sbin/mount.ckpt-fs" ] || wrong "it was not removed"
    echo "  installed by dpkg, run, removed"
}

# In a root that has nothing but the tarball and a checkpoint.
check_tarball() {
    local arch="$1" root="$work/root-$1" tarball="$out/ckpt-fs-$version-$1-linux.tar.gz"
    echo "$(basename "$tarball")"
    mkdir -p "$root/usr/local"
    tar -C "$root/usr/local" --strip-components 1 --no-same-owner -xf "$tarball"
    if [ "$arch" = "$(uname -m)" ] && [ "$(id -u)" = 0 ]; then
        cp -r "$fixture" "$root/fixture"
        echo "  unpacked and run in a root with nothing else"
        fixture=/fixture works chroot "$root" /usr/local/bin/ckpt-fs
    elif runner "$arch" >/dev/null; then
        echo "  unpacked and run"
        works run_alone "$arch" "$root/usr/local/bin/ckpt-fs"
    else
        not_made "$arch: not run (no qemu-$arch-static)"
    fi
    check_share "$root/usr/local/share"
}

# Shells and man read what was generated.
check_share() {
    local shell page
    for shell in bash:bash-completion/completions/ckpt-fs zsh:zsh/site-functions/_ckpt-fs fish:fish/vendor_completions.d/ckpt-fs.fish; do
        if command -v "${shell%%:*}" >/dev/null; then
            "${shell%%:*}" -n "$1/${shell#*:}"
        else
            not_made "no ${shell%%:*} here to read its completions"
        fi
    done
    command -v man >/dev/null || { not_made "no man here to read the pages"; return; }
    for page in "$1"/man/man*/*; do
        [ -z "$(man --warnings -l "$page" 2>&1 >/dev/null)" ] || wrong "$page: $(man --warnings -l "$page" 2>&1 >/dev/null | head -n 3)"
    done
    echo "  bash, zsh, fish and man read what it has for them"
}

table() {
    printf '%10s  %s\n' bytes package
    (cd "$out" && stat -c '%s %n' ./*.whl ./*.deb ./*.tar.gz) | sort -k2 | awk '{ printf "%10d  %s\n", $1, substr($2, 3) }'
}
