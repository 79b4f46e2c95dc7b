# install LIST: installs what a list of pinned versions names, once, into a folder of the cache that is named after the
# list's content; its path is left in $installed.
cache=${TRACELAKE_CACHE:-$HOME/.cache/tracelake}/clients

install() {
    local list=$1
    installed=$cache/$(basename "$(dirname "$list")")-$(sha256sum "$list" | cut -c1-16)
    if [ -e "$installed/done" ]; then
        return
    fi
    mkdir -p "$cache"
    # One at a time, and only a finished installation counts.
    exec 9>"$installed.lock"
    flock 9
    if [ ! -e "$installed/done" ]; then
        rm -rf "$installed"
        case $list in
        *.txt)
            python3 -m venv "$installed"
            "$installed/bin/pip" install --quiet --disable-pip-version-check -r "$list"
            ;;
        *.json)
            mkdir "$installed"
            cp "$(dirname "$list")"/package*.json "$installed"
            (cd "$installed" && npm ci --silent --no-audit --no-fund --ignore-scripts)
            ;;
        esac
        touch "$installed/done"
    fi
    exec 9>&-
}
