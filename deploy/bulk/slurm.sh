#!/bin/bash
# Embeds images as an array of Slurm: a task is a shard. The program reads its shard from SLURM_ARRAY_TASK_ID.
#
#   sbatch --array=0-31%8 deploy/bulk/slurm.sh SOURCE -o SINK --model NAME
#
# Arguments are those of `dinoserve embed`. SINK is in a folder that all nodes share, or in a store. Pull the model once
# before, into a cache folder that all nodes share. DINOSERVE is the program, if it is not on the PATH.
#
# The number of tasks is the number of shards. To run failed shards again, submit the whole array again: finished shards
# end at once. A part of the array, as --array=3,5, would be another number of shards, and is refused.
#SBATCH --job-name=dinoserve-embed
#SBATCH --array=0-7
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=4
#SBATCH --mem=4G
#SBATCH --time=08:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=dinoserve-%A_%a.log
# Two minutes before the time limit: the worker saves what it has, and the task goes on in a new job.
#SBATCH --signal=B:USR1@120
set -u

most_restarts=5

first=$SLURM_ARRAY_TASK_MIN last=$SLURM_ARRAY_TASK_MAX count=$SLURM_ARRAY_TASK_COUNT
if [ "$first" -ne 0 ] || [ $((last + 1)) -ne "$count" ]; then
    echo "slurm.sh: the array must begin at 0 and be without gaps; it has $count tasks from $first to $last" >&2
    exit 2
fi

worker='' signaled='' at_limit=''
# Slurm sends USR1 to this shell only.
trap 'signaled=yes at_limit=yes; [ -z "$worker" ] || kill -TERM "$worker"' USR1
# It sends TERM to all processes of the job. The shell waits until the worker has saved what it has.
trap 'signaled=yes' TERM INT

"${DINOSERVE:-dinoserve}" embed "$@" &
worker=$!
# A signal ends `wait` before the worker ends.
while signaled=''; do
    wait "$worker"
    status=$?
    [ -n "$signaled" ] || break
done

# 137: killed, as for too much memory. After TERM (`scancel`, preemption) Slurm decides whether the job runs again.
restarts=${SLURM_RESTART_COUNT:-0}
if [ -n "$at_limit" ] && [ "$status" -eq 130 ]; then
    echo "slurm.sh: stopped by the time limit; queued again" >&2
    scontrol requeue "$SLURM_JOB_ID"
elif [ "$status" -eq 137 ] && [ "$restarts" -lt "$most_restarts" ]; then
    echo "slurm.sh: the worker was killed; queued again, restart $((restarts + 1)) of $most_restarts" >&2
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
