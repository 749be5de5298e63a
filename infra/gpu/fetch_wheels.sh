#!/usr/bin/env bash
# Fetches the wheels of infra/gpu/wheels.txt for CPython 3.12 on x86-64 Linux into .gpu/wheels. What is there is
# kept; files of other packages and versions are removed, since two versions of one stop the installation.
set -euo pipefail
cd "$(dirname "$0")/../.."
folder=.gpu/wheels
mkdir -p "$folder"

missing=()
kept=()
while read -r requirement; do
    [[ -n $requirement && $requirement != \#* ]] || continue
    name=${requirement%%==*}
    stem=$folder/${name//-/_}-${requirement##*==}-
    compgen -G "$stem*.whl" >/dev/null || missing+=("$requirement")
    kept+=("$stem")
done <infra/gpu/wheels.txt

for file in "$folder"/*; do
    for stem in "${kept[@]}"; do
        [[ $file != "$stem"*.whl ]] || continue 2
    done
    rm -f -- "$file"
done

if ((${#missing[@]})); then
    platforms=()
    for version in 2_17 2_24 2_27 2_28; do
        platforms+=(--platform "manylinux_${version}_x86_64")
    done
    "${PYTHON:-python3}" -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.12 \
        --implementation cp "${platforms[@]}" --platform manylinux2014_x86_64 --dest "$folder" "${missing[@]}"
fi
du -sh "$folder" >&2
