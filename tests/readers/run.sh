#!/usr/bin/env bash
# run.sh [SCRIPT.py] ARGUMENTS: the script, or check.py, with its readers, installed once per requirements.txt into a cache.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
key=$(sha256sum "$here/requirements.txt" | cut -c1-16)
readers=${TRACELAKE_CACHE:-$HOME/.cache/tracelake}/readers/$key
if [ ! -e "$readers/installed" ]; then
    mkdir -p "$(dirname "$readers")"
    # One at a time, and only a finished installation counts.
    exec 9>"$readers.lock"
    flock 9
    if [ ! -e "$readers/installed" ]; then
        rm -rf "$readers"
        python3 -m venv "$readers"
        "$readers/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt"
        touch "$readers/installed"
    fi
    exec 9>&-
fi
script=check.py
case "${1:-}" in
    *.py) script=$1 && shift ;;
esac
exec "$readers/bin/python" "$here/$script" "$@"
