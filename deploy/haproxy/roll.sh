#!/bin/sh
# Replace every replica of `docker compose --profile replicas`, one at a time: a new one is ready before an old one is stopped.
# Call it in the folder of docker-compose.yml, after `docker compose build replica` or a change of its settings.
set -eu

replicas() {
    docker compose --profile replicas up --detach --wait --no-recreate --no-deps --scale replica="$1" replica
}

old=$(docker compose --profile replicas ps --quiet replica)
count=$(echo "$old" | wc -l)
for container in $old; do
    replicas $((count + 1))
    docker stop "$container" >/dev/null
    docker rm "$container" >/dev/null
done
