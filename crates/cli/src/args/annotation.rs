//! `--annotation [TYPE[PLATFORM],…:]NAME=VALUE`, and the same in `--output`.

use rbuild::{Annotation, AnnotationPlace, Platform};

use crate::failure::Failure;

/// Reads one `--annotation`; several types are several annotations.
pub fn parse(text: &str) -> Result<Vec<Annotation>, Failure> {
    let refuse = |why: String| {
        Failure::usage_hint(
            format!("--annotation {text}: {why}"),
            "for example org.opencontainers.image.title=app, or index,manifest[linux/amd64]:NAME=VALUE",
        )
    };
    let (key, value) = text.split_once('=').ok_or_else(|| refuse("no value".to_owned()))?;
    // A name may hold a colon; what stands before the first one is a list of types, or is none.
    let typed = key.split_once(':').and_then(|(types, name)| Some((places(types)?, name)));
    let (places, name) = match typed {
        Some((places, name)) => (places.map_err(refuse)?, name),
        None => (vec![(AnnotationPlace::Manifest, None)], key),
    };
    if name.is_empty() {
        return Err(refuse("no name".to_owned()));
    }
    let one = |(place, platform)| Annotation {
        place,
        platform,
        name: name.to_owned(),
        value: value.to_owned(),
    };
    Ok(places.into_iter().map(one).collect())
}

/// `annotation-TYPE[PLATFORM].NAME` of an output, as BuildKit spells it.
pub fn of_output(key: &str, value: &str) -> Result<Annotation, String> {
    let wrong = || {
        format!(
            "{key}: expected annotation.NAME, annotation-index.NAME, annotation-manifest.NAME, \
             annotation-index-descriptor.NAME or annotation-manifest-descriptor.NAME"
        )
    };
    let rest = key.strip_prefix("annotation").ok_or_else(wrong)?;
    let dot = match rest.find(']') {
        Some(bracket) => rest.get(bracket..).and_then(|rest| rest.find('.')).map(|at| at + bracket),
        None => rest.find('.'),
    };
    let (kind, name) = rest.split_at_checked(dot.ok_or_else(wrong)?).ok_or_else(wrong)?;
    let name = name.trim_start_matches('.').to_owned();
    let (place, platform) = match kind.strip_prefix('-') {
        Some(kind) => place(kind).ok_or_else(wrong)??,
        None => place(&format!("manifest{kind}")).ok_or_else(wrong)??,
    };
    if name.is_empty() {
        return Err(wrong());
    }
    Ok(Annotation { place, platform, name, value: value.to_owned() })
}

type Place = (AnnotationPlace, Option<Platform>);

/// A list of types; `None` when it is none.
fn places(types: &str) -> Option<Result<Vec<Place>, String>> {
    types.split(',').map(place).collect()
}

/// One type, with the platform in brackets behind it; `None` when it is none.
fn place(text: &str) -> Option<Result<Place, String>> {
    let (name, platform) = match text.strip_suffix(']').and_then(|text| text.split_once('[')) {
        Some((name, platform)) => (name, Some(platform)),
        None => (text, None),
    };
    let place = match name {
        "manifest" => AnnotationPlace::Manifest,
        "manifest-descriptor" => AnnotationPlace::ManifestDescriptor,
        "index" => AnnotationPlace::Index,
        "index-descriptor" => AnnotationPlace::IndexDescriptor,
        _ => return None,
    };
    let parse = |text: &str| text.parse().map_err(|error| format!("platform {text}: {error}"));
    let platform = match platform.map(parse).transpose() {
        Ok(platform) => platform,
        Err(why) => return Some(Err(why)),
    };
    if platform.is_some() && matches!(name, "index" | "index-descriptor") {
        return Some(Err(format!("{name} is for all platforms")));
    }
    Some(Ok((place, platform)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(all: &[Annotation]) -> Vec<String> {
        let platform = |one: &Annotation| {
            one.platform.as_ref().map_or(String::new(), |platform| format!("[{platform}]"))
        };
        all.iter()
            .map(|one| format!("{:?}{} {}={}", one.place, platform(one), one.name, one.value))
            .collect()
    }

    #[test]
    fn places_are_told_from_names() {
        let parsed = |text: &str| shown(&parse(text).unwrap());
        assert_eq!(parsed("a=b=c"), ["Manifest a=b=c"]);
        assert_eq!(parsed("index:a="), ["Index a="]);
        assert_eq!(parsed("x:y=z"), ["Manifest x:y=z"]);
        assert_eq!(
            parsed("index-descriptor,manifest[linux/arm64]:a.B=c"),
            ["IndexDescriptor a.B=c", "Manifest[linux/arm64] a.B=c"]
        );
        for bad in ["a", "=b", "index:=b", "manifest[x/y/z/w]:a=b", "index[linux/amd64]:a=b"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn outputs_spell_them_differently() {
        let parsed = |key: &str| shown(&[of_output(key, "v").unwrap()]).remove(0);
        assert_eq!(parsed("annotation.org.x"), "Manifest org.x=v");
        assert_eq!(parsed("annotation-index.org.x"), "Index org.x=v");
        assert_eq!(parsed("annotation[linux/arm64].a.b"), "Manifest[linux/arm64] a.b=v");
        assert_eq!(
            parsed("annotation-manifest-descriptor[linux/amd64].a"),
            "ManifestDescriptor[linux/amd64] a=v"
        );
        for bad in ["annotation", "annotation.", "annotation-x.a", "annotations.a"] {
            assert!(of_output(bad, "v").is_err(), "{bad}");
        }
    }
}
