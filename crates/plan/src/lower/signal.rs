//! Signal names that `STOPSIGNAL` takes.

/// The names without `SIG` (signal(7); moby's `signal` package takes the same on Linux).
const NAMES: [&str; 37] = [
    "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL",
    "PIPE", "POLL", "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP",
    "TTIN", "TTOU", "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ", "UNUSED", "RTMIN",
    "RTMAX",
];

/// Whether `text` names a signal: a number other than 0, or a name with or without `SIG`.
pub(super) fn is_signal(text: &str) -> bool {
    if let Ok(number) = text.parse::<i32>() {
        return number != 0;
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let offset = |prefix: &str, highest: u8| {
        let number = name.strip_prefix(prefix).and_then(|digits| digits.parse::<u8>().ok());
        number.is_some_and(|number| (1..=highest).contains(&number))
    };
    NAMES.contains(&name) || offset("RTMIN+", 15) || offset("RTMAX-", 14)
}

#[cfg(test)]
mod tests {
    use super::is_signal;

    #[test]
    fn names_and_numbers() {
        for good in ["SIGTERM", "term", "9", "SIGRTMIN+3", "RTMAX-14", "37"] {
            assert!(is_signal(good), "{good}");
        }
        for bad in ["", "0", "SIGNOPE", "SIGRTMIN+16", "SIGSIGTERM", "RTMAX-0"] {
            assert!(!is_signal(bad), "{bad}");
        }
    }
}
