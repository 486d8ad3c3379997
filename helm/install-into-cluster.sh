#!/usr/bin/env bash
# Installs a trial of Onward (database and broker in the chart) into the cluster that kubectl points to, waits, and asks it
# one question. Or takes it away again.
set -euo pipefail

usage() {
  cat <<'TEXT'
install-into-cluster.sh --registry HOST --model NAME (--hub-id ID | --claim CLAIM [--path FOLDER]) [options]
install-into-cluster.sh --uninstall [--purge] [--namespace NAME] [--release NAME]

  --registry HOST    where the images were pushed; --preloaded instead where every node has them already
  --model NAME       public name of the base model
  --hub-id ID        its id on the hub
  --claim CLAIM      or the volume claim with its weights, and --path FOLDER in it (default: the root)
  --device cpu|cuda  default cpu
  --namespace NAME   default onward
  --release NAME     default onward
  --timeout TIME     for the installation, default 30m
  --values FILE      further values
  --purge            with --uninstall: the trial's volumes and password too
TEXT
}

namespace=onward release=onward timeout=30m model="" hub="" claim="" path=. device=cpu registry="" preloaded=false uninstall="" purge=""
more=()
while (($#)); do
  case $1 in
    --model) model=$2; shift 2 ;;
    --hub-id) hub=$2; shift 2 ;;
    --claim) claim=$2; shift 2 ;;
    --path) path=$2; shift 2 ;;
    --device) device=$2; shift 2 ;;
    --registry) registry=$2; shift 2 ;;
    --preloaded) preloaded=true; shift ;;
    --namespace) namespace=$2; shift 2 ;;
    --release) release=$2; shift 2 ;;
    --timeout) timeout=$2; shift 2 ;;
    --values) more+=(--values "$2"); shift 2 ;;
    --uninstall) uninstall=yes; shift ;;
    --purge) purge=yes; shift ;;
    --help | -h) usage; exit 0 ;;
    *) echo "unknown: $1" >&2; usage >&2; exit 2 ;;
  esac
done

chart=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
mine=(-n "$namespace" -l "app.kubernetes.io/name=onward,app.kubernetes.io/instance=$release")

if [[ $uninstall ]]; then
  helm uninstall "$release" -n "$namespace" --wait --ignore-not-found
  if [[ $purge ]]; then kubectl delete secret,persistentvolumeclaim "${mine[@]}"; fi
  exit 0
fi

if [[ -z $model || (-z $hub && -z $claim) || (-n $hub && -n $claim) ]]; then usage >&2; exit 2; fi
if [[ -z $registry && $preloaded == false ]]; then
  echo "--registry: say where the images were pushed, or --preloaded where every node has them already" >&2
  usage >&2
  exit 2
fi
if [[ $hub ]]; then source="hubId: '$hub'"; else source="path: '$path', weights: {existingClaim: '$claim'}"; fi

echo "cluster: $(kubectl config current-context), namespace $namespace, release $release"
helm upgrade --install "$release" "$chart" -n "$namespace" --create-namespace --wait --wait-for-jobs --timeout "$timeout" \
  --values - "${more[@]}" <<VALUES
image: {registry: '$registry', preloaded: $preloaded}
models: [{name: '$model', device: $device, $source}]
trial: {database: {enabled: true}, broker: {enabled: true}}
VALUES

helm test "$release" -n "$namespace"

api=$(kubectl get deployment -n "$namespace" -l "app.kubernetes.io/instance=$release,app.kubernetes.io/component=api" -o name)
maker=$(kubectl get cronjob -n "$namespace" -l "app.kubernetes.io/instance=$release,app.kubernetes.io/component=operator" -o name)
tenant="smoke-$(date +%s)"
kubectl -n "$namespace" create job "$tenant" --from "$maker"
trap 'kubectl -n "$namespace" delete job "$tenant"' EXIT
kubectl -n "$namespace" wait --for=jsonpath='{.status.ready}'=1 "job/$tenant" --timeout "$timeout"
kubectl -n "$namespace" exec "job/$tenant" -- onward tenants create "$tenant" > /dev/null
# The key goes from one pod to the other, and only the answer to a request with it is printed.
ask='
import sys
import urllib.request

key = sys.stdin.read().strip()
ask = urllib.request.Request("http://127.0.0.1:8000/v1/models", headers={"Authorization": f"Bearer {key}"})
print(urllib.request.urlopen(ask, timeout=10).read().decode())
'
kubectl -n "$namespace" exec "job/$tenant" -- onward keys create "$tenant" |
  kubectl -n "$namespace" exec -i "$api" -- python -c "$ask"
helm get notes "$release" -n "$namespace"
