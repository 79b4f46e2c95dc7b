#!/usr/bin/env bash
# A real S3 server for tests: Debian 12's Ceph gateway (Ceph 16), run from a folder, nothing installed.
#
#   gateway.sh fetch                        download and unpack it into ${TRACELAKE_CACHE:-~/.cache/tracelake}/ceph-16
#   gateway.sh up DIR PORT ACCESS SECRET [BUCKET]
#                                           run one cluster in the foreground, its files in the new folder DIR
#
# `up` prints `ready` once S3 answers on 127.0.0.1:PORT (the monitor takes PORT+1, the disk daemon free ports from 6800)
# and BUCKET is there. It runs until TERM, INT or the end of a daemon; if its input is a pipe, also until whoever holds
# the other end is gone. Data is in memory: it is gone afterwards.
#
# What this server does not do (Ceph 16): If-Match with a quoted ETag always fails, and If-None-Match is ignored when a
# multipart upload is completed. If-None-Match on a plain PUT is atomic.
set -euo pipefail

root=${TRACELAKE_CACHE:-$HOME/.cache/tracelake}/ceph-16
lib=$root/usr/lib/x86_64-linux-gnu

main() {
    case "${1:-}" in
    fetch) fetch ;;
    up)
        [ $# -eq 5 ] || [ $# -eq 6 ] || die "usage: gateway.sh up DIR PORT ACCESS SECRET [BUCKET]"
        up "$2" "$3" "$4" "$5" "${6:-}"
        ;;
    *) die "usage: gateway.sh fetch | gateway.sh up DIR PORT ACCESS SECRET [BUCKET]" ;;
    esac
}

die() {
    echo "gateway.sh: $*" >&2
    exit 2
}

# ---- fetch: apt resolves and downloads into folders of ours; its own state and the system stay as they are.

