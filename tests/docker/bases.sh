#!/bin/sh
# Makes the images that the Dockerfile starts from, for machines that reach Debian's packages but no image registry.
#
#   tests/docker/bases.sh [RUST_IMAGE] [BASE_IMAGE]     needs root, debootstrap and a Rust toolchain
#
# An image that is there already is left alone, so whoever has a registry pulls the real ones and needs this not at all.
# A certificate authority of the machine's own goes into the Rust image, with which nothing is shipped but one bundle of
# certificates; the Dockerfile knows nothing of it.
set -eu

rust=${1:-rust:1.95-slim-bookworm}
base=${2:-debian:bookworm-slim}
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
security=${DEBIAN_SECURITY_MIRROR:-http://deb.debian.org/debian-security}
export DOCKER_BUILDKIT=0

fail() { echo "bases: $1" >&2; exit 1; }
there() { docker image inspect "$1" >/dev/null 2>&1; }

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# Debian without documents, manuals, translations and package lists, as the slim images are.
make_base() {
    [ "$(id -u)" = 0 ] || fail "only root can make $base"
    command -v debootstrap >/dev/null || fail "debootstrap is needed to make $base"
    root=$scratch/root
    echo "bases: making $base"
    debootstrap --variant=minbase bookworm "$root" "$mirror" > "$scratch/log" 2>&1 || {
        tail -n 5 "$scratch/log" >&2
        fail "debootstrap failed"
    }
    cat > "$root/etc/dpkg/dpkg.cfg.d/docker" <<'CONF'
path-exclude /usr/share/doc/*
path-include /usr/share/doc/*/copyright
path-exclude /usr/share/groff/*
path-exclude /usr/share/info/*
path-exclude /usr/share/linda/*
path-exclude /usr/share/lintian/*
path-exclude /usr/share/locale/*
path-exclude /usr/share/man/*
force-unsafe-io
CONF
    cat > "$root/etc/apt/apt.conf.d/docker" <<'CONF'
APT::Install-Recommends "false";
Acquire::Languages "none";
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
CONF
    cat > "$root/etc/apt/sources.list" <<CONF
deb $mirror bookworm main
deb $mirror bookworm-updates main
deb $security bookworm-security main
CONF
    # Services must not start in a build.
    printf '#!/bin/sh\nexit 101\n' > "$root/usr/sbin/policy-rc.d"
    chmod 755 "$root/usr/sbin/policy-rc.d"
    find "$root/usr/share/doc" -depth ! -type d ! -name copyright -delete
    find "$root/usr/share/doc" -depth -type d -empty -delete
    for folder in groff info linda lintian locale man; do rm -rf "$root/usr/share/$folder"; done
    rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/* "$root"/var/cache/debconf/*-old \
        "$root"/var/lib/dpkg/*-old "$root"/var/cache/ldconfig/* "$root"/var/log/* "$root"/tmp/*
    tar --numeric-owner -C "$root" -c . \
        | docker import --change 'CMD ["bash"]' --change 'LABEL dinoserve.stand-in=true' - "$base" >/dev/null
    rm -rf "$root"
}

# The machine's toolchain in the place where the official image has it.
make_rust() {
    command -v rustc >/dev/null || fail "a Rust toolchain is needed to make $rust"
    echo "bases: making $rust"
    context=$scratch/rust
    mkdir -p "$context/authorities" "$context/toolchain/lib"
    toolchain=$(rustc --print sysroot)
    # Documentation is the larger half of a toolchain, and a build needs none.
    cp -a "$toolchain/bin" "$context/toolchain"
    cp -a "$toolchain/lib/." "$context/toolchain/lib"
    find /usr/local/share/ca-certificates -name '*.crt' -exec cp {} "$context/authorities" \; 2>/dev/null || true
    : > "$context/authorities/none"
    cat > "$context/Dockerfile" <<CONF
FROM $base
LABEL dinoserve.stand-in=true
COPY authorities /usr/local/share/ca-certificates
RUN apt-get update \\
 && apt-get install -y --no-install-recommends ca-certificates gcc libc6-dev \\
 && update-ca-certificates \\
 && rm -rf /var/lib/apt/lists/*
COPY toolchain /usr/local/rust
ENV CARGO_HOME=/usr/local/cargo PATH=/usr/local/cargo/bin:/usr/local/rust/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
CONF
    set --
    for name in http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY; do
        if printenv "$name" >/dev/null; then set -- "$@" --build-arg "$name"; fi
    done
    docker build --quiet --network=host "$@" -t "$rust" "$context" > "$scratch/log" 2>&1 || {
        tail -n 5 "$scratch/log" >&2
        fail "$rust could not be built"
    }
}

there "$base" || make_base
there "$rust" || make_rust
