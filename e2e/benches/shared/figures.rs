//! What measurements of programs beside each other share: settings, the machine's processor time, and how figures are
//! shown. It never starts anything.

use std::time::Duration;

use anyhow::Context;

/// The processor time that was spent on the whole machine since it started, to 10 ms.
pub(crate) fn machine_time() -> anyhow::Result<Duration> {
    let text = std::fs::read_to_string("/proc/stat").context("failed to read /proc/stat")?;
    let line = text.lines().next().unwrap_or_default();
    let fields: Vec<u64> = line.split_whitespace().skip(1).map(str::parse).collect::<Result<_, _>>()?;
    // User, nice, system, and what interrupts took; not idle, not waiting for disks.
    let busy = [0, 1, 2, 5, 6].iter().filter_map(|&index| fields.get(index)).sum::<u64>();
    Ok(Duration::from_millis(busy * 1000 / rustix::param::clock_ticks_per_second()))
}

/// A number from the environment.
pub(crate) fn number(name: &str, default: usize) -> anyhow::Result<usize> {
    match std::env::var(name) {
        Ok(text) => text.parse().with_context(|| format!("{name} is \"{text}\": it must be a number")),
        Err(_) => Ok(default),
    }
}

/// Prints the least, the middle and the greatest of some values.
pub(crate) fn summary(name: &str, values: &[f64]) {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let (least, middle, greatest) = (sorted[0], sorted[(sorted.len() - 1) / 2], sorted[sorted.len() - 1]);
    println!("  {name:<52} {least:>8.2} {middle:>8.2} {greatest:>8.2}");
}

/// What each of some values is beside another of the same round.
pub(crate) fn ratios(ours: &[f64], theirs: &[f64]) -> Vec<f64> {
    ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect()
}
