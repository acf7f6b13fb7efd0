//! `EXPOSE`: `[[ip:]host:]port[-port][/protocol]`.

use rbuild_parser::ast::Text;
use rbuild_parser::lint::rules::{EXPOSE_INVALID_FORMAT, EXPOSE_PROTO_CASING};
use rbuild_types::{Diagnostic, Span};
use serde_json::{Map, Value};

use super::go_text;
use super::stage::{Layer, StageLowering};

/// Every port of every protocol: more cannot be exposed.
const MAX_PORTS: usize = 3 << 16;

impl StageLowering<'_, '_> {
    /// Lowers `EXPOSE`: the words are expanded, then split, then sorted as strings.
    pub(super) fn expose(&mut self, words: &[Text]) -> Result<(), Diagnostic> {
        let mut specs = Vec::new();
        for word in words {
            let expanded = self.expand_words(word)?;
            specs.extend(expanded.into_iter().map(|spec| (spec, word.span)));
        }
        specs.sort();
        let mut ports = Vec::new();
        for (spec, span) in specs {
            let span = self.place(span);
            let found = parse(&spec).map_err(|reason| {
                let shown: String = spec.chars().take(100).collect();
                let message = format!("invalid port: {shown:?}: {reason}");
                Diagnostic::error("expose", span, message)
            })?;
            self.plan.warnings.extend(lint(&spec, span));
            ports.extend(found);
            if ports.len() > MAX_PORTS {
                return Err(Diagnostic::error("too-large", span, "more ports than there are"));
            }
        }
        let exposed = &mut self.state.config.config.exposed_ports;
        exposed.extend(ports.iter().map(|port| (port.clone(), Value::Object(Map::new()))));
        self.history(format!("EXPOSE {}", go_text::list(&ports)), Layer::Empty)
    }
}

/// What a port should not say: a protocol in capitals, and where the host has it.
fn lint(spec: &str, span: Span) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let protocol = spec.split_once('/').map_or("", |(_, protocol)| protocol);
    if protocol != protocol.to_lowercase() {
        let message =
            format!("Defined protocol '{spec}' in EXPOSE instruction should be lowercase");
        found.push(EXPOSE_PROTO_CASING.warning(span, message));
    }
    if spec.rsplit_once(':').is_some_and(|(host, _)| !host.is_empty()) {
        let message = format!(
            "EXPOSE instruction should not define an IP address or host-port mapping, found \
             '{spec}'"
        );
        found.push(EXPOSE_INVALID_FORMAT.warning(span, message));
    }
    found
}

/// `8080/tcp` of each port that `spec` names; the host's part is only for running.
fn parse(spec: &str) -> Result<Vec<String>, String> {
    let (address, protocol) = match spec.split_once('/') {
        Some((address, protocol)) if !protocol.is_empty() => (address, protocol.to_lowercase()),
        Some((address, _)) => (address, "tcp".to_owned()),
        None => (spec, "tcp".to_owned()),
    };
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(format!("invalid proto: {protocol}"));
    }
    let container = address.rsplit(':').next().unwrap_or(address);
    if container.is_empty() {
        return Err("no port specified".to_owned());
    }
    let wrong = || format!("invalid containerPort: {container}");
    let number = |digits: &str| match digits.bytes().all(|digit| digit.is_ascii_digit()) {
        true => digits.parse::<u16>().map_err(|_| wrong()),
        false => Err(wrong()),
    };
    let (first, last) = match container.split_once('-') {
        Some((first, last)) => (number(first)?, number(last)?),
        None => (number(container)?, number(container)?),
    };
    if first > last {
        return Err(wrong());
    }
    Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn port_specs() {
        assert_eq!(parse("80").unwrap(), ["80/tcp"]);
        assert_eq!(parse("443/TCP").unwrap(), ["443/tcp"]);
        assert_eq!(parse("7000-7002/udp").unwrap(), ["7000/udp", "7001/udp", "7002/udp"]);
        assert_eq!(parse("127.0.0.1:80:8080").unwrap(), ["8080/tcp"]);
        assert_eq!(parse("80/foo").unwrap_err(), "invalid proto: foo");
        for bad in ["", "/udp", "x", "65536", "3-2", "-1", "1-", "+1", "1:"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
