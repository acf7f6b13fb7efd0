//! `-o type=…,dest=…`.

use std::path::PathBuf;

use rbuild::{
    Annotation, AttestationForm, Destination, Encoding, Export, Family, LayerForm, Output,
    Reference,
};

use crate::args::{annotation, switch};
use crate::failure::Failure;
use crate::output::note;

/// What one `--output` asks for.
#[derive(Debug, Default, PartialEq)]
pub struct Wanted {
    /// Something besides the image in the store.
    pub output: Option<Export>,
    /// Further names of the image; those of what is pushed by its digest are only its own.
    pub names: Vec<String>,
    /// Annotations of the image in the store, where that is the output.
    pub annotations: Vec<Annotation>,
    /// How it names the image in the store.
    pub store: InStore,
    /// Whether steps clamp the times of files.
    pub rewrite_timestamp: Option<bool>,
    /// Whether files are in a directory for each platform, if that was said.
    pub platform_split: Option<bool>,
}

/// How an output names the image in the store.
#[derive(Debug, Default, PartialEq)]
pub struct InStore {
    /// Also by its digest.
    pub canonical: bool,
    /// By this repository where it has no name.
    pub dangling: Option<String>,
}

/// The fields of one `--output`, of any type.
#[derive(Default)]
struct Fields {
    kind: Option<String>,
    dest: Option<String>,
    tar: Option<bool>,
    names: Vec<String>,
    platform_split: Option<bool>,
    push: Option<bool>,
    insecure: Option<bool>,
    compression: Option<String>,
    level: Option<String>,
    force: Option<bool>,
    oci_types: Option<bool>,
    by_digest: Option<bool>,
    exact: Option<bool>,
    canonical: bool,
    dangling: Option<String>,
    rewrite_timestamp: Option<bool>,
    annotations: Vec<Annotation>,
    artifact: Option<bool>,
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
             type=registry,name=HOST/NAME, type=local,dest=DIR, or just DIR",
        )
    };
    wanted(Fields::read(text).map_err(refuse)?).map_err(refuse)
}

impl Fields {
    fn read(text: &str) -> Result<Self, String> {
        let mut fields = Self::default();
        for field in split(text) {
            let (key, value) =
                field.split_once('=').ok_or_else(|| format!("`{field}` has no value"))?;
            let key = key.trim().to_ascii_lowercase();
            let switched = || switch::parse(value).map_err(|why| format!("{key}={value}: {why}"));
            match key.as_str() {
                "type" => fields.kind = Some(value.to_owned()),
                "dest" | "destination" => fields.dest = Some(value.to_owned()),
                "tar" => fields.tar = Some(switched()?),
                "platform-split" => fields.platform_split = Some(switched()?),
                "name" => fields.names = value.split(',').map(str::to_owned).collect(),
                "push" => fields.push = Some(switched()?),
                "registry.insecure" => fields.insecure = Some(switched()?),
                "compression" => fields.compression = Some(value.to_owned()),
                "compression-level" => fields.level = Some(value.to_owned()),
                "force-compression" => fields.force = Some(switched()?),
                "oci-mediatypes" => fields.oci_types = Some(switched()?),
                "push-by-digest" => fields.by_digest = Some(switched()?),
                "name-canonical" => fields.canonical = switched()?,
                "dangling-name-prefix" => fields.dangling = Some(value.to_owned()),
                "rewrite-timestamp" => fields.rewrite_timestamp = Some(switched()?),
                "mode" => fields.exact = Some(exact(value)?),
                "oci-artifact" => fields.artifact = Some(switched()?),
                "unpack" | "store" if switched()? => {}
                key if key.starts_with("annotation") => {
                    // Names of annotations know upper case.
                    let key = field.split_once('=').map_or(key, |(key, _)| key.trim());
                    fields.annotations.push(annotation::of_output(key, value)?);
                }
                other => return Err(format!("{other}={value} is not supported yet")),
            }
        }
        Ok(fields)
    }

    /// The form of layers; nothing when nothing was said of it.
    fn form(&self) -> Result<Option<LayerForm>, String> {
        let silent = self.compression.is_none()
            && self.level.is_none()
            && self.force.is_none()
            && self.oci_types.is_none()
            && self.artifact.is_none();
        if silent {
            return Ok(None);
        }
        let encoding = encoding(self.compression.as_deref(), self.level.as_deref())?;
        let mut family = if self.oci_types == Some(false) { Family::Docker } else { Family::Oci };
        if family == Family::Docker {
            estargz_is_ocis(encoding)?;
        }
        if family == Family::Docker && matches!(encoding, Encoding::Zstd { .. }) {
            note(
                "oci-mediatypes=false: Docker has no name for zstd layers, so OCI's names are used",
            );
            family = Family::Oci;
        }
        let attestations = match self.artifact {
            Some(true) => AttestationForm::Artifact,
            _ => AttestationForm::Image,
        };
        Ok(Some(LayerForm { encoding, force: self.force == Some(true), family, attestations }))
    }
}

