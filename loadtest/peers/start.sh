#!/bin/sh
# start.sh NAME PORT [OPTION...]: serves a peer on 127.0.0.1:PORT; the first use installs it.
# PEERS_VENV=/path/to/venv uses an existing environment, for all peers and for prepare.py.
set -eu

[ $# -ge 2 ] || { sed -n '2,3s/^# //p' "$0" >&2; exit 2; }
name=$1 port=$2
shift 2
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
[ "$name" = gallery ] || [ -f "$here/$name/server.py" ] || {
    echo "start.sh: unknown peer: $name; see loadtest/peers/README.md" >&2
    exit 2
}
peers=${DINOSERVE_HOME:-${XDG_CACHE_HOME:-$HOME/.cache}/dinoserve}/peers
export PYTHONDONTWRITEBYTECODE=1

# environment NAME REQUIREMENTS: installs them if needed, and prints the virtual environment's path.
environment() {
    if [ -n "${PEERS_VENV:-}" ]; then
        echo "$PEERS_VENV"
        return
    fi
    venv=$peers/$1/venv
    if ! cmp -s "$2" "$venv/installed.txt"; then
        echo "start.sh: installing $1" >&2
        python3 -m venv --clear "$venv" >&2
        "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$2" >&2
        cp "$2" "$venv/installed.txt"
    fi
    echo "$venv"
}

# start.sh gallery VECTORS.npy QUERIES.npy: no server, but search commands on standard input.
if [ "$name" = gallery ]; then
    venv=$(environment gallery "$here/gallery/requirements.txt")
    exec "$venv/bin/python" "$here/gallery/search.py" "$port" "$@"
fi
if [ ! -f "$peers/model-518.onnx" ]; then
    venv=$(environment prepare "$here/requirements-prepare.txt")
    "$venv/bin/python" "$here/prepare.py" "$peers" >&2
fi
venv=$(environment "$name" "$here/$name/requirements.txt")
export PYTHONPATH="$here/shared"
exec "$venv/bin/python" "$here/$name/server.py" "$peers" --port "$port" "$@"
