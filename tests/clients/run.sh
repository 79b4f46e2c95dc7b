#!/usr/bin/env bash
# run.sh CLIENT VARIANT: sends the scenario with a pinned client, installed once per list of versions into a cache.
# run.sh CLIENT VARIANT TRACE: reads that trace back with the same client; the last line says in JSON what it read.
#
# Where to, and as whom, stands in LANGFUSE_HOST, LANGFUSE_PUBLIC_KEY, LANGFUSE_SECRET_KEY and TRACELAKE_GRPC. The last
# line that the client prints is the id of its trace. `run.sh --install` only installs them all.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=install.sh
. "$here/install.sh"

if [ "${1:-}" = --install ]; then
    examples=$here/../../proto/examples
    for list in {"$here","$examples"}/*/requirements*.txt {"$here","$examples"}/*/package-lock.json; do
        install "$list"
    done
    exit
fi

client=$here/$1 variant=${2:-} trace=${3:-}
what=scenario
[ -z "$trace" ] || what=read
if [ -e "$client/package-lock.json" ]; then
    install "$client/package-lock.json"
    # Modules are looked for beside the script.
    cp "$client/$what.mjs" "$installed/$what.mjs"
    # Debian 12's Node 18 has the global that newer ones have, and Langfuse's client hashes media with, only if asked.
    exec node --experimental-global-webcrypto "$installed/$what.mjs" "$variant" "$trace"
fi
list=$client/requirements-$variant.txt
[ -e "$list" ] || list=$client/requirements.txt
install "$list"
exec "$installed/bin/python" "$client/$what.py" "$variant" ${trace:+"$trace"}
