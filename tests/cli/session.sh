# Prepended to the commands of a document by tests/cli/documents.rs. Commands run as they are
# written, but those that never end, need a network, or build: of these, what they name must exist.
set -eu
shopt -s expand_aliases

fail() { echo "session: $*" >&2; exit 1; }
in_repository() { [ -e "$ROOT/$1" ] || fail "there is no $1"; }
last() { echo "${!#}"; }

curl() { command curl --fail-with-body --silent --show-error "$@"; }

dinoserve() {
    case "$*" in
        # These write to folders of the system, or open a browser.
        serve* | "models pull "* | "man "* | "demo --open") command dinoserve "$@" --help > help.txt ;;
        *) command dinoserve "$@" ;;
    esac
}

# Unknown options are rejected before the help is printed.
dinoserve-train() {
    local program
    program=$(type -P dinoserve-train) || return 0 # tried by the tests of train/
    "$program" "$@" --help > help.txt
}

make() { command make --dry-run --directory "$ROOT" "$@" > make.txt; }

cargo() {
    case "$1" in build | run | test | nextest | install) ;; *) fail "cargo $1" ;; esac
    while [ $# -gt 1 ]; do
        if [ "$1" = -p ]; then
            grep -qs "^name = \"$2\"" "$ROOT"/Cargo.toml "$ROOT"/*/Cargo.toml || fail "package $2"
        fi
        shift
    done
}

docker() {
    case "$*" in
        "compose up"*) in_repository docker-compose.yml ;;
        "build "*) in_repository Dockerfile ;;
        "push "*) ;;
        *) fail "docker $*" ;;
    esac
}

kubectl() {
    for word in "$@"; do
        case "$word" in
            --from-file=*) [ -s "${word#--from-file=}" ] || fail "there is no ${word#*=}" ;;
            deploy/*) in_repository "$word/kustomization.yaml" ;;
        esac
    done
}

helm() {
    for word in "$@"; do
        case "$word" in deploy/*) in_repository "$word/Chart.yaml" ;; esac
    done
}

install() {
    for word in "$@"; do
        case "$word" in deploy/*) in_repository "$word" ;; esac
    done
}
# A script that downloads; others run.
python3() {
    case "$1" in
        deploy/setup.py) in_repository "$1" ;;
        *) command python3 "$@" ;;
    esac
}
systemctl() { case "$1" in enable | reload | restart | status) ;; *) fail "systemctl $1" ;; esac; }
journalctl() { [ "$1" = -u ] || fail "journalctl $1"; }

promtool() { in_repository "$(last "$@")"; }
wrk() { while [ "$1" != -s ]; do shift; done; in_repository "$2"; }
train/examples/fashion_mnist.py() { in_repository train/examples/fashion_mnist.py; }
# These need a network.
apt-get() { [ "$1" = download ] || [ "$1" = install ] || fail "apt-get $1"; }
dpkg-deb() { [ "$1" = -x ] || fail "dpkg-deb $1"; }
pip() { [ "$1" = install ] || fail "pip $1"; }
