//! Names of signals.

/// The names without `SIG`, with their numbers on Linux (signal(7), moby's `signal` package).
const NAMES: [(&str, i32); 37] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("IOT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("POLL", 29),
    ("PWR", 30),
    ("SYS", 31),
    ("UNUSED", 31),
    ("RTMIN", 34),
    ("RTMAX", 64),
];

/// The number of a signal as Docker takes it: a number, or a name in any case with or without
/// `SIG`, such as `term`, `SIGRTMIN+3` or `RTMAX-1`.
pub fn signal_number(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse::<i32>() {
        return (1..=64).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let offset = |prefix: &str, highest: i32| {
        let number = name.strip_prefix(prefix)?.parse::<u8>().ok()?;
        (1..=highest).contains(&number.into()).then_some(i32::from(number))
    };
    let named = NAMES.iter().find(|(known, _)| *known == name).map(|(_, number)| *number);
    named
        .or_else(|| offset("RTMIN+", 15).map(|number| 34 + number))
        .or_else(|| offset("RTMAX-", 14).map(|number| 64 - number))
}

/// The name of a signal in the form of images, `SIGTERM` or `SIGRTMIN+3`; the number where it has none.
pub fn signal_name(number: i32) -> String {
    match NAMES.iter().find(|(_, known)| *known == number) {
        Some((name, _)) => format!("SIG{name}"),
        None if (35..50).contains(&number) => format!("SIGRTMIN+{}", number - 34),
        None if (50..64).contains(&number) => format!("SIGRTMAX-{}", 64 - number),
        None => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::{signal_name, signal_number};

    #[test]
    fn names_of_numbers_are_those_numbers() {
        for number in 1..=64 {
            assert_eq!(signal_number(&signal_name(number)), Some(number));
        }
        assert_eq!([15, 37, 63].map(signal_name), ["SIGTERM", "SIGRTMIN+3", "SIGRTMAX-1"]);
    }

    #[test]
    fn names_and_numbers() {
        let known = [
            ("SIGTERM", 15),
            ("term", 15),
            ("9", 9),
            ("SIGRTMIN+3", 37),
            ("RTMAX-14", 50),
            ("SIGRTMAX", 64),
        ];
        for (text, number) in known {
            assert_eq!(signal_number(text), Some(number), "{text}");
        }
        for bad in ["", "0", "65", "-1", "SIGNOPE", "SIGRTMIN+16", "SIGSIGTERM", "RTMAX-0"] {
            assert_eq!(signal_number(bad), None, "{bad}");
        }
    }
}
