#!/bin/sh
# Prints a Compose file with one more worker for each GPU but the first, whose worker is in
# docker-compose.gpu.yml. Compose can't give each replica of one service a GPU of its own.
#   sh ops/docker/gpus.sh > docker-compose.gpus.yml     # for the GPUs that nvidia-smi lists
#   sh ops/docker/gpus.sh 4 > docker-compose.gpus.yml   # for GPUs 0 to 3
set -eu
cd "$(dirname "$0")/../.."

number=${1:-$(nvidia-smi --list-gpus | wc -l)}
case $number in
  '' | *[!0-9]* | 0 | 1)
    echo "gpus.sh: $number GPUs; this file is for two or more" >&2
    exit 2
    ;;
esac
image=$(sed -n 's/^ *image: *//p' docker-compose.gpu.yml)

echo "services:"
index=1
while [ "$index" -lt "$number" ]; do
  cat <<END
  worker-$index:
    extends: { file: docker-compose.yml, service: worker }
    image: $image
    build: { args: { TORCH_INDEX: "\${TORCH_INDEX:-}" } }
    environment: { LORIKEET_DEVICE: cuda }
    deploy:
      resources:
        reservations:
          devices: [{ driver: nvidia, device_ids: ["$index"], capabilities: [gpu] }]
END
  index=$((index + 1))
done
