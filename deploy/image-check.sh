#!/usr/bin/env bash
# Builds the image and runs it as a pod would, without a Docker engine: `make image-check`, on Debian as root, with
# `apt-get install buildah bubblewrap mmdebstrap`. Where the base image cannot be pulled, a stand-in is made of Debian's own
# Python 3.11: that proves the Dockerfile's steps and how Weir runs, not that the official base behaves the same.
set -euo pipefail
cd "$(dirname "$0")/.."

for tool in buildah bwrap curl; do
  command -v "$tool" >/dev/null || { echo "image-check: no $tool: apt-get install buildah bubblewrap mmdebstrap curl"; exit 1; }
done
CACHE=$(mkdir -p .venv/.image && cd .venv/.image && pwd)
export CONTAINERS_STORAGE_CONF=$CACHE/storage.conf
printf '[storage]\ndriver = "overlay"\nrunroot = "%s/run"\ngraphroot = "%s/graph"\n' "$CACHE" "$CACHE" >"$CONTAINERS_STORAGE_CONF"
BASE=docker.io/library/python:3.11-slim
IMAGE=localhost/weir:check
CONTAINER= WEIR=
trap '[ -z "$WEIR" ] || kill "$WEIR" 2>/dev/null || true; [ -z "$CONTAINER" ] || buildah rm "$CONTAINER" >/dev/null' EXIT

stand_in() {
  local root=$CACHE/root
  rm -rf "$root"
  mmdebstrap --quiet --variant=minbase --include=python3,python3-venv,passwd,ca-certificates bookworm "$root"
  ln -s python3 "$root/usr/bin/python"
  cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
  CONTAINER=$(buildah from scratch)
  buildah add --quiet "$CONTAINER" "$root" / >/dev/null
  buildah config --env PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin --env PIP_CERT=/etc/ssl/certs/ca-certificates.crt "$CONTAINER"
  buildah commit --quiet --rm "$CONTAINER" "$BASE" >/dev/null
  CONTAINER=
  rm -rf "$root"
}

says() { echo "image-check: $*"; }

is() { # what, expected, found
  [ "$2" = "$3" ] || { says "$1 is '$3', not '$2'"; exit 1; }
  says "$1: $3"
}

buildah inspect "$BASE" >/dev/null 2>&1 || buildah pull --quiet "$BASE" >/dev/null 2>&1 || { says "no $BASE here: making a stand-in"; stand_in; }
buildah bud --quiet --isolation chroot --pull-never --layers --format docker --network host \
  --build-arg "REVISION=$(git rev-parse --short HEAD)" --tag "$IMAGE" . >/dev/null
field() { buildah inspect --type image --format "{{$1}}" "$IMAGE"; }
is user 10001:10001 "$(field .OCIv1.Config.User)"
is entrypoint '[weir]' "$(field .OCIv1.Config.Entrypoint)"
is licence Apache-2.0 "$(field 'index .OCIv1.Config.Labels "org.opencontainers.image.licenses"')"

CONTAINER=$(buildah from --pull-never "$IMAGE")
ROOT=$(buildah mount "$CONTAINER")
LOG=$CACHE/weir.log
CONFIG=$CACHE/config # as kubelet lays a ConfigMap: config.yaml -> ..data/config.yaml, ..data -> a folder that is swapped
rm -rf "$CONFIG" && mkdir -p "$CONFIG/..1" && ln -s ..1 "$CONFIG/..data" && ln -s ..data/config.yaml "$CONFIG/config.yaml"
sed 's#prices: prices.yaml#prices: /etc/weir/prices.yaml#' config/config.yaml >"$CONFIG/..1/config.yaml"
in_a_pod() { # read-only, as uid 10001, without any capability, with nothing of this machine but its network
  exec bwrap --ro-bind "$ROOT" / --tmpfs /mnt --ro-bind "$CONFIG" /mnt/config --tmpfs /tmp --proc /proc --dev /dev --unshare-user --unshare-pid --unshare-ipc --uid 10001 \
    --gid 10001 --cap-drop ALL --die-with-parent --clearenv --setenv PATH /opt/weir/bin:/usr/local/bin:/usr/bin:/bin \
    --setenv WEIR_CONFIG /mnt/config/config.yaml --setenv WEIR_LISTEN 127.0.0.1:18080 --setenv WEIR_ADMIN :9090 "$@"
}
(in_a_pod weir serve) >"$LOG" 2>&1 &
WEIR=$!
for _ in $(seq 100); do curl -sf -o /dev/null http://127.0.0.1:9090/readyz && break; sleep 0.1; done
curl -sf -o /dev/null http://127.0.0.1:9090/readyz || { says "it does not get ready:"; cat "$LOG"; exit 1; }
is livez ok "$(curl -sf http://127.0.0.1:9090/livez)"
python3 - "$(field .Docker.Config.Healthcheck.Test)" <<'PY' || { says "the HEALTHCHECK is not what was expected"; exit 1; }
import sys
assert sys.argv[1].startswith("[CMD python -IS -c import urllib"), sys.argv[1]
PY
(in_a_pod python -IS -c "import urllib.request as r; r.urlopen('http://127.0.0.1:9090/readyz', timeout=2)") && says "health check: well"
answer=$(curl -sf http://127.0.0.1:18080/v1/chat/completions -H 'content-type: application/json' \
  -d '{"model": "demo", "messages": [{"role": "user", "content": "hi"}]}')
case $answer in *'"chat.completion"'*) says "it answers";; *) says "it answers: $answer"; exit 1;; esac
mkdir "$CONFIG/..2" && sed 's/name: default/name: renamed/' "$CONFIG/..1/config.yaml" >"$CONFIG/..2/config.yaml"
ln -s ..2 "$CONFIG/..new" && mv -T "$CONFIG/..new" "$CONFIG/..data" && rm -r "$CONFIG/..1"
for _ in $(seq 50); do curl -sf http://127.0.0.1:9090/state | grep -q renamed && break; sleep 0.1; done
is "routes after the ConfigMap has changed" renamed "$(curl -sf http://127.0.0.1:9090/state | grep -o renamed | head -n 1)"
inner=$(pgrep -P "$(pgrep -P "$WEIR" | head -n 1)" | head -n 1)
is "effective capabilities" 0000000000000000 "$(awk '/CapEff/ {print $2}' "/proc/$inner/status")"
is "memory at rest below 64 MiB" yes "$(awk '/VmRSS/ {print ($2 < 65536 ? "yes" : $2 " kB")}' "/proc/$inner/status")"
if (in_a_pod python -IS -c "open('/etc/weir/x', 'w')") 2>/dev/null; then says "its root can be written to"; exit 1; fi
says "its root cannot be written to"
kill "$inner"
wait "$WEIR" && status=0 || status=$?
WEIR=
is "exit status after SIGTERM" 0 "$status"
