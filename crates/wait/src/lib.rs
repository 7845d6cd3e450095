//! Waiting for a condition: with a deadline, and with words for what was awaited.
//!
//! It must not know what is awaited.

#![forbid(unsafe_code)]

use std::{
    fmt,
    time::{Duration, Instant},
};

/// A condition did not come true in time.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{what} did not come within {} ms", .limit.as_millis())]
pub struct Timeout {
    what: String,
    limit: Duration,
}

/// Polls `condition` until it gives a value. The interval starts at 0.2 ms and grows to 10 ms: short
/// waits are the common ones, and a guest with one emulated CPU must not spin.
pub fn until<T>(
    limit: Duration,
    what: impl fmt::Display,
    mut condition: impl FnMut() -> Option<T>,
) -> Result<T, Timeout> {
    let deadline = Instant::now() + limit;
    let mut interval = Duration::from_micros(200);
    loop {
        if let Some(value) = condition() {
            return Ok(value);
        }
        if Instant::now() >= deadline {
            return Err(Timeout { what: what.to_string(), limit });
        }
        #[expect(
            clippy::disallowed_methods,
            reason = "the one place that sleeps, between two looks"
        )]
        std::thread::sleep(interval);
        interval = (interval * 2).min(Duration::from_millis(10));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_names_what_was_awaited() {
        let error =
            until(Duration::from_millis(1), "a miracle", || None::<()>).expect_err("none comes");
        assert_eq!(error.to_string(), "a miracle did not come within 1 ms");
        let mut looks = 0;
        let seen = until(Duration::from_secs(5), "three looks", || {
            looks += 1;
            (looks == 3).then_some(looks)
        });
        assert_eq!(seen.expect("third look"), 3);
    }
}
