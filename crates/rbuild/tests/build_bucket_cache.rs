//! Caches in a bucket: a small one on the loopback device that knows `If-Match`, or does not.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use rbuild::{
    BucketOptions, BuildRequest, CacheExport, CacheImport, CacheLocation, CacheMode, Digest,
    Output, S3Location,
};

use crate::build_remote_cache::{LAYERS, STAGES, STEPS, engine, traffic};
use crate::support::{Place, build, id, ran};
use crate::tests;
use crate::web::{Answer, Asked, Web, answer};

tests![
    a_bucket_keeps_a_cache,
    a_bucket_keeps_cache_mounts,
    writers_to_a_bucket_lose_nothing,
    writers_to_a_bucket_that_knows_no_conditions_lose_nothing,
];

type Objects = Arc<Mutex<BTreeMap<String, Vec<u8>>>>;

struct Bucket {
    web: Web,
    objects: Objects,
}

impl Bucket {
    fn start(knows_conditions: bool) -> Self {
        let objects = Objects::default();
        let kept = objects.clone();
        let web =
            Web::start(move |asked| reply(&mut kept.lock().unwrap(), asked, knows_conditions));
        Self { web, objects }
    }

    fn location(&self) -> CacheLocation {
        let key = Some(("id".to_owned(), "secret".to_owned()));
        let bucket = BucketOptions {
            bucket: "caches".to_owned(),
            region: "here".to_owned(),
            endpoint_url: Some(self.web.url("")),
            use_path_style: true,
            key,
            ..BucketOptions::default()
        };
        CacheLocation::S3(S3Location { prefix: "app/".to_owned(), ..S3Location::new(bucket) })
    }

    fn names(&self) -> Vec<String> {
        self.objects.lock().unwrap().keys().cloned().collect()
    }

    fn exporting(&self, place: &Place, text: &str) -> BuildRequest {
        let export = CacheExport {
            mode: CacheMode::Max,
            must_succeed: true,
            ..CacheExport::new(self.location())
        };
        BuildRequest { cache_to: vec![export], ..place.request(text) }
    }

    fn importing(&self, place: &Place, text: &str) -> BuildRequest {
        let cache_from = vec![CacheImport { location: self.location() }];
        BuildRequest { cache_from, ..place.request(text) }
    }
}

fn reply(objects: &mut BTreeMap<String, Vec<u8>>, asked: &Asked, conditions: bool) -> Answer {
    if !asked.header("authorization").starts_with("AWS4-HMAC-SHA256 Credential=id/") {
        return answer(403, "");
    }
    let Some(name) = asked.path.strip_prefix("/caches/") else { return answer(404, "") };
    let name = name.replace("%3A", ":");
    let tag = |bytes: &Vec<u8>| format!("\"{}\"", Digest::of(bytes).short());
    let there = objects.get(&name);
    if asked.method == "PUT" {
        let exists = asked.header("if-none-match") == "*" && there.is_some();
        let expected = asked.header("if-match");
        let other = !expected.is_empty() && there.map(tag).as_deref() != Some(expected);
        if conditions && (exists || other) {
            return answer(412, "");
        }
        let new = tag(&asked.body);
        objects.insert(name, asked.body.clone());
        return answer(200, "").with("ETag", new);
    }
    let Some(bytes) = there else { return answer(404, "") };
    let described = |answer: Answer| {
        answer.with("ETag", tag(bytes)).with("Last-Modified", "Sat, 01 Jan 2000 00:00:00 GMT")
    };
    let range =
        asked.header("range").strip_prefix("bytes=").and_then(|range| range.split_once('-'));
    match range {
        None => described(answer(200, bytes.clone())),
        Some((from, to)) => {
            let (from, to): (usize, usize) = (from.parse().unwrap(), to.parse().unwrap());
            let range = format!("bytes {from}-{to}/{}", bytes.len());
            described(answer(206, &bytes[from..=to])).with("Content-Range", range)
        }
    }
}

fn a_bucket_keeps_a_cache() {
    let place = Place::new();
    let bucket = Bucket::start(true);
    let warm = engine(&place, "warm");
    let first = build(&warm, &bucket.exporting(&place, STAGES));
    assert_eq!(traffic(&first).sent_layers, STEPS - 1);
    let names = bucket.names();
    assert_eq!(names.len(), STEPS);
    assert!(names.contains(&"app/manifests/rbuild".to_owned()), "{names:?}");
    assert!(names[0].starts_with("app/blobs/sha256:"), "{names:?}");
    // Nothing new: nothing is written.
    bucket.web.asked();
    build(&warm, &bucket.exporting(&place, STAGES));
    assert!(bucket.web.asked().iter().all(|asked| asked.method != "PUT"));
    // One object is all that a cold store asks for.
    let cold = engine(&place, "cold");
    let second = build(&cold, &bucket.importing(&place, STAGES).output(Output::CacheOnly));
    assert_eq!((second.executed, id(&second)), (0, id(&first)));
    assert_eq!(bucket.web.asked().len(), 1);
    let third = build(&cold, &bucket.importing(&place, STAGES).tag("kept"));
    assert_eq!((third.executed, traffic(&third).fetched_layers), (0, LAYERS));
    assert_eq!(place.sh(&cold, "kept", "cat /both"), "tools\nmore\nbelow\n");
}

fn a_bucket_keeps_cache_mounts() {
    crate::build_mount_cache::comes_back(&Bucket::start(true).location());
}

fn many_writers(bucket: &Bucket) {
    let place = Place::new();
    let builds: Vec<String> = (0..3).map(|n| format!("RUN echo {n} > /number\n")).collect();
    std::thread::scope(|scope| {
        for (number, text) in builds.iter().enumerate() {
            let place = &place;
            scope.spawn(move || {
                let engine = engine(place, &format!("store-{number}"));
                build(&engine, &bucket.exporting(place, text));
            });
        }
    });
    for (number, text) in builds.iter().enumerate() {
        let cold = engine(&place, &format!("cold-{number}"));
        let built = build(&cold, &bucket.importing(&place, text).output(Output::CacheOnly));
        assert_eq!(built.executed, 0, "{:?}", ran(&built));
    }
}

fn writers_to_a_bucket_lose_nothing() {
    many_writers(&Bucket::start(true));
}

fn writers_to_a_bucket_that_knows_no_conditions_lose_nothing() {
    many_writers(&Bucket::start(false));
}
