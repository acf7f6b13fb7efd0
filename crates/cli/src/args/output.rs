//! `-o type=…,dest=…`.

use std::path::PathBuf;

use rbuild::{Destination, Output};

use crate::failure::Failure;

/// What one `--output` asks for.
#[derive(Debug, PartialEq)]
pub struct Wanted {
    /// Something besides the image in the store.
    pub output: Option<Output>,
    /// Further names of the image in the store.
    pub names: Vec<String>,
    /// Whether files are in a directory for each platform, if that was said.
    pub platform_split: Option<bool>,
}

/// Reads the value of one `--output`.
pub fn parse(text: &str) -> Result<Wanted, Failure> {
    if text == "-" {
        return Ok(only(Output::Tar(Destination::Stdout)));
    }
    if !text.contains('=') {
        return Ok(only(Output::Directory(PathBuf::from(text))));
    }
    let refuse = |why: String| {
        Failure::usage_hint(
            format!("--output {text}: {why}"),
            "for example type=oci,dest=app.tar, type=docker,dest=app.tar, type=tar,dest=root.tar, \
             type=local,dest=DIR, or just DIR",
        )
    };
    let (mut kind, mut dest, mut tar, mut names) = (None, None, true, Vec::new());
    let mut platform_split = None;
    for field in fields(text) {
        let (key, value) =
            field.split_once('=').ok_or_else(|| refuse(format!("`{field}` has no value")))?;
        match key.trim().to_ascii_lowercase().as_str() {
            "type" => kind = Some(value.to_owned()),
            "dest" | "destination" => dest = Some(value.to_owned()),
            "tar" => tar = switch(value).ok_or_else(|| refuse(format!("tar={value}")))?,
            "platform-split" => {
                let split = switch(value).ok_or_else(|| refuse(format!("{key}={value}")))?;
                platform_split = Some(split);
            }
            "name" => names = value.split(',').map(str::to_owned).collect(),
            "push" if switch(value) == Some(false) => {}
            "oci-mediatypes" | "unpack" | "store" if switch(value) == Some(true) => {}
            other => return Err(refuse(format!("{other}={value} is not supported yet"))),
        }
    }
    let kind = kind.ok_or_else(|| refuse("no type".to_owned()))?;
    let dest = dest.filter(|dest| !dest.is_empty());
    let stream = |dest: &Option<String>| match dest.as_deref() {
        None | Some("-") => Destination::Stdout,
        Some(path) => Destination::File(path.into()),
    };
    let needed =
        |dest: Option<String>| dest.ok_or_else(|| refuse(format!("type={kind} needs dest=PATH")));
    let output = match kind.as_str() {
        "oci" if tar => Some(Output::OciArchive(stream(&dest))),
        "oci" => Some(Output::OciLayout(needed(dest)?.into())),
        "docker" if dest.is_none() => None,
        "docker" => Some(Output::DockerArchive(stream(&dest))),
        "tar" => Some(Output::Tar(stream(&dest))),
        "local" => match needed(dest)? {
            dest if dest == "-" => Some(Output::Tar(Destination::Stdout)),
            dest => Some(Output::Directory(dest.into())),
        },
        "image" | "cacheonly" => None,
        "registry" => return Err(refuse("pushing is not supported yet".to_owned())),
        other => return Err(refuse(format!("no type `{other}`"))),
    };
    let has_files = matches!(output, Some(Output::Tar(_) | Output::Directory(_)));
    if platform_split.is_some() && !has_files {
        return Err(refuse(format!("platform-split is for type=local and type=tar, not {kind}")));
    }
    Ok(Wanted { output, names, platform_split })
}

fn only(output: Output) -> Wanted {
    Wanted { output: Some(output), names: Vec::new(), platform_split: None }
}

fn switch(value: &str) -> Option<bool> {
    match value {
        "true" | "1" => Some(true),
        "false" | "0" => Some(false),
        _ => None,
    }
}

/// The fields of a CSV record: a field in quotes may hold commas, as `"name=a,b"`.
fn fields(text: &str) -> Vec<String> {
    let (mut fields, mut field, mut quoted) = (Vec::new(), String::new(), false);
    for character in text.chars() {
        match character {
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(std::mem::take(&mut field)),
            other => field.push(other),
        }
    }
    fields.push(field);
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(text: &str) -> Option<Output> {
        parse(text).unwrap().output
    }

    #[test]
    fn every_type() {
        let file = |path: &str| Destination::File(path.into());
        assert_eq!(output("out"), Some(Output::Directory("out".into())));
        assert_eq!(output("-"), Some(Output::Tar(Destination::Stdout)));
        assert_eq!(output("type=oci,dest=a.tar"), Some(Output::OciArchive(file("a.tar"))));
        assert_eq!(output("type=oci"), Some(Output::OciArchive(Destination::Stdout)));
        assert_eq!(output("type=oci,tar=false,dest=d"), Some(Output::OciLayout("d".into())));
        assert_eq!(output("type=docker"), None);
        assert_eq!(output("type=docker,dest=-"), Some(Output::DockerArchive(Destination::Stdout)));
        assert_eq!(output("type=tar,dest=r.tar"), Some(Output::Tar(file("r.tar"))));
        assert_eq!(output("type=local,dest=d"), Some(Output::Directory("d".into())));
        assert_eq!(output("type=cacheonly"), None);
        let split = parse("type=local,dest=d,platform-split=false").unwrap().platform_split;
        assert_eq!(split, Some(false));
        assert_eq!(parse(r#"type=image,"name=a,b""#).unwrap().names, ["a", "b"]);
    }

    #[test]
    fn the_rest_is_refused() {
        let bad = [
            "type=oci,tar=false",
            "type=local",
            "type=x",
            "dest=x",
            "type=image,push=true",
            "type=oci,compression=zstd",
            "type=registry",
            "type=oci,tar=maybe",
            "type=oci,x",
            "type=oci,platform-split=true",
            "type=local,dest=d,platform-split=maybe",
        ];
        for bad in bad {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
