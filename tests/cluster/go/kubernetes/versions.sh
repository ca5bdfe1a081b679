#!/bin/bash
# Write go.mod anew for one Kubernetes version: every staging module is replaced by its published twin.
set -eu
cd "$(dirname "$0")"
version=${1:?a Kubernetes version, 1.36.3 for one}
rm -f go.mod go.sum
go mod init polypod.dev/tests/cluster/kubernetes
go mod edit -go 1.26.0
go mod edit -require "k8s.io/kubernetes@v$version"
for module in $(go mod download -json "k8s.io/kubernetes@v$version" | sed -n 's/.*"GoMod": "\(.*\)".*/\1/p' | xargs sed -n 's,^\t\(k8s.io/[a-z-]*\) => ./staging.*,\1,p'); do
  go mod edit -replace "$module=$module@v0.${version#1.}"
done
go mod tidy