/// A conflict, as for BuildKit: without annotations nobody can tell whether the table of an eStargz
/// layer is the right one.
pub(super) fn estargz_is_ocis(encoding: Encoding) -> Result<(), String> {
    match encoding.is_estargz() {
        true => Err("oci-mediatypes=false: manifests of Docker have no annotations, which \
                     compression=estargz needs"
            .to_owned()),
        false => Ok(()),
    }
}

/// Codec and level.
pub(super) fn encoding(compression: Option<&str>, level: Option<&str>) -> Result<Encoding, String> {
    let level_of = |most: u32| match level {
        None => Ok(None),
        Some(text) => match text.parse::<u32>() {
            Ok(level) if level <= most => Ok(Some(level)),
            _ => Err(format!("compression-level={text}: expected a number from 0 to {most}")),
        },
    };
    match compression.unwrap_or("gzip") {
        "gzip" => Ok(level_of(9)?.map_or(Encoding::GZIP, |level| Encoding::Gzip { level })),
        "estargz" => {
            Ok(level_of(9)?.map_or(Encoding::ESTARGZ, |level| Encoding::Estargz { level }))
        }
        // As for zstd itself, 0 is its default.
        "zstd" => Ok(match level_of(22)? {
            None | Some(0) => Encoding::ZSTD,
            Some(level) => Encoding::Zstd { level: level as i32 },
        }),
        "uncompressed" if level.is_some() => {
            Err("compression-level has no meaning for compression=uncompressed".to_owned())
        }
        "uncompressed" => Ok(Encoding::Uncompressed),
        other => Err(format!(
            "compression={other}: no such compression: there are uncompressed, gzip, estargz and zstd"
        )),
    }
}

fn exact(mode: &str) -> Result<bool, String> {
    match mode {
        "copy" => Ok(false),
        "delete" => Ok(true),
        other => Err(format!("mode={other}: there are copy and delete")),
    }
}

fn wanted(fields: Fields) -> Result<Wanted, String> {
    let form = fields.form()?;
    let kind = fields.kind.as_deref().ok_or("no type")?;
    let dest = fields.dest.as_deref().filter(|dest| !dest.is_empty());
    let stream = match dest {
        None | Some("-") => Destination::Stdout,
        Some(path) => Destination::File(path.into()),
    };
    let needed = || dest.ok_or_else(|| format!("type={kind} needs dest=PATH"));
    let push = fields.push.unwrap_or(kind == "registry");
    if push && !matches!(kind, "image" | "registry") {
        return Err(format!("push=true is for type=image, not {kind}"));
    }
    let output = match kind {
        "oci" if fields.tar != Some(false) => Some(Output::OciArchive(stream)),
        "oci" => Some(Output::OciLayout(needed()?.into())),
        "docker" if dest.is_none() => None,
        "docker" => Some(Output::DockerArchive(stream)),
        "tar" => Some(Output::Tar(stream)),
        "local" if needed()? == "-" => Some(Output::Tar(Destination::Stdout)),
        "local" if fields.exact == Some(true) => Some(Output::ExactDirectory(needed()?.into())),
        "local" => Some(Output::Directory(needed()?.into())),
        "image" | "registry" if push => Some(Output::Registry {
            insecure: fields.insecure == Some(true),
            by_digest: fields.by_digest == Some(true),
        }),
        "image" | "registry" => None,
        "cacheonly" => Some(Output::CacheOnly),
        other => return Err(format!("no type `{other}`")),
    };
    let has_files =
        matches!(output, Some(Output::Tar(_) | Output::Directory(_) | Output::ExactDirectory(_)));
    if fields.exact.is_some() && kind != "local" {
        return Err(format!("mode is for type=local, not {kind}"));
    }
    if fields.by_digest == Some(true) && !push {
        return Err("push-by-digest is for what is pushed".to_owned());
    }
    if fields.by_digest == Some(true) && fields.names.iter().any(|name| Reference::is_exact(name)) {
        return Err("push-by-digest moves no tag: leave it out of name=".to_owned());
    }
    let names_it = fields.canonical || fields.dangling.is_some();
    if names_it && !matches!(kind, "image" | "registry") {
        return Err(format!(
            "name-canonical and dangling-name-prefix are for type=image, not {kind}"
        ));
    }
    let is_image = !has_files && kind != "cacheonly";
    if !fields.annotations.is_empty() && !is_image {
        return Err(format!("annotations are of images, and type={kind} is none"));
    }
    if fields.platform_split.is_some() && !has_files {
        return Err(format!("platform-split is for type=local and type=tar, not {kind}"));
    }
    if fields.insecure.is_some() && !push {
        return Err("registry.insecure is for what is pushed".to_owned());
    }
    if fields.artifact.is_some() && (has_files || matches!(kind, "docker" | "cacheonly")) {
        return Err(format!(
            "oci-artifact is of the attestations of images, and type={kind} has none"
        ));
    }
    if form.is_some() && has_files {
        return Err(format!("compression is of the layers of images, and type={kind} has none"));
    }
    if form.is_some() && matches!(output, None | Some(Output::CacheOnly)) {
        return Err("compression is for images that leave, by dest=PATH or push=true: the store \
                    keeps layers as files"
            .to_owned());
    }
    let layers = form.unwrap_or_default();
    let names: Vec<String> = fields.names.into_iter().filter(|name| !name.is_empty()).collect();
    let (own, annotations) = (names.clone(), fields.annotations.clone());
    Ok(Wanted {
        annotations: if output.is_none() { fields.annotations } else { Vec::new() },
        output: output.map(|output| Export { output, layers, names: own, annotations }),
        names: if fields.by_digest == Some(true) { Vec::new() } else { names },
        store: InStore { canonical: fields.canonical, dangling: fields.dangling },
        rewrite_timestamp: fields.rewrite_timestamp,
        platform_split: fields.platform_split,
    })
}

