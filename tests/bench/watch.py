"""How much of the machine others use while something is measured: from /proc/stat, less what this process, its
children that have ended (with theirs) and its helpers used.
"""
import os
import resource

BUSY_MAX = 0.08  # share of all processors' time that others may use beside an undisturbed measurement


def ticks():
    """(busy, all) jiffies of all processors since boot; waiting for the disk is not busy."""
    with open("/proc/stat", encoding="ascii") as f:
        values = [int(v) for v in f.readline().split()[1:9]]
    return sum(values) - values[3] - values[4], sum(values)


helpers = []  # processes that serve a measurement while it runs


def own_ticks():
    """Jiffies used by this process, its children that have ended, and the helpers."""
    used = 0.0
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        usage = resource.getrusage(who)
        used += usage.ru_utime + usage.ru_stime
    used *= os.sysconf("SC_CLK_TCK")
    for helper in helpers:
        with open(f"/proc/{helper.pid}/stat", encoding="ascii") as f:
            used += sum(int(v) for v in f.read().rsplit(")", 1)[1].split()[11:13])
    return used


class Watch:
    """How much of the machine others have used since this was made."""

    def __init__(self):
        self.busy, self.all = ticks()
        self.own = own_ticks()

    def foreign(self):
        busy, everything = ticks()
        foreign = busy - self.busy - (own_ticks() - self.own)
        return max(0.0, foreign / max(1, everything - self.all))
