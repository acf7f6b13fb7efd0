//! Which steps a build had and which of them the cache answered.

use std::collections::BTreeMap;

use serde_json::Value;

/// One step that changes the file system, as the build named it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) name: String,
    pub(crate) cached: bool,
}

/// Reads `rbuild.steps` of a metadata file; `None` when there is no such list.
pub(crate) fn from_metadata(document: &Value) -> Option<Vec<Step>> {
    let steps = document.get("rbuild.steps")?.as_array()?;
    let step = |s: &Value| {
        Some(Step { name: s["name"].as_str()?.to_owned(), cached: s["cached"].as_bool()? })
    };
    Some(steps.iter().filter_map(step).filter(works).collect())
}

/// Reads the lines of `--progress=plain`: `#3 [1/2] RUN x` and later `#3 CACHED`.
pub(crate) fn from_plain(text: &str) -> Vec<Step> {
    let mut steps: BTreeMap<u64, Step> = BTreeMap::new();
    for line in text.lines() {
        let Some((number, rest)) = line.strip_prefix('#').and_then(|l| l.split_once(' ')) else {
            continue;
        };
        let Ok(number) = number.parse() else { continue };
        if rest.starts_with('[') {
            let named = || Step { name: rest.to_owned(), cached: false };
            steps.entry(number).or_insert_with(named);
        } else if let (true, Some(step)) = (rest.starts_with("CACHED"), steps.get_mut(&number)) {
            step.cached = true;
        }
    }
    steps.into_values().filter(works).collect()
}

/// The names of the steps that ran, for a message.
pub(crate) fn not_cached(steps: &[Step]) -> Vec<&str> {
    steps.iter().filter(|s| !s.cached).map(|s| s.name.as_str()).collect()
}

/// Whether the step's instruction makes files; bases and contexts are looked up every time.
fn works(step: &Step) -> bool {
    let text = step.name.split_once("] ").map_or(step.name.as_str(), |(_, text)| text);
    let word = text.split_whitespace().next().unwrap_or_default();
    ["RUN", "COPY", "ADD", "WORKDIR"].iter().any(|w| word.eq_ignore_ascii_case(w))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const PLAIN: &str = "\
#1 [internal] load build definition from Dockerfile
#2 [1/3] FROM docker.io/library/busybox
#3 [2/3] RUN echo #4 CACHED
#3 0.1 #4 CACHED
#4 [app 3/3] COPY a /a
#4 CACHED
#3 DONE 0.0s
";

    #[test]
    fn plain_progress_tells_the_cached_steps() {
        let steps = from_plain(PLAIN);
        assert_eq!(steps.len(), 2);
        assert_eq!(not_cached(&steps), ["[2/3] RUN echo #4 CACHED"]);
    }

    #[test]
    fn metadata_tells_them_too() {
        let document = json!({ "rbuild.steps": [
            { "name": "[1/2] FROM x", "cached": false },
            { "name": "[2/2] RUN y", "cached": true, "ms": 0 },
        ]});
        let steps = from_metadata(&document).unwrap();
        assert_eq!(steps, [Step { name: "[2/2] RUN y".into(), cached: true }]);
        assert!(from_metadata(&json!({})).is_none());
    }
}
