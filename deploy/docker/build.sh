#!/bin/sh
# Fills a folder with the programs and ONNX Runtime, inside the build stage of the Dockerfile.
# usage: build.sh compiled|prebuilt FOLDER
set -eu

binaries=$1
folder=$2
mkdir -p "$folder/bin"

case "$binaries" in
compiled)
    # ONNX Runtime comes out of its Python wheel.
    apt-get update
    apt-get install --yes --no-install-recommends python3-pip
    cargo xtask setup
    programs="consort-gateway consort-preprocess consort-model consort-postprocess"
    # At once, so that what they share is compiled once.
    cargo build --release --locked $(printf -- '--package %s ' $programs)
    for program in $programs; do
        cp "target/release/$program" "$folder/bin/"
    done
    cp -r target/onnxruntime "$folder/onnxruntime"
    ;;
prebuilt)
    if [ ! -d target/image/bin ]; then
        echo "target/image is empty: run \`cargo xtask images\` first" >&2
        exit 1
    fi
    cp -r target/image/. "$folder/"
    ;;
*)
    echo "BINARIES is \`$binaries\`: use \`compiled\` or \`prebuilt\`" >&2
    exit 1
    ;;
esac
