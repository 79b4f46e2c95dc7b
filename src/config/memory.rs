//! How much memory this process may use, as the system says.

use std::fs;

use crate::base::ByteSize;

/// The least of the machine's memory and the container's limits.
pub fn machine_memory() -> Option<ByteSize> {
    let limit = |path: &str| fs::read_to_string(path).ok().and_then(|text| cgroup_limit(&text));
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| meminfo_total(&text));
    let limits = [machine, limit("/sys/fs/cgroup/memory.max"), limit("/sys/fs/cgroup/memory/memory.limit_in_bytes")];
    limits.into_iter().flatten().min().map(ByteSize)
}

/// `MemTotal:       24609412 kB`
fn meminfo_total(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// `max`, or bytes.
fn cgroup_limit(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_as_linux_writes_it() {
        assert_eq!(meminfo_total("MemTotal:       24609412 kB\nMemFree: 1 kB\n"), Some(24_609_412 * 1024));
        assert_eq!(meminfo_total("nothing"), None);
        assert_eq!(cgroup_limit("max\n"), None);
        assert_eq!(cgroup_limit("536870912\n"), Some(512 << 20));
    }
}
