# Shared by the measurements: where the instance is, and how figures are shown. Sourced, not run.
set -euo pipefail
export LC_ALL=C.UTF-8
HEARTH_HOME=${HEARTH_HOME:-/var/lib/hearth}
HEARTH_ADDRESS=${HEARTH_ADDRESS:-127.0.0.1}
HEARTH_CACHE=${HEARTH_CACHE:-/var/cache/hearth}
export HEARTH_HOME HEARTH_ADDRESS HEARTH_CACHE
hearth=$HEARTH_HOME/bin/hearth
domain=hearth.localhost

# The time in milliseconds.
now() { echo $((${EPOCHREALTIME/./} / 1000)); }

# summary NAME UNIT LIMIT VALUE...: the least, the middle and the greatest of the values, beside the limit.
summary() {
    local name=$1 unit=$2 limit=$3
    shift 3
    printf '%s\n' "$@" | sort -n | awk -v name="$name" -v unit="$unit" -v limit="$limit" '
        { v[NR] = $1 }
        END { printf "%-52s %9.1f %9.1f %9.1f %s   at most %s, %d runs\n", name, v[1], v[int((NR + 1) / 2)], v[NR], unit, limit, NR }'
}

# as PERSON COMMAND...: on the bastion.
as() {
    local person=$1
    shift
    ssh -p 2222 -i "$HEARTH_HOME/keys/$person" -o BatchMode=yes -o IdentitiesOnly=yes \
        -o UserKnownHostsFile="$HEARTH_HOME/keys/known_hosts" "$person@$HEARTH_ADDRESS" "$@"
}

# status HOST: with which status the front door answers for a host.
status() {
    curl --silent --max-time 5 --output /dev/null --write-out '%{http_code}' --cacert "$HEARTH_HOME/ca.crt" \
        --resolve "$1:443:$HEARTH_ADDRESS" "https://$1/" || true
}

[[ -x $hearth ]] || { echo "bench: there is no instance in $HEARTH_HOME; run make up first" >&2; exit 1; }
