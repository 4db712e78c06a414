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
  digits=(--width 64 --kimg 2000 --snapshot-kimg 100)
else
  faces=(--width 32 --kimg 900 --snapshot-kimg 30)
  digits=(--width 48 --kimg 600 --snapshot-kimg 50)
fi

# run_of NAME SOURCE TRAIN OPTIONS ...
run_of() {
  local run=$out/$1 source=$data/$2
  if [ -e "$run/config.json" ]; then
    "$python" -m training resume "$run" --data "$source"
  else
    "$python" -m training train --name "$1" --data "$source" --out "$run" "${@:3}"
  fi
}

# model_of RUN NAME SOURCE OPTIONS OF evaluate ...
model_of() {
  local run=$out/$1 name=$2 source=$data/$3 drawn=()
  [ "$1" = "$2" ] || drawn=(--unconditional "$name")
  if [ ! -e "$out/models/$name" ]; then
    if [ ! -e "$run/$name-is-measured" ]; then
      "$python" -m training evaluate "$run" --data "$source" "${drawn[@]}" "${@:4}"
      touch "$run/$name-is-measured"
    fi
    "$python" -m training export "$run" --to "$out/models" --version 2 "${drawn[@]}"
  fi
}

run_of anime-faces anime-faces-64.zip --preset faces "${faces[@]}" \
  --licence "unknown: pictures of unclear rights; for research and demonstration only"
model_of anime-faces anime-faces anime-faces-64.zip --utility
model_of anime-faces anime-faces-free anime-faces-64.zip
run_of digits mnist --preset digits --attributes digit --label-weight 0.05 "${digits[@]}" \
  --licence "CC BY-SA 3.0 (MNIST, LeCun, Cortes and Burges)"
model_of digits digits mnist --utility

# benchmark NAME OPTIONS ...
benchmark() {
  local report=$out/benchmark-$1.txt
  if [ ! -e "$report" ]; then
    "$python" -m "benchmarks.$1" "${@:2}" | tee "$report.tmp"
    mv "$report.tmp" "$report"
  fi
}

benchmark train --data "$data/anime-faces-64.zip"
benchmark serve
if "$python" -c "import onnxruntime as o; exit('CUDAExecutionProvider' not in o.get_available_providers())"; then
  benchmark cuda
fi
