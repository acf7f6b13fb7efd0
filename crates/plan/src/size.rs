//! Sizes as Docker reads them.

/// `100m`, `1g`, `1.5GiB`: powers of 1024 (`units.RAMInBytes`).
pub fn ram_in_bytes(text: &str) -> Option<u64> {
    let digits = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.');
    let (amount, unit) = text.split_at(digits.unwrap_or(text.len()));
    let power = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        "p" | "pb" | "pib" => 5,
        _ => return None,
    };
    let amount = amount.parse::<f64>().ok().filter(|amount| amount.is_finite())?;
    // Truncation is what is wanted; `as` saturates.
    Some((amount * 1024_f64.powi(power)) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(ram_in_bytes("100m"), Some(100 << 20));
        assert_eq!(ram_in_bytes("1.5GiB"), Some(3 << 29));
        assert_eq!(ram_in_bytes("12"), Some(12));
        for bad in ["1x", "", ".", "-1", "m"] {
            assert_eq!(ram_in_bytes(bad), None, "{bad}");
        }
    }
}
