//! What the kernel says of a process: its processor time and its memory.

use std::time::Duration;

use anyhow::Context;

/// The processor time of all threads of a process that run, in nanoseconds.
pub(crate) fn processor_time(pid: u32) -> anyhow::Result<u64> {
    let tasks = format!("/proc/{pid}/task");
    let mut sum = 0;
    for task in std::fs::read_dir(&tasks).with_context(|| format!("failed to read {tasks}"))? {
        let file = task?.path().join("schedstat");
        let text = std::fs::read_to_string(&file).with_context(|| format!("failed to read {}", file.display()))?;
        let first = text.split_whitespace().next().unwrap_or_default();
        sum += first.parse::<u64>().with_context(|| format!("{} says \"{text}\"", file.display()))?;
    }
    Ok(sum)
}

/// The processor time of a process, of its threads that have ended and of its children that have ended, to 10 ms.
pub(crate) fn processor_time_of_all(pid: u32) -> anyhow::Result<Duration> {
    let file = format!("/proc/{pid}/stat");
    let text = std::fs::read_to_string(&file).with_context(|| format!("failed to read {file}"))?;
    let (_, fields) = text.rsplit_once(") ").with_context(|| format!("{file} says \"{text}\""))?;
    // From utime, the 14th field of all, to cstime; the third is the first after the name.
    let ticks = fields.split(' ').skip(11).take(4).map(str::parse::<u64>).sum::<Result<u64, _>>()?;
    Ok(Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second()))
}

/// The memory of a process, each page that is shared counted by its part (PSS), in MiB.
pub(crate) fn memory(pid: u32) -> anyhow::Result<f64> {
    let file = format!("/proc/{pid}/smaps_rollup");
    let text = std::fs::read_to_string(&file).with_context(|| format!("failed to read {file}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next()).with_context(|| format!("{file} says no Pss"))?;
    Ok(kib.parse::<f64>()? / 1024.0)
}

/// The process that was started with this argument by a program of this name.
pub(crate) fn with_argument(name: &str, argument: &str) -> anyhow::Result<u32> {
    for entry in std::fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let Ok(line) = std::fs::read(entry.path().join("cmdline")) else { continue };
        let mut arguments = line.split(|&byte| byte == 0);
        let is_program = arguments.next().is_some_and(|program| program.ends_with(name.as_bytes()));
        if is_program && arguments.any(|found| found == argument.as_bytes()) {
            return Ok(pid);
        }
    }
    anyhow::bail!("no {name} runs with {argument}")
}
