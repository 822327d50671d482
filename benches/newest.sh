#!/usr/bin/env bash
# Gets the newest HAProxy and NGINX that Debian has (of experimental and unstable) with the libraries they want into a folder
# of their own, and prints what tells the benchmarks of them. Needs root and debootstrap.
#
#   eval "$(sudo benches/newest.sh /opt/peers)"
#   benches/compare.py
set -euo pipefail

folder=$(realpath -m "${1:?usage: benches/newest.sh FOLDER}")
mirror=${MIRROR:-http://deb.debian.org/debian}
root=$folder/root
libraries=$root/usr/lib/x86_64-linux-gnu

{
    mkdir -p "$folder"
    if [[ ! -e $root/usr/sbin/haproxy ]]; then
        debootstrap --variant=minbase --include=nginx,libnginx-mod-stream sid "$root" "$mirror"
        echo "deb $mirror experimental main" >"$root/etc/apt/sources.list.d/experimental.list"
        # A mirror that lags behind has the newest all the same, as far as it knows.
        chroot "$root" apt-get -o Acquire::Check-Valid-Until=false update
        # What experimental does not have is that of unstable.
        chroot "$root" env DEBIAN_FRONTEND=noninteractive apt-get install -y -t experimental haproxy ||
            chroot "$root" env DEBIAN_FRONTEND=noninteractive apt-get install -y haproxy
    fi
    # They run outside of that root, with the loader and the libraries in it.
    for name in haproxy nginx; do
        cat >"$folder/$name" <<RUN
#!/bin/sh
exec $root/lib64/ld-linux-x86-64.so.2 --library-path $libraries --argv0 $name $root/usr/sbin/$name "\$@"
RUN
        chmod 755 "$folder/$name"
    done
} >&2

echo "export HAPROXY_BIN=$folder/haproxy NGINX_BIN=$folder/nginx NGINX_MODULES=$root/usr/lib/nginx/modules"
