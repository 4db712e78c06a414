#!/usr/bin/env bash
# Makes the shipped models: trains, measures, exports and benchmarks, on CUDA where there is one.
#
#   models/make.sh DATA [OUT]
#
# DATA holds anime-faces-64.zip and mnist/. OUT [runs] gets the runs, models/ and the benchmarks.
# After an interruption the same command goes on: what is finished is left as it is.
set -euo pipefail
cd "$(dirname "$0")/.."

data=$(realpath "$1")
out=$(realpath -m "${2:-runs}")
python=${PYTHON:-.venv/bin/python}

if "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
  faces=(--width 64 --kimg 3000 --snapshot-kimg 100)
  free=("${faces[@]}")
  digits=(--width 64 --kimg 2000 --snapshot-kimg 100)
else
  faces=(--width 32 --kimg 900 --snapshot-kimg 30)
  free=(--width 32 --kimg 600 --snapshot-kimg 30)
  digits=(--width 48 --kimg 600 --snapshot-kimg 50)
fi

# make_model NAME SOURCE "EVALUATE OPTIONS" TRAIN OPTIONS ...
make_model() {
  local name=$1 source=$data/$2 measures=$3 run=$out/$1
  shift 3
  if [ -e "$run/config.json" ]; then
    "$python" -m training resume "$run" --data "$source"
  else
    "$python" -m training train --name "$name" --data "$source" --out "$run" "$@"
  fi
  if [ ! -e "$out/models/$name" ]; then
    if [ ! -e "$run/measured" ]; then
      # shellcheck disable=SC2086 # none or one option
      "$python" -m training evaluate "$run" --data "$source" $measures
      touch "$run/measured"
    fi
    "$python" -m training export "$run" --to "$out/models" --version 2
  fi
}

unclear="unknown: pictures of unclear rights; for research and demonstration only"
make_model anime-faces anime-faces-64.zip --utility \
  --preset faces --licence "$unclear" "${faces[@]}"
make_model anime-faces-free anime-faces-64.zip "" \
  --preset faces --licence "$unclear" --attributes none "${free[@]}"
make_model digits mnist --utility \
  --preset digits --licence "CC BY-SA 3.0 (MNIST, LeCun, Cortes and Burges)" \
  --attributes digit --label-weight 0.05 "${digits[@]}"

# benchmark NAME OPTIONS ...
benchmark() {
  local report=$out/benchmark-$1.txt
  if [ ! -e "$report" ]; then
    "$python" -m "benchmarks.$1" "${@:2}" | tee "$report.tmp"
    mv "$report.tmp" "$report"
  fi
}

benchmark train --data "$data/anime-faces-64.zip"
FIGMENT_MODELS=$out/models benchmark serve
