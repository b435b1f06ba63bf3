#!/bin/bash
# Slurm epilog: takes away what prolog.sh mounted for the job.
#
# It ends with 0 also where there is nothing, or no longer, or for the second time. Files that are still open keep working until they are
# closed.
set -u
PATH="$PATH:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
mounts="${CKPT_FS_MOUNTS:-/run/ckpt-fs}"

[[ "${SLURM_JOB_ID:-}" =~ ^[0-9]+$ ]] || exit 0
point="$mounts/$SLURM_JOB_ID"
is_mounted() { grep -qs " $point fuse" /proc/self/mounts; }

# A dead one may go by itself at the same time (--auto-unmount), so only what is left counts.
if is_mounted; then
    ckpt-fs unmount --lazy "$point" 2>/dev/null || umount -l "$point" 2>/dev/null
fi
if is_mounted; then
    echo "ckpt-fs: $point cannot be unmounted" >&2
else
    rmdir "$point" 2>/dev/null
fi
rm -f "$point.log"
exit 0
