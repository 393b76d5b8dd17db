//! How many children may compile at the same time, and with how much memory.

use std::path::Path;

use crate::config;

/// Without `total-memory` in ace.toml, all children together may use the machine's memory divided by this.
const PART: usize = 2;

/// The number of children at the same time, and the address space of one with the key of ace.toml that sets it. Together they never
/// have more than `total-memory`. There is always at least one child.
pub(super) fn of(
    settings: &config::Compiler,
    processors: usize,
    machine_memory: impl FnOnce() -> usize,
) -> (usize, (usize, &'static str)) {
    let total = settings.total_memory.unwrap_or_else(|| machine_memory() / PART);
    let children = settings.processes.unwrap_or(processors).min(total / settings.memory).max(1);
    if total < settings.memory {
        (children, (total, "compiler.total-memory"))
    } else {
        (children, (settings.memory, "compiler.memory"))
    }
}

/// The memory that this process may use, in bytes: the machine's, or the limit of its control groups (version 2) if that is lower.
pub(super) fn machine_memory() -> usize {
    let whole = rustix::system::sysinfo();
    let whole = (whole.totalram as usize).saturating_mul(whole.mem_unit as usize);
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let path = groups.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    let root = Path::new("/sys/fs/cgroup");
    let limits = root
        .join(path)
        .ancestors()
        .take_while(|dir| dir.starts_with(root))
        .map(Path::to_owned)
        .filter_map(|dir| std::fs::read_to_string(dir.join("memory.max")).ok()?.trim().parse().ok())
        .collect::<Vec<usize>>();
    limits.into_iter().fold(whole, usize::min)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: usize = 1 << 30;

    fn settings(total_memory: Option<usize>, processes: Option<usize>) -> config::Compiler {
        config::Compiler { memory: GIB, total_memory, processes, ..config::Compiler::default() }
    }

    #[test]
    fn children_share_the_memory() {
        let share = |total, processes, machine| of(&settings(total, processes), 4, || machine);
        assert_eq!(share(None, None, 64 * GIB), (4, (GIB, "compiler.memory")));
        assert_eq!(share(None, None, 4 * GIB), (2, (GIB, "compiler.memory")));
        assert_eq!(share(None, None, GIB), (1, (GIB / 2, "compiler.total-memory")));
        assert_eq!(share(Some(3 * GIB), None, GIB), (3, (GIB, "compiler.memory")));
        assert_eq!(share(Some(3 * GIB), Some(2), GIB), (2, (GIB, "compiler.memory")));
        assert_eq!(share(Some(64 * GIB), Some(16), GIB), (16, (GIB, "compiler.memory")));
    }

    #[test]
    fn the_machine_has_memory() {
        assert!(machine_memory() > 64 << 20);
    }
}
