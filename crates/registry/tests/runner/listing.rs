//! Lists page by page.

use rbuild_registry::{Registry, RegistryError};
use rbuild_types::{CancelToken, Ctx, Silent};

use crate::support::{FaultyRegistry, Reply, Request, quick};

fn tags(server: &FaultyRegistry) -> Result<Vec<String>, RegistryError> {
    let cancel = CancelToken::default();
    let ctx = Ctx::new(&Silent, &cancel);
    let found = Registry::new(quick()).unwrap().tags(&server.reference("team/app"), ctx)?;
    Ok(found.iter().map(|one| one.tag().unwrap().to_owned()).collect())
}

fn page(tags: &str) -> Reply {
    Reply::new(200, format!(r#"{{"name":"team/app","tags":{tags}}}"#))
}

#[test]
fn tags_come_page_by_page() {
    let server =
        FaultyRegistry::start(|request: &Request| match (request.before, request.path.as_str()) {
            (0, "/v2/team/app/tags/list?n=1000") => Reply::error(503, "BUSY", "later"),
            (_, "/v2/team/app/tags/list?n=1000") => page(r#"["b","latest"]"#)
                .with("Link", "</v2/team/app/tags/list?last=latest&n=1000>; rel=\"next\""),
            (_, "/v2/team/app/tags/list?last=latest&n=1000") => {
                page(r#"["a","b"]"#).with("Link", "<list?last=b>; rel=\"next\"")
            }
            (_, "/v2/team/app/tags/list?last=b") => page("null"),
            _ => Reply::error(404, "NAME_UNKNOWN", "no"),
        });
    assert_eq!(tags(&server).unwrap(), ["a", "b", "latest"]);
    assert_eq!(server.requests().len(), 4);
}

#[test]
fn lists_that_are_none_or_do_not_end_are_refused() {
    for body in ["[]", r#"{"tags":[1]}"#, r#"{"tags":["a b"]}"#, r#"{"tags":["a@x"]}"#] {
        let server = FaultyRegistry::start(move |_| Reply::new(200, body));
        let error = tags(&server).unwrap_err();
        assert!(matches!(error, RegistryError::Listing { .. }), "{body}: {error:?}");
    }
    let circle = FaultyRegistry::start(|request: &Request| {
        page("[]").with("Link", format!("<{}>; rel=\"next\"", request.path))
    });
    let error = tags(&circle).unwrap_err().to_string();
    assert!(error.contains("more than 1000 pages"), "{error}");
    let elsewhere =
        FaultyRegistry::start(|_| page("[]").with("Link", "<file:///etc/passwd>; rel=\"next\""));
    let error = tags(&elsewhere).unwrap_err();
    assert!(matches!(error, RegistryError::Redirect { .. }), "{error:?}");
}
