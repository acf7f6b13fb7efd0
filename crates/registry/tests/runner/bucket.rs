//! Objects in a bucket that goes away meanwhile.

use std::io::Read;

use rbuild_registry::{BucketOptions, Registry, RegistryError};
use rbuild_types::{CancelToken, Ctx, Silent};

use crate::support::{FaultyRegistry, Reply, Request, quick};

/// More than one part.
const SIZE: u64 = (16 << 20) + 1;

/// A server that takes parts, and does not complete an upload.
fn start() -> FaultyRegistry {
    FaultyRegistry::start(|request: &Request| {
        match (request.method.as_str(), request.path.split_once('?')) {
            ("POST", Some((_, "uploads="))) => Reply::new(
                200,
                "<InitiateMultipartUploadResult><UploadId>one</UploadId>\
                 </InitiateMultipartUploadResult>",
            ),
            ("PUT", Some(_)) => Reply::new(200, "").with("ETag", "\"part\""),
            ("DELETE", Some(_)) => Reply::new(204, ""),
            _ => Reply::new(400, "<Error><Code>InvalidPart</Code></Error>"),
        }
    })
}

fn upload(server: &FaultyRegistry, source: &mut dyn Read) -> RegistryError {
    let options = BucketOptions {
        bucket: "caches".to_owned(),
        region: "here".to_owned(),
        endpoint_url: Some(format!("http://{}", server.host())),
        use_path_style: true,
        key: Some(("id".to_owned(), "secret".to_owned())),
        retries: Some(0),
        ..BucketOptions::default()
    };
    let bucket = Registry::new(quick()).unwrap().bucket(&options).unwrap();
    let cancel = CancelToken::default();
    bucket.upload("layer", SIZE, source, Ctx::new(&Silent, &cancel)).unwrap_err()
}

fn asked(server: &FaultyRegistry) -> Vec<(String, String)> {
    server.requests().into_iter().map(|request| (request.method, request.path)).collect()
}

/// Gives this many bytes, then an error.
struct Breaks(u64);

impl Read for Breaks {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = buffer.len().min(usize::try_from(self.0).unwrap());
        if count == 0 {
            return Err(std::io::Error::other("the disk is broken"));
        }
        self.0 -= count as u64;
        buffer[..count].fill(7);
        Ok(count)
    }
}

#[test]
fn an_upload_that_fails_is_given_up_at_the_bucket() {
    let given_up = ("DELETE".to_owned(), "/caches/layer?uploadId=one".to_owned());
    // The source fails after the first part.
    let server = start();
    let error = upload(&server, &mut Breaks(SIZE - 1));
    assert!(matches!(error, RegistryError::Source { .. }), "{error}");
    assert_eq!(asked(&server).last(), Some(&given_up));
    // All parts are there, and the server does not put them together.
    let server = start();
    let error = upload(&server, &mut std::io::repeat(7).take(SIZE));
    assert!(matches!(error, RegistryError::Bucket { .. }), "{error}");
    let asked = asked(&server);
    assert_eq!(asked.iter().filter(|(method, _)| method == "PUT").count(), 2, "{asked:?}");
    assert_eq!(asked.last(), Some(&given_up));
}
