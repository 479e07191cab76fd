for procs in /sys/fs/cgroup/cgroup.procs /sys/fs/cgroup/*/cgroup.procs; do
    [ -e "$procs" ] || continue
    top=${procs%/cgroup.procs}
    mkdir -p "$top/vz/$1/host"
    for dir in "$top" "$top/vz"; do
        [ -e "$dir/cgroup.controllers" ] || continue
        for name in $(cat "$dir/cgroup.controllers"); do
            echo "+$name" > "$dir/cgroup.subtree_control"
        done
    done 2>/dev/null
    for dir in vz "vz/$1" "vz/$1/host"; do
        for file in cpuset.cpus cpuset.mems; do
            [ -e "$top/$dir/$file" ] && [ -z "$(cat "$top/$dir/$file")" ] || continue
            cat "$top/$file" > "$top/$dir/$file"
        done
    done 2>/dev/null
    echo $$ > "$top/vz/$1/cgroup.procs"
done
exec unshare --cgroup /bin/sh -c '
for top in /sys/fs/cgroup /sys/fs/cgroup/*; do
    dir="$top/vz/$0"
    [ -e "$dir/cgroup.controllers" ] || continue
    echo $$ > "$dir/host/cgroup.procs"
    for name in $(cat "$dir/cgroup.controllers"); do
        echo "+$name" > "$dir/cgroup.subtree_control"
    done 2>/dev/null
done
exec unshare "$@"' "$@"
