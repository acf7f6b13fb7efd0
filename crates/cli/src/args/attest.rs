//! `--attest`, and `--sbom` and `--provenance`, which are short for it.

use rbuild::{Attestations, Provenance, ProvenanceMode, SlsaVersion};

use crate::args::output::split;
use crate::args::switch;
use crate::failure::Failure;
use crate::output::note;

/// Reads all three flags. Of several that are about the same, the last counts; the short ones come
/// last, as in buildx.
pub fn parse(
    attest: &[String],
    sbom: &Option<String>,
    provenance: &Option<String>,
) -> Result<Attestations, Failure> {
    let short = [("sbom", sbom), ("provenance", provenance)].into_iter();
    let short = short.filter_map(|(kind, value)| Some((kind, value.as_deref()?)));
    let short = short.filter(|(_, value)| !value.is_empty()).map(|(kind, value)| {
        let flag = format!("--{kind}={value}");
        let text = match switch::parse(value) {
            Ok(on) => format!("type={kind},disabled={}", !on),
            Err(_) => format!("type={kind},{value}"),
        };
        (flag, text)
    });
    let long = attest.iter().map(|text| (format!("--attest {text}"), text.clone()));
    let mut all = Attestations::default();
    for (flag, text) in long.chain(short) {
        read(&text, &mut all).map_err(|why| {
            Failure::usage_hint(
                format!("{flag}: {why}"),
                "there are type=sbom and type=provenance,mode=min|max",
            )
        })?;
    }
    Ok(all)
}

fn read(text: &str, all: &mut Attestations) -> Result<(), String> {
    let (mut kind, mut is_off, mut rest) = (None, false, Vec::new());
    for field in split(text) {
        let (key, value) =
            field.split_once('=').ok_or_else(|| format!("`{field}` has no value"))?;
        let (key, value) = (key.trim().to_ascii_lowercase(), value.to_owned());
        match key.as_str() {
            "type" => kind = Some(value),
            "disabled" => is_off = switched(&key, &value)?,
            _ => rest.push((key, value)),
        }
    }
    match kind.as_deref() {
        Some("sbom") => all.sbom = sbom(&rest)? && !is_off,
        Some("provenance") => all.provenance = Some(provenance(&rest)?).filter(|_| !is_off),
        Some(other) => return Err(format!("no type `{other}`")),
        None => return Err("no type".to_owned()),
    }
    Ok(())
}

fn sbom(fields: &[(String, String)]) -> Result<bool, String> {
    for (key, value) in fields {
        match key.as_str() {
            "generator" => note(&format!(
                "generator={value} is not run: the list of packages is made here, without an image"
            )),
            _ => return Err(format!("{key}={value} is not supported yet")),
        }
    }
    Ok(true)
}

fn provenance(fields: &[(String, String)]) -> Result<Provenance, String> {
    let mut provenance = Provenance::default();
    for (key, value) in fields {
        match (key.as_str(), value.as_str()) {
            ("mode", "min") => provenance.mode = ProvenanceMode::Min,
            ("mode", "max" | "full") => provenance.mode = ProvenanceMode::Max,
            ("version", "v0.2") => provenance.version = SlsaVersion::V02,
            ("version", "v1") => provenance.version = SlsaVersion::V1,
            ("mode" | "version", _) => return Err(format!("no {key} `{value}`")),
            ("builder-id", _) => provenance.builder_id.clone_from(value),
            ("filename", _) => provenance.filename.clone_from(value),
            ("reproducible", _) => provenance.reproducible = switched(key, value)?,
            ("inline-only", _) => provenance.inline_only = switched(key, value)?,
            _ => return Err(format!("{key}={value} is not supported yet")),
        }
    }
    Ok(provenance)
}

fn switched(key: &str, value: &str) -> Result<bool, String> {
    switch::parse(value).map_err(|why| format!("{key}={value}: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(attest: &[&str], sbom: Option<&str>, provenance: Option<&str>) -> Attestations {
        parsed(attest, sbom, provenance).unwrap()
    }

    fn parsed(
        attest: &[&str],
        sbom: Option<&str>,
        provenance: Option<&str>,
    ) -> Result<Attestations, Failure> {
        let attest: Vec<_> = attest.iter().map(ToString::to_string).collect();
        parse(&attest, &sbom.map(str::to_owned), &provenance.map(str::to_owned))
    }

    #[test]
    fn short_and_long_say_the_same() {
        assert_eq!(of(&[], None, None), Attestations::default());
        assert!(of(&["type=sbom"], None, None).sbom && of(&[], Some("true"), None).sbom);
        assert!(of(&[], Some("generator=docker/scout"), None).sbom);
        assert!(!of(&["type=sbom"], Some("false"), None).sbom);
        assert!(!of(&["type=sbom,disabled=true"], None, None).sbom);
        let provenance = |text| of(&[], None, Some(text)).provenance;
        assert_eq!(provenance("1"), Some(Provenance::default()));
        assert_eq!((provenance("0"), provenance("disabled=true")), (None, None));
        let long = ["type=provenance,mode=max", "type=provenance,mode=min"];
        let min = Provenance { mode: ProvenanceMode::Min, ..Provenance::default() };
        assert_eq!(of(&long, None, None).provenance, Some(min));
        let all = "mode=min,version=v0.2,builder-id=https://b,filename=p.json,reproducible=true,\
                   inline-only=1";
        let expected = Provenance {
            mode: ProvenanceMode::Min,
            version: SlsaVersion::V02,
            builder_id: "https://b".to_owned(),
            filename: "p.json".to_owned(),
            reproducible: true,
            inline_only: true,
        };
        assert_eq!(provenance(all), Some(expected));
    }

    #[test]
    fn the_rest_is_refused() {
        for bad in ["type=vex", "sbom", "mode=min", "type=sbom,scan=all", "type=sbom,disabled=x"] {
            assert!(parsed(&[bad], None, None).is_err(), "{bad}");
        }
        for bad in ["mode=mid", "version=v2", "capture-usage=true", "reproducible=perhaps"] {
            assert!(parsed(&[], None, Some(bad)).is_err(), "{bad}");
        }
    }
}
