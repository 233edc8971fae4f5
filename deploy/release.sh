#!/usr/bin/env bash
# Makes the files of a release for this machine in target/release-files: an archive of the program
# with its manual pages and completions, its SBOM, and their checksums. `make wheel` makes the wheel.
#
#   deploy/release.sh            PROFILE=release builds faster
set -euo pipefail
cd "$(dirname "$0")/.."

profile=${PROFILE:-dist}
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
name="dinoserve-$version-$(uname -m)-$(uname -s | tr '[:upper:]' '[:lower:]')"
files=target/release-files
folder="$files/$name"

rm -rf "$files"
mkdir -p "$folder/completions"
cargo build --locked --profile "$profile" --bin dinoserve
program="$folder/dinoserve"
install -m 755 "target/$profile/dinoserve" "$program"
strip "$program"
cp LICENSE NOTICE README.md deploy/setup.py "$folder/"
"$program" man "$folder/man1" > /dev/null
for shell in bash zsh fish; do
  "$program" completions "$shell" > "$folder/completions/dinoserve.$shell"
done
# Times and owners that are the same for everyone who builds this commit.
tar --sort=name --mtime="@$(git log -1 --format=%ct)" --owner=0 --group=0 --numeric-owner \
  -C "$files" -czf "$files/$name.tar.gz" "$name"
rm -rf "$folder"

command -v cargo-cyclonedx > /dev/null ||
  cargo install --quiet --locked --debug cargo-cyclonedx@0.5.9
cargo cyclonedx --quiet --format json --override-filename sbom
mv sbom.json "$files/$name.cdx.json"
rm -f train/sbom.json loadtest/sbom.json

(cd "$files" && sha256sum -- * > "$name.sha256")
ls -l "$files"
