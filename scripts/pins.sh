#!/bin/sh
# Pin every requirement set by hash. No index host is written: where packages come from is the machine's business.
set -eu
uv="$1"
compile() { out="$1"; shift; "$uv" pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
  --no-header --no-annotate -o "requirements/$out.txt" "$@"; }
printf 'uv_build>=0.13,<0.14\n' > requirements/build.in
printf 'uv>=0.13,<0.14\n' > requirements/uv.in
printf 'aics-tlog>=0.2\naics-witness>=0.1\n' > requirements/oracles.in
compile uv requirements/uv.in
compile core pyproject.toml requirements/build.in
compile test pyproject.toml requirements/build.in --group dev
compile bench pyproject.toml requirements/build.in --group bench
compile docs pyproject.toml requirements/build.in --group docs
oracles() { "$uv" pip compile -q --universal --python-version 3.12 --generate-hashes --no-emit-index-url \
  --no-header --no-annotate -o "requirements/oracles.txt" "$@"; }
oracles requirements/oracles.in
