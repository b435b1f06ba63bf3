#!/bin/bash
# Slurm prolog: mounts on every node what a job asks for in its comment, at /run/ckpt-fs/JOB.
#
#   #SBATCH --comment="ckpt-fs /data/run --tp 4 --pp 2"
#
# The first word after ckpt-fs is the source, the others are options of `ckpt-fs mount`. The mount is made as the user of the job, who
# therefore sees nothing that he could not read anyway; users other than root need the package fuse3 on the nodes.
#
# In slurm.conf:
#   Prolog=/etc/slurm/prolog.sh
#   Epilog=/etc/slurm/epilog.sh
#   PrologFlags=Alloc           # on all nodes when the job begins, and not when it first uses a node
#
# It ends with 0 whatever happens: any other code would drain the node for a mistake in a job. What went wrong is in /run/ckpt-fs/JOB.log.
# A job without such a comment has nothing done for it. Twice is once.
set -u
PATH="$PATH:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
mounts="${CKPT_FS_MOUNTS:-/run/ckpt-fs}"
patience=300

read -r -a words <<<"${SLURM_JOB_COMMENT:-}"
[ "${words[0]:-}" = ckpt-fs ] || exit 0
[[ "${SLURM_JOB_ID:-}" =~ ^[0-9]+$ ]] || exit 0
point="$mounts/$SLURM_JOB_ID"
log="$point.log"

as_user() {
    if [ "$(id -un)" = "$SLURM_JOB_USER" ]; then
        "$@"
    else
        runuser -u "$SLURM_JOB_USER" -- "$@"
    fi
}

mkdir -p "$mounts"
# Without a source there is nothing to mount, and an option is none.
source="${words[1]:-}"
case "$source" in
    "" | -*)
        echo "the job's comment is 'ckpt-fs SOURCE OPTIONS', not '$SLURM_JOB_COMMENT'" >"$log"
        exit 0
        ;;
esac
as_user ckpt-fs status "$point" >/dev/null 2>&1 && exit 0
# A mount whose process was killed cannot be looked into; mounting on it replaces it.
if mkdir -p "$point" 2>/dev/null; then
    chown "$SLURM_JOB_USER" "$point"
fi
as_user timeout "$patience" ckpt-fs mount --auto-unmount "${words[@]:2}" -- "$source" "$point" >"$log" 2>&1
exit 0
