# How scripts/package builds and packs; sourced by it. The program of every package is that of the wheel, so that it is built and linked
# in one way.

# maturin and zig in a virtual environment of their own.
package_tools() {
    local stamp
    stamp="$(python3 -V) $(cksum <scripts/packaging/tools.txt)"
    if [ ! -f "$tools/package/stamp" ] || [ "$(cat "$tools/package/stamp")" != "$stamp" ]; then
        rm -rf "$tools/package"
        python3 -m venv "$tools/package"
        "$tools/package/bin/pip" install --quiet --disable-pip-version-check --no-deps --require-hashes --only-binary :all: -r scripts/packaging/tools.txt
        printf '%s' "$stamp" >"$tools/package/stamp"
    fi
    PATH="$tools/package/bin:$PATH"
    maturin --version
    echo "zig $(python-zig version)"
    rustc --version
}
python-zig() { "$tools/package/bin/python" -m ziglang "$@"; }

# The wheel for an architecture and a C library; its program goes to $work/ARCH-LIBC/ckpt-fs.
#
# With glibc it is built against the symbols of 2.17 (manylinux2014), which runs on clusters from CentOS 7 on. What is built with musl is
# static and runs everywhere, but takes a third more processor time where much memory is allocated, and cannot give memory back
# (docs/releasing.md). So packages for a libc that is known have the first.
build_wheel() {
    local arch="$1" libc="$2" tag=manylinux2014 wheel
    [ "$libc" = gnu ] || tag=musllinux_1_2
    rustup target add "$arch-unknown-linux-$libc" >/dev/null 2>&1 || true
    mkdir -p "$work/$arch-$libc"
    maturin build --quiet --locked --zig --target "$arch-unknown-linux-$libc" --compatibility "$tag" --out "$work/$arch-$libc"
    wheel="$(echo "$work/$arch-$libc"/*.whl)"
    python3 -m zipfile -e "$wheel" "$work/$arch-$libc/unpacked"
    install -m 755 "$work/$arch-$libc/unpacked/ckpt_fs-$version.data/scripts/ckpt-fs" "$work/$arch-$libc/ckpt-fs"
    cp "$wheel" "$out"
    basename "$wheel"
}

# Man pages and completions are the same for all: written by the first program that runs here.
generate_share() {
    run_program "${architectures[0]}" musl generate "$work/share"
    gzip -n9 "$work"/share/man/man*/*
    find "$work/share" -type f -printf '%P\n' | sort
}

# All files of a package but for its program, below a directory that stands for /usr or /usr/local.
lay_out() {
    local root="$1"
    mkdir -p "$root/bin" "$root/sbin" "$root/share/doc/ckpt-fs" "$root/lib/systemd/system"
    cp -r "$work/share/." "$root/share/"
    cp README.md CHANGELOG.md LICENSE docs/*.md "$root/share/doc/ckpt-fs/"
    cp deploy/README.md "$root/share/doc/ckpt-fs/deploy.md"
    cp -r deploy/slurm deploy/kubernetes deploy/grafana-dashboard.json "$root/share/doc/ckpt-fs/"
    ln -s ../bin/ckpt-fs "$root/sbin/mount.ckpt-fs"
    ln -s ../bin/ckpt-fs "$root/sbin/mount.fuse.ckpt-fs"
}

debian_name() { case "$1" in x86_64) echo amd64 ;; aarch64) echo arm64 ;; esac; }

# By dpkg-deb alone: cargo-deb would be one more tool to have and to build, for a file of ten lines.
pack_deb() {
    local arch="$1" root="$work/deb-$1" name
    name="$(debian_name "$arch")"
    lay_out "$root/usr"
    install -m 755 "$work/$arch-gnu/ckpt-fs" "$root/usr/bin/ckpt-fs"
    cp 'deploy/ckpt-fs@.service' "$root/usr/lib/systemd/system/"
    mv "$root/usr/share/doc/ckpt-fs/LICENSE" "$root/usr/share/doc/ckpt-fs/copyright"
    # Debian's zsh looks there.
    mv "$root/usr/share/zsh/site-functions" "$root/usr/share/zsh/vendor-completions"
    mkdir -p "$root/etc/ckpt-fs" "$root/DEBIAN"
    # /sbin is a link to /usr/sbin in every Debian and Ubuntu that is still kept up.
    cat >"$root/DEBIAN/control" <<-END
		Package: ckpt-fs
		Version: $version
		Architecture: $name
		Maintainer: the developers of ckpt-fs
		Installed-Size: $(du -sk "$root/usr" | cut -f1)
		Depends: libc6 (>= 2.17)
		Recommends: fuse3
		Section: utils
		Priority: optional
		Description: shows a model's checkpoint in any parallel layout and format
		 Mounts the checkpoint of a training run as Megatron rank files of another
		 tensor-, pipeline- and expert-parallel layout, as a Hugging Face model, as a
		 distributed checkpoint or as rank files of vLLM and SGLang. Nothing is
		 rewritten: files are put together from the source's bytes when they are read.
	END
    cat >"$root/DEBIAN/postinst" <<-'END'
		#!/bin/sh
		set -e
		# systemd reads units that come and go only when it is told.
		if [ -d /run/systemd/system ]; then systemctl daemon-reload || true; fi
	END
    cp "$root/DEBIAN/postinst" "$root/DEBIAN/postrm"
    chmod 755 "$root/DEBIAN/postinst" "$root/DEBIAN/postrm"
    (cd "$root" && find usr -type f -print0 | sort -z | xargs -0 md5sum >DEBIAN/md5sums)
    chmod -R u=rwX,go=rX "$root"
    dpkg-deb --root-owner-group -Zxz --build "$root" "$out/ckpt-fs_${version}_$name.deb" >/dev/null
}

pack_tarball() {
    local arch="$1" name="ckpt-fs-$version-$1-linux" root
    root="$work/tar-$arch/$name"
    lay_out "$root"
    install -m 755 "$work/$arch-musl/ckpt-fs" "$root/bin/ckpt-fs"
    sed 's|/usr/bin/ckpt-fs|/usr/local/bin/ckpt-fs|' 'deploy/ckpt-fs@.service' >"$root/lib/systemd/system/ckpt-fs@.service"
    tar -C "$work/tar-$arch" --sort=name --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX --mtime="@$SOURCE_DATE_EPOCH" -c "$name" |
        gzip -n9 >"$out/$name.tar.gz"
}
