#!/usr/bin/env bash
# run.sh python|typescript|rust: runs an example as its first lines say, but builds it in a cache. Which server, and by
# which key, stands in TRACELAKE_SERVER, TRACELAKE_PUBLIC_KEY and TRACELAKE_SECRET_KEY.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export TRACELAKE_PROTOS=$here/..
# shellcheck source=../../tests/clients/install.sh
. "$here/../../tests/clients/install.sh"

case ${1:-} in
python)
    install "$here/python/requirements.txt"
    made=$installed/example
    mkdir -p "$made"
    "$installed/bin/python" -m grpc_tools.protoc -I "$TRACELAKE_PROTOS" --python_out="$made" --grpc_python_out="$made" \
        tracelake/v1/ingest.proto tracelake/v1/metrics.proto
    PYTHONPATH=$made exec "$installed/bin/python" "$here/python/example.py"
    ;;
typescript)
    install "$here/typescript/package-lock.json"
    cp "$here/typescript/"{example.ts,package.json,tsconfig.json} "$installed"
    cd "$installed"
    exec npm start --silent
    ;;
rust)
    cd "$here/../.."
    exec cargo run --locked --quiet --package tracelake-example
    ;;
*)
    echo "usage: $0 python|typescript|rust" >&2
    exit 2
    ;;
esac
