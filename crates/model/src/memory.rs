//! How much memory the machine still has for this process, its control groups' limits included.

use std::fs;
use std::path::Path;

/// How a kind of control groups names what is asked here.
struct Naming {
    /// How the line of a process begins in `/proc/self/cgroup`, behind the hierarchy's number.
    controllers: &'static str,
    /// Where the groups lie.
    folder: &'static str,
    most: &'static str,
    used: &'static str,
    /// What of the used memory are pages of files that the system takes back first.
    reclaimed: &'static str,
}

const NAMINGS: [Naming; 2] = [
    Naming {
        controllers: "",
        folder: "sys/fs/cgroup",
        most: "memory.max",
        used: "memory.current",
        reclaimed: "inactive_file",
    },
    Naming {
        controllers: "memory",
        folder: "sys/fs/cgroup/memory",
        most: "memory.limit_in_bytes",
        used: "memory.usage_in_bytes",
        reclaimed: "total_inactive_file",
    },
];

/// How many bytes this process can take without others losing theirs; `None` where the system does
/// not tell.
///
/// Memory that was given out and never written to counts as free.
pub(crate) fn free() -> Option<usize> {
    free_under(Path::new("/"))
}

/// The same, of the system whose files lie under `root`.
fn free_under(root: &Path) -> Option<usize> {
    let machine = fs::read_to_string(root.join("proc/meminfo")).ok();
    let machine = machine.and_then(|text| number_of("MemAvailable:", &text)?.checked_mul(1 << 10));
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let groups = groups.lines().filter_map(|line| free_of_groups(root, line));
    machine.into_iter().chain(groups).min()
}

/// What the control groups leave that a line of `/proc/self/cgroup` tells of.
fn free_of_groups(root: &Path, line: &str) -> Option<usize> {
    let (_, line) = line.split_once(':')?;
    let (controllers, group) = line.split_once(':')?;
    let is_meant = |naming: &&Naming| controllers.split(',').any(|one| one == naming.controllers);
    let naming = NAMINGS.iter().find(is_meant)?;
    let folder = root.join(naming.folder);
    // Every group above limits too. In a container its own may be the first that is there.
    let groups = Path::new(group.trim_start_matches('/')).ancestors();
    groups.filter_map(|group| free_of_group(&folder.join(group), naming)).min()
}

/// What one control group leaves; `None` when it has no limit.
fn free_of_group(folder: &Path, naming: &Naming) -> Option<usize> {
    let read = |file: &str| fs::read_to_string(folder.join(file)).ok();
    let number = |file: &str| read(file)?.trim().parse::<usize>().ok();
    let (most, used) = (number(naming.most)?, number(naming.used)?);
    let reclaimed = read("memory.stat").and_then(|text| number_of(naming.reclaimed, &text));
    Some(most.saturating_sub(used.saturating_sub(reclaimed.unwrap_or(0))))
}

/// The number in the line that begins with a word.
fn number_of(word: &str, text: &str) -> Option<usize> {
    let line = text.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some(word)).then(|| words.next())
    });
    line??.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A system with these files.
    fn system(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (file, text) in files {
            let file = root.path().join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        root
    }

    const MACHINE: (&str, &str) =
        ("proc/meminfo", "MemTotal: 9000 kB\nMemFree: 10 kB\nMemAvailable:    4000 kB\n");

    #[test]
    fn a_machine_has_what_it_calls_available() {
        assert_eq!(free_under(system(&[MACHINE]).path()), Some(4000 << 10));
        assert_eq!(free_under(system(&[]).path()), None);
        assert!(free().is_some_and(|free| free > 0), "this machine tells");
    }

    #[test]
    fn a_control_group_leaves_less_and_so_do_those_above_it() {
        let own = "sys/fs/cgroup/pods/one";
        let files = [
            MACHINE,
            ("proc/self/cgroup", "0::/pods/one\n"),
            (&format!("{own}/memory.max"), "1000000\n"),
            (&format!("{own}/memory.current"), "700000\n"),
            (&format!("{own}/memory.stat"), "anon 5\ninactive_file 100000\n"),
            ("sys/fs/cgroup/pods/memory.max", "max\n"),
            ("sys/fs/cgroup/pods/memory.current", "700000\n"),
        ];
        assert_eq!(free_under(system(&files).path()), Some(400_000));
        let mut above = files.to_vec();
        above[5].1 = "750000\n";
        assert_eq!(free_under(system(&above).path()), Some(50_000));
    }

    #[test]
    fn groups_of_the_older_kind_and_those_of_a_container_are_known() {
        let groups = ("proc/self/cgroup", "5:cpu:/\n4:memory,hugetlb:/container/7\n0::/\n");
        let files = [
            MACHINE,
            groups,
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "2000\n"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "3000\n"),
            ("sys/fs/cgroup/memory/memory.stat", "inactive_file 1\ntotal_inactive_file 1500\n"),
        ];
        assert_eq!(free_under(system(&files).path()), Some(500));
    }
}
