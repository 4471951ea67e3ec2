# The processes of one session: those that carry its mark (see shell.py), all in their sessions, and all descendants.
# Builtins only, but for sleep, and for busybox ash, dash and bash alike: the container may have nothing else.
# Usage: ACTION MARK [SIGNAL]; prints "found N" after the first look, and at the end "left N".
#   count    only count
#   signal   send SIGNAL to the process group of the session's first process
#   hang-up  HUP and CONT; what lives after two seconds is killed, until nothing is left

# Sets $stat: the fields of /proc/PID/stat from the state on. The name before it may hold anything, even line ends.
read_stat() {
    stat=
    while IFS= read -r line || [ -n "$line" ]; do
        stat="$stat $line"
    done <"/proc/$1/stat"
    stat=${stat##*") "}
    [ -n "$stat" ]
} 2>/dev/null

is_marked() {
    while read -r max file locks soft hard rest; do
        if [ "$max $file $locks" = "Max file locks" ]; then
            [ "$hard" = "$mark" ]
            return
        fi
    done <"/proc/$1/limits"
    return 1
} 2>/dev/null

# Sets $found (pids), $count and $group. What was found once stays known, by pid and start time, also when the parent
# by which it was found has ended meanwhile.
known=" " sessions=" "
look() {
    all= found=" " count=0 group= first=
    for directory in /proc/[0-9]*; do
        pid=${directory#/proc/}
        [ "$pid" != 1 ] && read_stat "$pid" || continue
        set -- $stat # state ppid pgrp session ... threads (18th) ... start time (20th)
        [ "$1" = Z ] && [ "${18}" -le 1 ] && continue # dead, and not only its main thread
        case $known in
        *" $pid.${20} "*) take "$pid" "$4" "${20}" ;;
        *) if is_marked "$pid"; then take "$pid" "$4" "${20}"; else all="$all $pid:$2:$4:${20}"; fi ;;
        esac
        case $found in
        *" $pid "*) # The oldest of those that lead a session is the exec's own process
            if [ "$pid" = "$4" ] && { [ -z "$first" ] || [ "${20}" -lt "$first" ]; }; then first=${20} group=$3; fi
            ;;
        esac
    done
    grown=1
    while [ -n "$grown" ]; do
        grown=
        for entry in $all; do
            pid=${entry%%:*} entry=${entry#*:}
            parent=${entry%%:*} entry=${entry#*:}
            session=${entry%%:*} start=${entry#*:}
            case $found in *" $pid "*) continue ;; esac
            case "$found" in *" $parent "*) take "$pid" "$session" "$start" && grown=1 && continue ;; esac
            case "$sessions" in *" $session "*) take "$pid" "$session" "$start" && grown=1 ;; esac
        done
    done
}

take() {
    found="$found$1 " count=$((count + 1))
    case $known in *" $1.$3 "*) ;; *) known="$known$1.$3 " ;; esac
    # Session 0 is outside of this pid namespace, 1 that of the container's main process
    case $2 in 0 | 1) ;; *) case $sessions in *" $2 "*) ;; *) sessions="$sessions$2 " ;; esac ;; esac
}

send() {
    for pid in $found; do
        kill -s "$1" "$pid"
    done
} 2>/dev/null

pause() {
    sleep "$1" || sleep 1 # where sleep takes whole seconds only
} 2>/dev/null

action=$1 mark=$2 signal=$3
look
case $action in
signal)
    [ -n "$group" ] && kill -s "$signal" -- "-$group" 2>/dev/null
    ;;
hang-up)
    send HUP
    send CONT
    ;;
esac
echo "found $count"
if [ "$action" = hang-up ]; then
    for seconds in 0.05 0.1 0.2 0.3 0.4 0.5 0.5; do
        [ "$count" = 0 ] && break
        pause "$seconds"
        look
    done
    rounds=0
    while [ "$count" != 0 ] && [ "$rounds" -lt 100 ]; do
        send KILL
        pause 0.02
        look
        rounds=$((rounds + 1))
    done
fi
echo "left $count"
