#!/bin/sh
# features.sh IMAGE: writes an embedding, a PCA map and the attention maps of all heads to the
# working directory.
set -eu

server=${DINOSERVE_URL:-http://127.0.0.1:8080}
image=$1

# Sends the image; $1 is the route with its options, $2 the type of the response, $3 the file.
send() {
    curl --fail-with-body --silent --show-error --data-binary "@$image" \
        -H 'Content-Type: application/octet-stream' -H "Accept: $2" "$server$1" -o "$3"
}

send /v1/embed application/x-npy embedding.npy
send '/v1/pca?upscale=bicubic' image/png parts.png
send '/v1/attention?head=all&overlay=0.7' image/png heads.png
ls -l embedding.npy parts.png heads.png