fetch() {
    [ -x "$root/usr/bin/radosgw" ] && return
    # Other releases carry other Ceph versions.
    grep -qs '^VERSION_CODENAME=bookworm' /etc/os-release || die "fetch needs Debian 12 (bookworm)"
    mkdir -p "$(dirname "$root")"
    local work
    work=$(mktemp -d "$root.XXXXXX")
    # shellcheck disable=SC2064
    trap "rm -rf '$work'" EXIT
    mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/root"
    local apt=(apt-get -qq -o Debug::NoLocking=1 -o "Dir::State::lists=$work/lists" -o "Dir::Cache=$work/cache"
        -o APT::Sandbox::User=)
    "${apt[@]}" update
    "${apt[@]}" install --yes --no-install-recommends --download-only radosgw ceph-mon ceph-osd >/dev/null
    local package
    for package in "$work"/cache/archives/*.deb; do
        dpkg-deb --extract "$package" "$work/root"
    done
    # Two thirds of the bytes are documents and tools that no test calls.
    rm -rf "$work"/root/usr/share/{doc,man,locale,lintian}
    rm -f "$work"/root/usr/bin/ceph-{dencoder,objectstore-tool,bluestore-tool,kvstore-tool,monstore-tool,osdomap-tool}
    # Only a whole tree gets the name; if another fetch was faster, its tree is as good.
    mv -T "$work/root" "$root" 2>/dev/null || [ -x "$root/usr/bin/radosgw" ]
}

# ---- up: monitor, one disk in memory, gateway.

up() {
    local port=$2 access=$3 secret=$4 bucket=$5
    [ -x "$root/usr/bin/radosgw" ] || die "no Ceph in $root: run gateway.sh fetch"
    mkdir -p "$1"
    home=$(cd "$1" && pwd)
    [ -z "$(ls -A "$home")" ] || die "$home is not empty: a cluster in memory needs a new folder"
    export LD_LIBRARY_PATH=$lib:$lib/ceph:$root/lib/x86_64-linux-gnu
    export PYTHONPATH=$root/usr/lib/python3/dist-packages
    export CEPH_CONF=$home/ceph.conf
    export PATH=$root/usr/bin:$PATH

    mon='' disk='' gateway='' setup='' watch=''
    trap stop EXIT
    trap 'exit 0' TERM INT
    if [ -p /dev/stdin ]; then
        follow_input $$ <&0 &
        watch=$!
    fi
    mkdir "$home/run" "$home/mon" "$home/disk"
    local cluster
    cluster=$(cat /proc/sys/kernel/random/uuid)
    write_config "$cluster" "$port"
    write_keyring

    monmaptool --create --addv a "[v2:127.0.0.1:$((port + 1))]" --fsid "$cluster" "$home/monmap" >"$home/setup.log"
    ceph-mon --mkfs -i a --monmap "$home/monmap" --keyring "$home/keyring"
    start mon ceph-mon -f -i a

    local disk_id
    disk_id=$(cat /proc/sys/kernel/random/uuid)
    # Ceph's own modules are built for Debian's Python, which need not be the first in PATH.
    local python=/usr/bin/python3
    [ -x "$python" ] || python=$root/usr/bin/python3
    in_time "$python" "$root/usr/bin/ceph" --connect-timeout 20 osd new "$disk_id" 0
    ceph-osd -i 0 --mkfs --osd-uuid "$disk_id" 2>>"$home/setup.log"
    start disk ceph-osd -f -i 0

    in_time radosgw-admin user create --uid tests --display-name tests --access-key "$access" --secret-key "$secret"
    start gateway radosgw -f -n client.admin
    await "$port"
    [ -z "$bucket" ] || create_bucket "$port" "$access" "$secret" "$bucket"
    echo ready
    # Until a signal, or until one of the three ends by itself: then all do.
    wait -n "$mon" "$disk" "$gateway" || true
    die "a daemon ended by itself: see $home"
}

# Ends the script when its input ends, so that nothing is left behind by a caller that was killed.
follow_input() {
    trap - EXIT TERM INT
    while read -r _; do :; done
    kill "$1"
}

# start NAME COMMAND...: in the background, its pid in the variable NAME, its words in NAME.log.
start() {
    local name=$1
    shift
    # It gets a TERM should this script end without a word, as by KILL.
    setpriv --pdeathsig TERM -- "$@" >"$home/$name.log" 2>&1 &
    printf -v "$name" '%s' "$!"
}

# A set-up command in the background, so that a signal is served while it waits for a cluster that does not come up.
in_time() {
    timeout 60 "$@" >>"$home/setup.log" 2>&1 &
    setup=$!
    wait "$setup" || die "failed: $*: $(tail -n 3 "$home/setup.log")"
    setup=''
}

await() {
    local tries
    for tries in $(seq 300); do
        curl --silent --max-time 2 "http://127.0.0.1:$1/" | grep -q ListAllMyBuckets && return
        kill -0 "$gateway" 2>/dev/null || die "the gateway ended: $(tail -n 3 "$home/gateway.log")"
        sleep 0.1 &
        wait $!
    done
    die "the gateway did not answer in 30 s ($tries tries): $(tail -n 3 "$home/gateway.log")"
}

create_bucket() {
    printf 'user = "%s:%s"\n' "$2" "$3" |
        curl --silent --show-error --fail --max-time 20 --config - --aws-sigv4 aws:amz:us-east-1:s3 \
            --header 'x-amz-content-sha256: UNSIGNED-PAYLOAD' --request PUT "http://127.0.0.1:$1/$4" ||
        die "bucket $4 could not be created"
}

# The gateway first: it hangs when the cluster under it is gone. Only our own children, by pid.
stop() {
    local pid
    # A second signal must not cut it short: one comes when our input ends while we stop.
    trap '' TERM INT HUP PIPE
    for pid in $watch $setup $gateway $disk $mon; do
        kill "$pid" 2>/dev/null || continue
        for _ in $(seq 40); do
            kill -0 "$pid" 2>/dev/null || break
            sleep 0.1
        done
        kill -9 "$pid" 2>/dev/null || true
    done
}

write_keyring() {
    local who
    for who in mon. client.admin osd.0; do
        printf '[%s]\nkey = %s\ncaps mon = "allow *"\ncaps osd = "allow *"\ncaps mgr = "allow *"\n' \
            "$who" "$(ceph-authtool --gen-print-key)"
    done >"$home/keyring"
}

# Two settings make it quick: the short paxos interval (a start takes 2 s instead of 12) and tcp_nodelay (a small
# request takes 4 ms instead of 25).
write_config() {
    cat >"$home/ceph.conf" <<CONFIG
[global]
fsid = $1
mon initial members = a
mon host = [v2:127.0.0.1:$(($2 + 1))]
public addr = 127.0.0.1
cluster addr = 127.0.0.1
public network = 127.0.0.0/8
ms bind ipv6 = false
keyring = $home/keyring
auth cluster required = cephx
auth service required = cephx
auth client required = cephx

run dir = $home/run
crash dir = $home/run
pid file = $home/run/\$name.pid
admin socket = $home/run/\$name.asok
log file = $home/run/\$name.log
plugin dir = $lib/ceph
erasure code dir = $lib/ceph/erasure-code
osd class dir = $lib/rados-classes

mon data = $home/mon
mon data avail warn = 1
mon data avail crit = 1
mon allow pool size one = true
mon pg warn min per osd = 0
paxos propose interval = 0.02
paxos min wait = 0.01

osd data = $home/disk
osd objectstore = memstore
memstore device bytes = 8589934592
osd crush chooseleaf type = 0
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd pool default pgp num = 4
osd pool default pg autoscale mode = off

rgw frontends = beast endpoint=127.0.0.1:$2 tcp_nodelay=1
rgw thread pool size = 64
rgw run sync thread = false
rgw enable ops log = false
rgw enable usage log = false
debug rgw = 0
debug ms = 0
CONFIG
}

main "$@"
