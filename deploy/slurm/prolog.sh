#!/bin/bash
# Slurm prolog: mounts on every node what a job asks for in its comment, at /run/ckpt-fs/JOB.
#
#   #SBATCH --comment="ckpt-fs /data/run --tp 4 --pp 2"
#
# The first word after ckpt-fs is the source, the others are options of `ckpt-fs mount` that say what the view is. Paths begin with / and have
# no spaces: words end at spaces, quoted or not. The mount is made as the user of the job, who therefore sees nothing that he could not read
# anyway; users other than root need the package fuse3 on the nodes.
#
# In slurm.conf:
#   Prolog=/etc/slurm/prolog.sh
#   Epilog=/etc/slurm/epilog.sh
#   PrologFlags=Alloc           # on all nodes when the job begins, and not when it first uses a node
#
# It ends with 0 whatever happens: any other code would drain the node for a mistake in a job. What went wrong is in /run/ckpt-fs/JOB.log.
# A job without such a comment has nothing done for it. Twice is once.
set -u
trap 'exit 0' EXIT
trap 'exit' HUP INT TERM
# The user must get into the directory and read the log, whatever slurmd's own umask.
umask 022
PATH="$PATH:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
mounts="${CKPT_FS_MOUNTS:-/run/ckpt-fs}"
# Seconds that a mount may take. It takes one or two, unless its storage hangs.
patience="${CKPT_FS_PATIENCE:-60}"
# What `ckpt-fs mount --help` has under Layout, Format and Source; each takes a value. The others are not for a job to say: --foreground would
# never end, and memory of the mount is not memory of the job.
options=" --tp --pp --vpp --ep --etp --pp-layers --pp-layout --vocab-fill --rng
 --as --hf-model-type --shard-size --megatron-spec --make-vocab-size-divisible-by --dcp-layout --dcp-names --engine-version
 --iteration --family --vocab-size --tied-head --optimizer --template --root "
options="${options//$'\n'/}"

comment="${SLURM_JOB_COMMENT:-}"
read -r -d '' -a words <<<"$comment"
[ "${words[0]:-}" = ckpt-fs ] || exit 0
[[ "${SLURM_JOB_ID:-}" =~ ^[0-9]+$ ]] || exit 0
point="$mounts/$SLURM_JOB_ID"
log="$point.log"
user="${SLURM_JOB_USER:-}"

refuse() {
    echo "$1; a comment is 'ckpt-fs SOURCE OPTIONS', and this job has '$comment'" >"$log"
    exit 0
}

must_be_absolute() {
    [[ "$1" == /* ]] || refuse "$1 is no path from / on"
}

check_options() {
    local word value option=""
    for word in "$@"; do
        value="$word"
        if [[ "$word" == -* ]]; then
            option="${word%%=*}"
            [[ "$options" == *" $option "* ]] || refuse "$option is none of the options that a comment may have"
            [[ "$word" == *=* ]] || continue
            value="${word#*=}"
        fi
        case "$option" in
            "") refuse "$value belongs to nothing: paths with spaces cannot be named" ;;
            --family | --template) must_be_absolute "$value" ;;
        esac
        option=""
    done
}

as_user() {
    if [ "$(id -un)" = "$user" ]; then
        "$@"
    else
        runuser -u "$user" -- "$@"
    fi
}

mount_it() {
    # A mount whose process was killed cannot be looked into; mounting on it replaces it.
    if ! grep -qs " $point fuse" /proc/self/mounts; then
        mkdir -p "$point" && chown "$user" "$point" || return
    fi
    as_user ckpt-fs mount --auto-unmount "$@" -- "$source" "$point"
}

# All that a process has started. The one that serves a mount has a session of its own, where no signal to a group finds it.
descendants() {
    local children child
    read -r -d '' -a children < <(cat /proc/"$1"/task/*/children 2>/dev/null)
    for child in "${children[@]}"; do
        echo "$child"
        descendants "$child"
    done
}

give_up() {
    local mounting="$1"
    disown "$mounting"
    # shellcheck disable=SC2046 # each is a word
    kill -KILL "$mounting" $(descendants "$mounting") 2>/dev/null
    # Another file: one that the kernel does not let go of yet may write into the old one that all is well.
    rm -f "$log"
    echo "$source: it was not mounted in $patience s, and was given up; does its storage answer?" >"$log"
    ckpt-fs unmount --lazy "$point" >/dev/null 2>&1
}

install -d -m 755 "$mounts"
[ -n "$user" ] || refuse "Slurm does not say whose job it is (SLURM_JOB_USER)"
[[ "$comment" != *[\"\'\\]* ]] || refuse "quotes and backslashes mean nothing: paths with spaces cannot be named"
source="${words[1]:-}"
[ -n "$source" ] || refuse "there is no source in it"
must_be_absolute "$source"
check_options "${words[@]:2}"

as_user ckpt-fs status "$point" >/dev/null 2>&1 && exit 0
mount_it "${words[@]:2}" >"$log" 2>&1 &
SECONDS=0
while [ -n "$(jobs -rp)" ] && ((SECONDS < patience)); do
    sleep 0.1
done
[ -z "$(jobs -rp)" ] || give_up "$!"
