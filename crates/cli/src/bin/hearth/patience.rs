//! Waiting for something that is about to work.

use std::time::Duration;

use anyhow::Context;

/// How long to wait between two trials.
const PAUSE: Duration = Duration::from_millis(100);

/// Tries until it succeeds, for `limit` at most; then the last trial's error is what went wrong.
pub async fn until_ok<T, F>(limit: Duration, mut trial: impl FnMut() -> F) -> anyhow::Result<T>
where
    F: Future<Output = anyhow::Result<T>>,
{
    let mut last = None;
    let trials = async {
        loop {
            match trial().await {
                Ok(value) => return value,
                Err(error) => last = Some(error),
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    let result = tokio::time::timeout(limit, trials).await;
    match (result, last) {
        (Ok(value), _) => Ok(value),
        (Err(_), Some(error)) => Err(error).with_context(|| format!("it did not work within {} s", limit.as_secs())),
        (Err(_), None) => anyhow::bail!("there was no answer within {} s", limit.as_secs()),
    }
}
