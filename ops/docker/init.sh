#!/bin/sh
# Writes .env for docker-compose.yml from .env.example, with new secrets. Never overwrites .env.
set -eu
cd "$(dirname "$0")/../.."
if [ -e .env ]; then
    echo ".env exists and was not changed; remove it to create new secrets" >&2
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
Wrote .env. Start Lorikeet:

    docker compose up

When the worker is ready, list the models:

    curl http://127.0.0.1:23333/v1/models -H 'Authorization: Bearer $key'
END
