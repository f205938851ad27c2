#!/usr/bin/env sh
# Make what the processes of one cluster know each other by: an authority, and one certificate of it for all of them.
#   pipelines/creodias/certificates.sh DIR [DAYS]
# The authority's key is not kept: nobody can make a second certificate for this cluster, and a new cluster gets new ones.
set -eu
umask 077
mkdir -p "$1"
cd "$1"
days="${2:-90}"
curve="-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
openssl req -x509 $curve -days "$days" -subj "/CN=icemap authority" -keyout ca.key -out ca.crt 2>/dev/null
openssl req $curve -subj "/CN=icemap" -keyout tls.key -out tls.csr 2>/dev/null
openssl x509 -req -in tls.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days "$days" -out tls.crt 2>/dev/null
rm -f ca.key ca.srl tls.csr
