# The processes of sessions: those that carry their marks (see shell.py), all in their sessions, and all descendants.
# For busybox ash, dash and bash alike; beside builtins only sleep, and grep where there is one.
# Usage: ACTION SIGNAL MARK...; prints "found N" after the first look, and at the end "left N".
#   count    only count
#   signal   send SIGNAL to the process group of the first process
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

# With grep all are read at once; without, a byte at a time.
if command -v grep >/dev/null 2>&1; then
    look_for_marks() {
        patterns=
        for each in $marks; do
            patterns="$patterns -e ^Max.file.locks.*[[:space:]]$each[[:space:]]"
        done
        set -f
        set -- $patterns
        set +f
        marked=$(grep -l "$@" /proc/[0-9]*/limits)
    } 2>/dev/null
    is_marked() { case $marked in *"/proc/$1/limits"*) ;; *) return 1 ;; esac }
else
    look_for_marks() { :; }
    is_marked() {
        while read -r max file locks soft hard rest; do
            if [ "$max $file $locks" = "Max file locks" ]; then
                case " $marks " in *" $hard "*) return ;; *) return 1 ;; esac
            fi
        done <"/proc/$1/limits"
        return 1
    } 2>/dev/null
fi

# Sets $found (pids), $count and $group. What was found once stays known, by pid and start time, also when the parent
# by which it was found has ended meanwhile. Who was a stranger is not read again: each byte is a system call.
known=" " sessions=" " strangers=" "
look() {
    all= found=" " count=0 group= first=
    look_for_marks
    for directory in /proc/[0-9]*; do
        pid=${directory#/proc/}
        case $strangers in *" $pid "*) continue ;; esac
        [ "$pid" != 1 ] && read_stat "$pid" || continue
        set -- $stat # state ppid pgrp session ... threads (18th) ... start time (20th)
        if [ "$1" = Z ] && [ "${18}" -le 1 ]; then # dead, and not only its main thread
            strangers="$strangers$pid "
            continue
        fi
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
    for entry in $all; do
        pid=${entry%%:*}
        case $found in *" $pid "*) ;; *) strangers="$strangers$pid " ;; esac
    done
    return 0
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

action=$1 signal=$2
shift 2
marks=$*
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
    # Thorough looks from here: a pid may have been given anew. Twice nobody, or somebody forked away from under a look.
    rounds=0 nobody=0
    while [ "$nobody" -lt 2 ] && [ "$rounds" -lt 100 ]; do
        strangers=" "
        look
        if [ "$count" = 0 ]; then
            nobody=$((nobody + 1))
        else
            nobody=0
            send KILL
            pause 0.02
        fi
        rounds=$((rounds + 1))
    done
fi
echo "left $count"
