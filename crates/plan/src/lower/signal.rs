//! Signals that `STOPSIGNAL` takes.

use rbuild_types::signal_number;

/// Whether `text` names a signal: any number other than 0, as in BuildKit, or a name with or
/// without `SIG`.
pub(super) fn is_signal(text: &str) -> bool {
    match text.parse::<i32>() {
        Ok(number) => number != 0,
        Err(_) => signal_number(text).is_some(),
    }
}

#[cfg(test)]
mod tests {
    use super::is_signal;

    #[test]
    fn names_and_numbers() {
        for good in ["SIGTERM", "term", "9", "SIGRTMIN+3", "RTMAX-14", "37", "99"] {
            assert!(is_signal(good), "{good}");
        }
        for bad in ["", "0", "SIGNOPE"] {
            assert!(!is_signal(bad), "{bad}");
        }
    }
}
