#!/bin/sh
# Starts nginx in Kubernetes, with the addresses of the cluster in nginx.conf. REPLICAS is the name of
# the headless service.
set -eu
server=$(awk '$1 == "nameserver" {print ($2 ~ /:/ ? "[" $2 "]" : $2); exit}' /etc/resolv.conf)
# NAMESPACE.svc.DOMAIN, because nginx does not complete names.
domain=$(awk '$1 == "search" {print $2; exit}' /etc/resolv.conf)
# Not a process for each core of the node.
sed "s/127\.0\.0\.11/$server/; s/replica:8080/$REPLICAS.$domain:8080/; s/processes auto/processes 2/" \
    "$(dirname "$0")/nginx.conf" > /tmp/nginx.conf
exec nginx -c /tmp/nginx.conf -g 'daemon off;'
