# shellcheck shell=sh disable=SC2034
# Common to the scripts of this folder: where the project is, and its Python. Sourced, after "set -eu".

project=$(dirname "$(dirname "$(readlink -f "$0")")")
[ -f "$project/pyproject.toml" ] || project=$(dirname "$project")
venv=$project/.venv

say() { printf '%s\n' "$*" >&2; }

die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# lab ARGUMENTS...: the testbed's commands, with the project's own Python (made on first use).
lab() {
    "$project/netns-scripts/setup"
    exec "$venv/bin/python" -m b4client.lab "$@"
}