fn only(output: Output) -> Wanted {
    Wanted { output: Some(output.into()), ..Wanted::default() }
}

/// The fields of a CSV record: a field in quotes may hold commas, as `"name=a,b"`.
pub(super) fn split(text: &str) -> Vec<String> {
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
        parse(text).unwrap().output.map(|export| export.output)
    }

    fn form(text: &str) -> LayerForm {
        parse(&format!("type=oci,dest=a.tar,{text}")).unwrap().output.unwrap().layers
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
        assert_eq!(output("type=cacheonly"), Some(Output::CacheOnly));
        let pushed = |insecure| Some(Output::Registry { insecure, by_digest: false });
        assert_eq!(output("type=registry"), pushed(false));
        assert_eq!(output("type=image,push=true,registry.insecure=true"), pushed(true));
        assert_eq!(output("type=image,push=false"), None);
        assert_eq!(output("type=registry,push=false"), None);
        let by_digest = "type=image,name=a/b,push=true,push-by-digest=true,name-canonical=true";
        let by_digest = parse(by_digest).unwrap();
        assert_eq!((by_digest.names.len(), by_digest.store.canonical), (0, true));
        let export = by_digest.output.unwrap();
        assert_eq!(export.names, ["a/b"]);
        assert_eq!(export.output, Output::Registry { insecure: false, by_digest: true });
        let exact = output("type=local,dest=d,mode=delete");
        assert_eq!(exact, Some(Output::ExactDirectory("d".into())));
        let split = parse("type=local,dest=d,platform-split=false").unwrap().platform_split;
        assert_eq!(split, Some(false));
        assert_eq!(parse(r#"type=image,"name=a,b""#).unwrap().names, ["a", "b"]);
    }

    #[test]
    fn every_compression() {
        assert_eq!(parse("type=oci").unwrap().output.unwrap().layers, LayerForm::default());
        assert_eq!(form("compression=gzip"), LayerForm::default());
        assert_eq!(form("compression-level=0").encoding, Encoding::Gzip { level: 0 });
        assert_eq!(form("compression=zstd").encoding, Encoding::ZSTD);
        assert_eq!(form("compression=zstd,compression-level=0").encoding, Encoding::ZSTD);
        let best = form("compression=zstd,compression-level=22").encoding;
        assert_eq!(best, Encoding::Zstd { level: 22 });
        assert_eq!(form("compression=estargz").encoding, Encoding::ESTARGZ);
        let stored = form("compression=estargz,compression-level=0,oci-mediatypes=true").encoding;
        assert_eq!(stored, Encoding::Estargz { level: 0 });
        assert_eq!(form("compression=uncompressed").encoding, Encoding::Uncompressed);
        assert!(form("force-compression=true").force && !form("force-compression=false").force);
        assert_eq!(form("oci-mediatypes=false").family, Family::Docker);
        assert_eq!(form("oci-artifact=true").attestations, AttestationForm::Artifact);
        assert_eq!(form("oci-artifact=false"), LayerForm::default());
        assert_eq!(form("oci-mediatypes=false,compression=zstd").family, Family::Oci);
    }

    #[test]
    fn the_rest_is_refused() {
        let bad = [
            "type=oci,tar=false",
            "type=local",
            "type=x",
            "dest=x",
            "type=oci,dest=a,push=true",
            "type=oci,dest=a,compression=estargz,compression-level=10",
            "type=oci,dest=a,compression=estargz,oci-mediatypes=false",
            "type=oci,dest=a,compression=lz4",
            "type=oci,dest=a,compression-level=10",
            "type=oci,dest=a,compression=zstd,compression-level=23",
            "type=oci,dest=a,compression=zstd,compression-level=-1",
            "type=oci,dest=a,compression=uncompressed,compression-level=1",
            "type=oci,dest=a,force-compression=perhaps",
            "type=tar,dest=a,compression=gzip",
            "type=docker,dest=a,oci-artifact=true",
            "type=image,compression=gzip",
            "type=image,registry.insecure=true",
            "type=image,push-by-digest=true",
            "type=image,push=true,push-by-digest=true,name=a:1",
            "type=oci,dest=a,mode=delete",
            "type=local,dest=a,mode=move",
            "type=local,dest=a,annotation.x=y",
            "type=oci,dest=a,name-canonical=true",
            "type=oci,dest=a,annotation-nothing.x=y",
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
