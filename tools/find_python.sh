#!/bin/sh
# Prints the first Python that is 3.11 or newer and really runs (version managers leave stubs that do not).
# Newest tested first; a plain python3 last, as it may be newer than the wheels.
for candidate in "${PYTHON:-}" python3.13 python3.12 python3.11 python3 python; do
    [ -n "$candidate" ] || continue
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
        found="${found:-$candidate}"
        # One with venv is better than a newer one without.
        if "$candidate" -c 'import venv, ensurepip' >/dev/null 2>&1; then
            echo "$candidate"
            exit 0
        fi
    fi
done
if [ -n "${found:-}" ]; then
    echo "$found"  # has no venv module: setup_env.py says which command installs it
    exit 0
fi
echo "Openline needs Python 3.11 or newer; none was found. On Debian and Ubuntu:" >&2
echo "    apt-get install -y python3 python3-venv" >&2
echo "or name one: make PYTHON=/path/to/python3.12" >&2
exit 1
