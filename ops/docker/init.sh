#!/bin/sh
# Writes .env for docker-compose.yml: .env.example with secrets of its own. Never overwrites one.
set -eu
cd "$(dirname "$0")/../.."
if [ -e .env ]; then
    echo ".env is there already; nothing was changed" >&2
    exit 1
fi

secret() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }

umask 077
while IFS= read -r line; do
    case $line in
    REDIS_PASSWORD= | LORIKEET_API_KEYS= | ADMIN_KEY= | LORIKEET_METRICS_KEY= | GRAFANA_PASSWORD=) line=$line$(secret) ;;
    esac
    printf '%s\n' "$line"
done <.env.example >.env.new
mv .env.new .env

key=$(sed -n 's/^LORIKEET_API_KEYS=//p' .env)
cat <<END
Wrote .env. Now start it:

    docker compose up

and, when the worker is ready, ask it:

    curl http://127.0.0.1:23333/v1/models -H 'Authorization: Bearer $key'
END
