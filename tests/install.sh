#!/bin/sh
# Installs what the tests run beside the engine, and only what is missing. From Debian's (or Ubuntu's) packages: PostgreSQL's server programs
# (initdb, pg_ctl, postgres, psql, and the extensions pageinspect and amcheck), KMC and Jellyfish, strace; for cluster/test.sh a Java runtime, Python's venv and
# PostgreSQL's JDBC driver. By tests/servers.sh: servers of other versions.
set -eu

missing=""
found=no
for dir in $(printf '%s' "$PATH" | tr ':' ' ') /usr/lib/postgresql/*/bin; do
    if [ -x "$dir/initdb" ] && [ -x "$dir/pg_ctl" ] && [ -x "$dir/psql" ]; then
        found=yes
    fi
done
[ "$found" = yes ] || missing="$missing postgresql"
command -v npm >/dev/null 2>&1 || missing="$missing npm"
python3 -m pip --version >/dev/null 2>&1 || missing="$missing python3-pip"
for program in kmc kmc_dump; do
    command -v "$program" >/dev/null 2>&1 || { missing="$missing kmc"; break; }
done
command -v jellyfish >/dev/null 2>&1 || missing="$missing jellyfish"
# an import that is struck at a chosen system call
command -v strace >/dev/null 2>&1 || missing="$missing strace"
command -v chromium >/dev/null 2>&1 || missing="$missing chromium"
command -v java >/dev/null 2>&1 || missing="$missing openjdk-17-jre-headless"
python3 -c 'import ensurepip' >/dev/null 2>&1 || missing="$missing python3-venv"
[ -e /usr/share/java/postgresql.jar ] || missing="$missing libpostgresql-jdbc-java"
# script: a terminal for a program; setpriv and unshare; in every Debian but the very smallest
command -v setpriv >/dev/null 2>&1 || missing="$missing util-linux"

if [ -z "$missing" ]; then
    "$(dirname "$0")/servers.sh" >/dev/null
    echo "tests/install.sh: nothing is missing"
    exit 0
fi
if [ "$(id -u)" -ne 0 ]; then
    echo "tests/install.sh: error: missing packages:$missing" >&2
    echo "tests/install.sh: hint: install them as root: sudo apt-get update && sudo apt-get install$missing" >&2
    exit 1
fi
if ! command -v apt-get >/dev/null 2>&1; then
    echo "tests/install.sh: error: there is no apt-get to install:$missing" >&2
    echo "tests/install.sh: hint: install PostgreSQL 13 or newer with its contrib modules, KMC 3 and Jellyfish 2, by other means" >&2
    exit 1
fi

export DEBIAN_FRONTEND=noninteractive
apt-get update
# The tests start servers of their own: the package need not make and start one.
if [ ! -e /etc/postgresql-common/createcluster.conf ]; then
    mkdir -p /etc/postgresql-common
    echo "create_main_cluster = false" >/etc/postgresql-common/createcluster.conf
fi
# shellcheck disable=SC2086 # a list of words
apt-get install -y --no-install-recommends -o Dpkg::Options::=--force-confold $missing
"$(dirname "$0")/servers.sh" >/dev/null
